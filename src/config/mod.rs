//! JSON in, a validated [`Config`] out: every error of a configuration at once, each with its JSON path.
//!
//! Two steps. `json` and `protobuf` turn the two forms a proxy hands over into one tree, `node`, that keeps order and
//! duplicate keys; both bound the depth. `read` then walks the tree, one file for each part of a configuration, and never
//! stops at the first error.

mod document;
mod error;
mod json;
mod model;
mod node;
mod protobuf;
mod read;
mod suggest;

pub use error::{Error, Errors, MAX_ERRORS};
pub use model::*;
pub use read::{Schema, schemas};

/// Reads the plugin's configuration: JSON text, or a serialized `google.protobuf.Struct`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the document.
pub fn read(bytes: &[u8]) -> Result<Config, Errors> {
    read::config(&document::parse(bytes)?)
}
