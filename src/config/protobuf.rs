//! A serialized `google.protobuf.Struct` to a tree of nodes: what Envoy hands over when `configuration` is plain YAML.
//!
//! The wire format in short (protobuf.dev, "Encoding"): a message is a sequence of fields, each a varint tag (number and
//! wire type) and a payload. `Struct` has field 1, a repeated map entry of key (1, string) and value (2, `Value`).
//! `Value` is one of null (1, varint), number (2, 64 bits), string (3), bool (4, varint), Struct (5), list (6);
//! `ListValue` has field 1, a repeated `Value`. Fields of other numbers are skipped, as protobuf asks.

use super::error::{Errors, Step};
use super::node::{Kind, Node, Parser, TOO_DEEP};

/// Parses one serialized Struct.
pub(super) fn parse(bytes: &[u8]) -> Result<Node, Errors> {
    let mut parser = Parser::new();
    object(&mut parser, bytes).map_err(|message| {
        let lead = if message == TOO_DEEP { "" } else { "not a valid serialized google.protobuf.Struct: " };
        Errors::one(&parser.path, [lead, message].concat())
    })
}

/// Whether the bytes start as a Struct does: an entry of a key and the tag of a value.
///
/// The first byte of a Struct, 0x0A, is a line break and may start JSON text too. The value's tag, 0x12, is a control
/// character, which JSON has nowhere, so no text is taken for a Struct.
pub(super) fn is_struct(bytes: &[u8]) -> bool {
    let mut input = Input { rest: bytes };
    if input.tag() != Ok(Some((1, LENGTH))) || input.varint().is_err() {
        return false;
    }
    match input.tag() {
        Ok(Some((2, LENGTH))) => true,
        Ok(Some((1, LENGTH))) => input.bytes().is_ok() && input.tag() == Ok(Some((2, LENGTH))),
        _ => false,
    }
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

type Parsed<T> = Result<T, &'static str>;

fn object(parser: &mut Parser, bytes: &[u8]) -> Parsed<Node> {
    let order = parser.place();
    if !parser.enter() {
        return Err(TOO_DEEP);
    }
    let mut fields = Vec::new();
    let mut input = Input { rest: bytes };
    while let Some(tag) = input.tag()? {
        if tag == (1, LENGTH) {
            let (name, value) = entry(input.bytes()?)?;
            let value = parser.within(Step::Field(name), |parser| self::value(parser, value))?;
            fields.push((name.to_owned(), value));
        } else {
            input.skip(tag.1)?;
        }
    }
    parser.leave();
    Ok(Node { order, kind: Kind::Object(fields) })
}

fn list(parser: &mut Parser, bytes: &[u8]) -> Parsed<Node> {
    let order = parser.place();
    if !parser.enter() {
        return Err(TOO_DEEP);
    }
    let mut items = Vec::new();
    let mut input = Input { rest: bytes };
    while let Some(tag) = input.tag()? {
        if tag == (1, LENGTH) {
            let bytes = input.bytes()?;
            items.push(parser.within(Step::Item(items.len()), |parser| value(parser, bytes))?);
        } else {
            input.skip(tag.1)?;
        }
    }
    parser.leave();
    Ok(Node { order, kind: Kind::List(items) })
}

/// Key and value of a map entry; either may be absent and is empty then.
fn entry(bytes: &[u8]) -> Parsed<(&str, &[u8])> {
    let (mut name, mut value) = ("", &[][..]);
    let mut input = Input { rest: bytes };
    while let Some(tag) = input.tag()? {
        match tag {
            (1, LENGTH) => name = input.text()?,
            (2, LENGTH) => value = input.bytes()?,
            (_, wire) => input.skip(wire)?,
        }
    }
    Ok((name, value))
}

/// The last of the kinds given counts, as for every `oneof`; none is null.
fn value(parser: &mut Parser, bytes: &[u8]) -> Parsed<Node> {
    let mut last = None;
    let mut input = Input { rest: bytes };
    while let Some((number, wire)) = input.tag()? {
        let start = input.rest;
        input.skip(wire)?;
        if matches!((number, wire), (1 | 4, VARINT) | (2, FIXED64) | (3 | 5 | 6, LENGTH)) {
            last = Some((number, Input { rest: start }));
        }
    }
    let kind = match last {
        Some((2, mut input)) => Kind::Number(input.double()?),
        Some((3, mut input)) => Kind::String(input.text()?.to_owned()),
        Some((4, mut input)) => Kind::Bool(input.varint()? != 0),
        Some((5, mut input)) => return object(parser, input.bytes()?),
        Some((6, mut input)) => return list(parser, input.bytes()?),
        _ => Kind::Null,
    };
    Ok(Node { order: parser.place(), kind })
}

/// Bytes not read yet.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("a field runs past the end")?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Parsed<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number is longer than ten bytes")
    }

    /// Field number and wire type of the next field; none at the end.
    fn tag(&mut self) -> Parsed<Option<(u64, u8)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        Ok(Some((tag >> 3, (tag & 7) as u8)))
    }

    fn bytes(&mut self) -> Parsed<&'a [u8]> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        self.take(length)
    }

    fn text(&mut self) -> Parsed<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a string is not UTF-8")
    }

    fn double(&mut self) -> Parsed<f64> {
        let bytes = self.take(8)?.try_into().unwrap_or_default();
        Ok(f64::from_le_bytes(bytes))
    }

    fn skip(&mut self, wire: u8) -> Parsed<()> {
        match wire {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            LENGTH => self.bytes().map(drop),
            FIXED32 => self.take(4).map(drop),
            _ => Err("a field has an unknown wire type"),
        }
    }
}
