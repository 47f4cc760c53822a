//! What the reference documents and this build cannot carry out yet: refused, never ignored.
//!
//! The only such list. A line goes when what it names works.

use super::node::{Kind, Node};

/// One setting: the object's schema, the field, and which values of it.
pub(super) struct Entry {
    pub schema: &'static str,
    pub field: &'static str,
    pub when: When,
}

/// Which values of a field are refused.
#[derive(Clone, Copy)]
pub(super) enum When {
    /// Any that asks for something: not 0, `false` or an empty list.
    Given,
    /// This word.
    Is(&'static str),
}

const fn entry(schema: &'static str, field: &'static str, when: When) -> Entry {
    Entry { schema, field, when }
}

pub(super) const UNSUPPORTED: &[Entry] = &[
    entry("request_limits", "max_body_bytes", When::Given),
    entry("load_shedding", "key", When::Given),
    entry("load_shedding", "priority", When::Given),
    entry("load_shedding", "queue", When::Given),
    entry("load_shedding", "throttle", When::Given),
    entry("load_shedding", "deadline", When::Given),
    entry("load_shedding", "release", When::Is("headers")),
];

impl When {
    /// Whether a field with this value, or without one, is refused.
    pub fn holds(self, value: Option<&Node>) -> bool {
        match (self, value.map(|node| &node.kind)) {
            (When::Is(word), Some(Kind::String(text))) => text == word,
            (When::Given, Some(Kind::Bool(given))) => *given,
            (When::Given, Some(Kind::Number(number))) => *number != 0.0,
            (When::Given, Some(Kind::List(items))) => !items.is_empty(),
            (When::Given, Some(_)) => true,
            _ => false,
        }
    }
}
