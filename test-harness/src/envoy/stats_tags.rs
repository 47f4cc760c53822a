//! The tags that turn parts of Tidegate's stat names into labels.

use serde_json::{Value, json};

/// The bootstrap that users start from: what is tested is what they run.
const ENVOY_YAML: &str = include_str!("../../../envoy/envoy.yaml");

/// The `stats_tags` of `envoy/envoy.yaml`.
///
/// It is read line by line: one list with two fields an entry, of single-quoted text, does not need all of YAML.
pub fn stats_tags() -> Value {
    let lines = ENVOY_YAML.lines().map(str::trim).skip_while(|line| *line != "stats_tags:");
    let mut tags = Vec::new();
    let mut name = "";
    for line in lines.skip(1) {
        if let Some(found) = line.strip_prefix("- tag_name: ") {
            name = found;
        } else if let Some(regex) = line.strip_prefix("regex: '").and_then(|rest| rest.strip_suffix('\'')) {
            tags.push(json!({"tag_name": name, "regex": regex}));
        } else if !line.is_empty() && !line.starts_with('#') {
            break;
        }
    }
    Value::Array(tags)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_label_has_its_tag() {
        let tags = stats_tags();
        let mut names: Vec<_> = tags.as_array().unwrap().iter().map(|tag| tag["tag_name"].as_str().unwrap()).collect();
        names.sort_unstable();
        let labels: BTreeSet<_> = tidegate::engine::stats::ALL.iter().flat_map(|stat| stat.labels).copied().collect();
        assert_eq!(names, Vec::from_iter(labels));
        let pattern = |tag: &Value| tag["regex"].as_str().unwrap().starts_with(r"^wasmcustom\.tidegate_");
        assert!(tags.as_array().unwrap().iter().all(pattern), "{tags}");
    }
}
