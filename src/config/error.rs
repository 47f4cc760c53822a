//! What is wrong with a configuration, and where.

use std::fmt;

use super::node::{Kind, Node};

/// Errors reported one by one; the rest are only counted.
pub const MAX_ERRORS: usize = 100;

/// Bytes of a quoted string or of a path that are shown.
const SHOWN_TEXT: usize = 60;
const SHOWN_PATH: usize = 300;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where, such as `$.policies[0].rate_limits[1].rate`.
    pub path: String,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        f.write_str(": ")?;
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration, in the order of the document. Shown one error a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    list: Vec<Error>,
    more: usize,
}

impl Errors {
    pub(super) fn one(path: &str, message: String) -> Self {
        Self { list: vec![Error { path: shown_path(path), message }], more: 0 }
    }

    /// The errors, at most [`MAX_ERRORS`].
    pub fn iter(&self) -> impl Iterator<Item = &Error> {
        self.list.iter()
    }

    /// How many there are beyond those.
    pub fn more(&self) -> usize {
        self.more
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Where the walk stands and what it has found wrong so far.
pub(super) struct Context {
    path: String,
    /// With the place in the document, in that order: fields are read in the reader's order, not the writer's.
    found: Vec<(u32, Error)>,
    more: usize,
}

impl Context {
    pub fn new() -> Self {
        Self { path: String::from("$"), found: Vec::new(), more: 0 }
    }

    /// Runs `read` one step further down.
    pub fn within<T>(&mut self, step: Step<'_>, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = step.push_to(&mut self.path);
        let value = read(self);
        self.path.truncate(length);
        value
    }

    /// Reports that the node here, `node`, is wrong.
    #[inline(never)]
    pub fn error(&mut self, node: &Node, message: String) {
        // After what was already said of the same place.
        let at = self.found.partition_point(|(order, _)| *order <= node.order);
        self.found.insert(at, (node.order, Error { path: shown_path(&self.path), message }));
        if self.found.len() > MAX_ERRORS {
            self.found.truncate(MAX_ERRORS);
            self.more = self.more.saturating_add(1);
        }
    }

    /// Reports `expected {what}, got {node}`.
    #[inline(never)]
    pub fn expected(&mut self, node: &Node, what: &str) {
        self.error(node, ["expected ", what, ", got ", &describe(node)].concat());
    }

    pub fn finish<T>(self, value: Option<T>) -> Result<T, Errors> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(Errors { list: self.found.into_iter().map(|(_, error)| error).collect(), more: self.more }),
        }
    }
}

/// One step of a JSON path.
#[derive(Clone, Copy)]
pub(super) enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

impl Step<'_> {
    /// Adds the step and returns how long the path was.
    // Not inlined: there is a call for every field of a configuration, and the module is paid for by the byte.
    #[inline(never)]
    pub fn push_to(self, path: &mut String) -> usize {
        let length = path.len();
        match self {
            Step::Item(index) => {
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
            }
            Step::Field(name)
                if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') =>
            {
                path.push('.');
                path.push_str(name);
            }
            Step::Field(name) => {
                path.push('[');
                path.push_str(&quote(name));
                path.push(']');
            }
        }
        length
    }
}

/// The text in quotes, escaped, cut when long.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for (at, c) in text.char_indices() {
        if at >= SHOWN_TEXT {
            out.push_str("...");
            break;
        }
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                out.push_str("\\u");
                for shift in [12_u32, 8, 4, 0] {
                    out.push(char::from_digit((u32::from(c) >> shift) & 0xf, 16).unwrap_or('?'));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A node in an error message.
pub(super) fn describe(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "null".to_owned(),
        Kind::Bool(value) => value.to_string(),
        Kind::Number(value) => number(*value),
        Kind::String(text) => quote(text),
        Kind::List(_) => "a list".to_owned(),
        Kind::Object(_) => "an object".to_owned(),
    }
}

/// The largest number shown in full, and how finely: the formatting of the standard library, which can do more, would
/// be a tenth of this module's reader.
const SHOWN_WHOLE: f64 = 1e15;
const SHOWN_PARTS: f64 = 1e6;

fn number(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        return "no number".to_owned();
    }
    if size > SHOWN_WHOLE {
        return if value > 0.0 { "more than 10^15" } else { "less than -10^15" }.to_owned();
    }
    if size > 0.0 && size * SHOWN_PARTS < 1.0 {
        return "nearly 0".to_owned();
    }
    let parts = (size.fract() * SHOWN_PARTS).round() as u64;
    // A fraction that rounds up to one whole.
    let whole = (size as u64).saturating_add(u64::from(parts == SHOWN_PARTS as u64));
    let sign = if value < 0.0 { "-" } else { "" };
    let fraction = (parts + SHOWN_PARTS as u64).to_string();
    match fraction.get(1..).unwrap_or_default().trim_end_matches('0') {
        "" => [sign, &whole.to_string()].concat(),
        fraction => [sign, &whole.to_string(), ".", fraction].concat(),
    }
}

/// The middle of a long path goes: its ends say most.
fn shown_path(path: &str) -> String {
    if path.len() <= SHOWN_PATH {
        return path.to_owned();
    }
    let half = SHOWN_PATH / 2;
    let head = path.get(..path.floor_char_boundary(half)).unwrap_or_default();
    let tail = path.get(path.ceil_char_boundary(path.len() - half)..).unwrap_or_default();
    [head, "...", tail].concat()
}
