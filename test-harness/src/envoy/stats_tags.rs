//! The tags that turn parts of Tidegate's stat names into labels.

use serde_json::{Value, json};

/// Envoy's `stats_tags` for Tidegate's stats.
///
/// A plugin's stats are called `wasmcustom.<name>` inside Envoy. The first group of a pattern is cut out of the name, the
/// second is the label's value. A breaker's key and a limit's name stand last and may hold dots, so they run to the end; all
/// patterns start with a fixed word, which spares Envoy from trying them on its own stats.
pub fn stats_tags() -> Value {
    let tag = |name: &str, pattern: &str| json!({"tag_name": name, "regex": pattern});
    let part = |name: &str| format!(r"^wasmcustom\.tidegate_[a-z_]+(?:\.policy\.[a-z0-9_-]+)?(\.{name}\.([a-z_]+))$");
    let rest = |name: &str| format!(r"^wasmcustom\.tidegate_[a-z_]+\.policy\.[a-z0-9_-]+(\.{name}\.(.+))$");
    json!([
        tag("policy", r"^wasmcustom\.tidegate_[a-z_]+(\.policy\.([a-z0-9_-]+))"),
        tag("decision", &part("decision")),
        tag("to", &part("to")),
        tag("result", &part("result")),
        tag("kind", &part("kind")),
        tag("key", &rest("key")),
        tag("limit", &rest("limit")),
    ])
}
