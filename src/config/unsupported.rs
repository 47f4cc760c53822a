//! What the reference documents and this build cannot carry out yet: refused, never ignored.
//!
//! The only such list. A line goes when what it names works.

use super::node::{Kind, Node};

/// One setting: the object's schema, the field, and which values of it.
pub(super) struct Entry {
    pub schema: &'static str,
    pub field: &'static str,
    pub when: When,
    /// What to do instead; may be empty.
    pub instead: &'static str,
}

/// Which values of a field are refused.
#[derive(Clone, Copy)]
pub(super) enum When {
    /// Any that asks for something: not 0, `false` or an empty list.
    Given,
    /// This word.
    Is(&'static str),
    /// The default, because the field is absent.
    Absent,
}

const fn entry(schema: &'static str, field: &'static str, when: When) -> Entry {
    Entry { schema, field, when, instead: "" }
}

const FIXED: &str = "; give {\"algorithm\": \"fixed\", \"limit\": 100}";

pub(super) const UNSUPPORTED: &[Entry] = &[
    entry("request_limits", "max_body_bytes", When::Given),
    Entry { schema: "load_shedding", field: "limit", when: When::Absent, instead: FIXED },
    Entry { schema: "limit", field: "algorithm", when: When::Absent, instead: FIXED },
    Entry { schema: "limit", field: "algorithm", when: When::Is("adaptive"), instead: FIXED },
    Entry { schema: "limit", field: "algorithm", when: When::Is("gradient2"), instead: FIXED },
    Entry { schema: "limit", field: "algorithm", when: When::Is("vegas"), instead: FIXED },
    Entry { schema: "limit", field: "algorithm", when: When::Is("aimd"), instead: FIXED },
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
            (When::Absent, None) => true,
            (When::Is(word), Some(Kind::String(text))) => text == word,
            (When::Given, Some(Kind::Bool(given))) => *given,
            (When::Given, Some(Kind::Number(number))) => *number != 0.0,
            (When::Given, Some(Kind::List(items))) => !items.is_empty(),
            (When::Given, Some(_)) => true,
            _ => false,
        }
    }
}
