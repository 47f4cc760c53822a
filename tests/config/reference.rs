//! The reference shows what the reader takes: its examples are read, and it leaves no field out.

use tidegate::config::schemas;

use super::{read, wrap};

const REFERENCE: &str = include_str!("../../docs/configuration.md");

/// The ```` ```json ```` blocks, with the word after `json`: what the block is a fragment of.
fn blocks() -> Vec<(&'static str, &'static str)> {
    REFERENCE
        .split("\n```json")
        .skip(1)
        .map(|rest| {
            let (kind, rest) = rest.split_once('\n').unwrap();
            let (text, _) = rest.split_once("\n```").unwrap();
            (if kind.trim().is_empty() { "configuration" } else { kind.trim() }, text)
        })
        .collect()
}

#[test]
fn every_example_is_accepted() {
    assert!(blocks().len() > 10);
    for (kind, text) in blocks() {
        let text = wrap(kind, text);
        if let Err(errors) = read(&text) {
            panic!("{text}\n{errors}");
        }
    }
}

#[test]
fn every_field_has_a_row() {
    for schema in schemas() {
        for field in schema.fields {
            assert!(REFERENCE.contains(&format!("`{field}`")), "{} of a {} is not documented", field, schema.name);
        }
    }
}
