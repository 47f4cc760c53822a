//! JSON text to a tree of nodes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::error::{Errors, Step};
use super::node::{Kind, Node, Parser, TOO_DEEP};

/// Parses one JSON document. An error of syntax names the path, the line and the column.
pub(super) fn parse(text: &[u8]) -> Result<Node, Errors> {
    let mut parser = Parser::new();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let parsed = Tree { parser: &mut parser }.deserialize(&mut deserializer);
    match parsed.and_then(|node| deserializer.end().map(|()| node)) {
        Ok(node) => Ok(node),
        Err(error) => Err(Errors::one(&parser.path, ["not valid JSON: ", &error.to_string()].concat())),
    }
}

struct Tree<'p> {
    parser: &'p mut Parser,
}

impl Tree<'_> {
    fn node<E>(self, kind: Kind) -> Result<Node, E> {
        Ok(Node { order: self.parser.place(), kind })
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        self.node(Kind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        self.node(Kind::Bool(value))
    }

    // Whole numbers beyond 2^53 lose digits here; they are beyond every bound as well, before and after.
    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        self.node(Kind::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        self.node(Kind::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        self.node(Kind::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        self.node(Kind::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let order = self.parser.place();
        if !self.parser.enter() {
            return Err(A::Error::custom(TOO_DEEP));
        }
        let mut items = Vec::new();
        while let Some(item) =
            self.parser.within(Step::Item(items.len()), |parser| access.next_element_seed(Tree { parser }))?
        {
            items.push(item);
        }
        self.parser.leave();
        Ok(Node { order, kind: Kind::List(items) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let order = self.parser.place();
        if !self.parser.enter() {
            return Err(A::Error::custom(TOO_DEEP));
        }
        let mut fields = Vec::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = self.parser.within(Step::Field(&name), |parser| access.next_value_seed(Tree { parser }))?;
            fields.push((name, value));
        }
        self.parser.leave();
        Ok(Node { order, kind: Kind::Object(fields) })
    }
}
