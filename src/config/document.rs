//! Which of the two forms a document has.

use super::error::Errors;
use super::node::Node;
use super::{json, protobuf};

/// Parses JSON text or a serialized Struct.
pub(super) fn parse(bytes: &[u8]) -> Result<Node, Errors> {
    // Editors on some systems put a byte order mark before the text.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if bytes.trim_ascii().is_empty() {
        // An empty Struct is no bytes at all, so this is also what `configuration: {}` comes to.
        return Err(Errors::one(
            "$",
            "the configuration is empty; expected at least {\"policies\": []}, which protects nothing".to_owned(),
        ));
    }
    if protobuf::is_struct(bytes) { protobuf::parse(bytes) } else { json::parse(bytes) }
}
