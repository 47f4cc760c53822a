//! Objects and lists: which fields there are, which are missing, and which nobody knows.

use std::collections::BTreeSet;

use super::super::error::{Context, Step, quote};
use super::super::node::{Kind, Node};
use super::super::suggest;

/// One kind of object in a configuration.
#[derive(Debug)]
pub struct Schema {
    /// What it is called, as in `policy`.
    pub name: &'static str,
    /// The names of its fields.
    pub fields: &'static [&'static str],
}

/// An object being read.
pub(super) struct Fields<'n> {
    schema: &'static Schema,
    node: &'n Node,
    list: &'n [(String, Node)],
}

impl<'n> Fields<'n> {
    /// Reports a node that is no object, and fields that the schema does not have.
    #[inline(never)]
    pub fn open(cx: &mut Context, node: &'n Node, schema: &'static Schema) -> Option<Self> {
        let Kind::Object(list) = &node.kind else {
            cx.expected(node, "an object");
            return None;
        };
        for (name, value) in list {
            if !schema.fields.contains(&name.as_str()) {
                cx.within(Step::Field(name), |cx| cx.error(value, unknown(name, schema)));
            }
        }
        Some(Self { schema, node, list })
    }

    /// The first field of this name.
    #[inline(never)]
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        debug_assert!(self.schema.fields.contains(&name), "{} has no field {name}", self.schema.name);
        self.list.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Whether the field was written.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The field, or its default; `None` if it is wrong.
    pub fn or<T>(
        &self,
        cx: &mut Context,
        name: &'static str,
        default: T,
        read: impl FnOnce(&mut Context, &Node) -> Option<T>,
    ) -> Option<T> {
        match self.get(name) {
            Some(node) => cx.within(Step::Field(name), |cx| read(cx, node)),
            None => Some(default),
        }
    }

    /// The field if it is there; `None` if it is wrong.
    pub fn maybe<T>(
        &self,
        cx: &mut Context,
        name: &'static str,
        read: impl FnOnce(&mut Context, &Node) -> Option<T>,
    ) -> Option<Option<T>> {
        self.or(cx, name, None, |cx, node| read(cx, node).map(Some))
    }

    /// The field, which must be there; `None` if it is not or is wrong.
    pub fn required<T>(
        &self,
        cx: &mut Context,
        name: &'static str,
        read: impl FnOnce(&mut Context, &Node) -> Option<T>,
    ) -> Option<T> {
        if !self.has(name) {
            self.error(cx, name, "required, but missing".to_owned());
        }
        self.maybe(cx, name, read)?
    }

    /// Reports an error of this field, also when it is absent.
    #[inline(never)]
    pub fn error(&self, cx: &mut Context, name: &str, message: String) {
        let node = self.get(name).unwrap_or(self.node);
        cx.within(Step::Field(name), |cx| cx.error(node, message));
    }

    /// Reports each of these fields that is given although `why` says it does nothing.
    #[inline(never)]
    pub fn no_effect(&self, cx: &mut Context, names: &[&str], why: &str) -> Option<()> {
        let mut good = Some(());
        for name in names.iter().filter(|name| self.has(name)) {
            self.error(cx, name, ["has no effect ", why].concat());
            good = None;
        }
        good
    }

    /// The one field of the object, where exactly one of `names` is to be given.
    #[inline(never)]
    pub fn only(&self, cx: &mut Context, names: &[&'static str]) -> Option<(&'static str, &'n Node)> {
        let mut given = names.iter().filter_map(|name| self.get(name).map(|node| (*name, node)));
        match (given.next(), given.next()) {
            (Some(field), None) => Some(field),
            // One of them misspelt, most likely, and already reported.
            (None, _) if self.list.iter().any(|(name, _)| !self.schema.fields.contains(&name.as_str())) => None,
            _ => {
                cx.error(self.node, ["expected exactly one of ", &names.join(", ")].concat());
                None
            }
        }
    }
}

fn unknown(name: &str, schema: &Schema) -> String {
    let known = schema.fields;
    match suggest::nearest(name, known.iter().copied()) {
        Some(near) => ["unknown field; did you mean ", &quote(near), "?"].concat(),
        None => ["unknown field; known here: ", &known.join(", ")].concat(),
    }
}

/// Reads a list of `min` to `max` items; all of them, whatever is wrong with some.
pub(super) fn list<T>(
    cx: &mut Context,
    node: &Node,
    min: usize,
    max: usize,
    mut read: impl FnMut(&mut Context, &Node) -> Option<T>,
) -> Option<Vec<T>> {
    let items = items(cx, node, min, max)?;
    let mut values = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        values.extend(cx.within(Step::Item(index), |cx| read(cx, item)));
    }
    (values.len() == items.len()).then_some(values)
}

#[inline(never)]
fn items<'n>(cx: &mut Context, node: &'n Node, min: usize, max: usize) -> Option<&'n [Node]> {
    let Kind::List(items) = &node.kind else {
        cx.expected(node, "a list");
        return None;
    };
    if items.len() < min || items.len() > max {
        let bounds = format!("expected a list of {min} to {max} items, got {}", items.len());
        cx.error(node, bounds);
        return None;
    }
    Some(items)
}

/// Reads one item, or a list of them.
pub(super) fn one_or_many<T>(
    cx: &mut Context,
    node: &Node,
    max: usize,
    mut read: impl FnMut(&mut Context, &Node) -> Option<T>,
) -> Option<Vec<T>> {
    match node.kind {
        Kind::List(_) => list(cx, node, 1, max, read),
        _ => Some(vec![read(cx, node)?]),
    }
}

/// Reports the items of a list that have the same text in `field` as an earlier one.
pub(super) fn unique(cx: &mut Context, node: &Node, field: &str, what: &str) {
    let Kind::List(items) = &node.kind else { return };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let Kind::Object(fields) = &item.kind else { continue };
        let Some((_, node)) = fields.iter().find(|(key, _)| key == field) else { continue };
        let Kind::String(name) = &node.kind else { continue };
        if !seen.insert(name.as_str()) {
            cx.within(Step::Item(index), |cx| {
                cx.within(Step::Field(field), |cx| {
                    cx.error(node, ["expected a unique name, but ", &quote(name), " is an earlier ", what].concat());
                });
            });
        }
    }
}
