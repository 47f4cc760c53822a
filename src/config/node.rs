//! The document as written: order and duplicate keys kept, nothing interpreted.

/// Levels of lists and objects within one another. The deepest valid configuration has about ten.
pub(super) const MAX_DEPTH: usize = 64;

/// What is said when there are more.
pub(super) const TOO_DEEP: &str = "nested too deeply: at most 64 lists and objects within one another are read";

/// A value and its place in the document.
#[derive(Debug)]
pub(super) struct Node {
    /// Rises through the document: an object is before its fields, a field before the next one.
    pub order: u32,
    pub kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    /// A Struct has only doubles, and every bound here is below 2^53: one kind of number will do.
    Number(f64),
    String(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// Gives nodes their places, and knows the path to the one being parsed, for errors.
pub(super) struct Parser {
    pub path: String,
    depth: usize,
    next: u32,
}

impl Parser {
    pub fn new() -> Self {
        Self { path: String::from("$"), depth: 0, next: 0 }
    }

    /// The place of the next node. Saturates: beyond 2^32 nodes errors would be sorted a little wrong.
    pub fn place(&mut self) -> u32 {
        let place = self.next;
        self.next = place.saturating_add(1);
        place
    }

    /// One list or object deeper; false when that is too deep.
    #[must_use]
    pub fn enter(&mut self) -> bool {
        self.depth = self.depth.saturating_add(1);
        self.depth <= MAX_DEPTH
    }

    pub fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Runs `parse` one step further down. After an error the path stays where the error was.
    pub fn within<T, E>(
        &mut self,
        step: super::error::Step<'_>,
        parse: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let length = step.push_to(&mut self.path);
        let value = parse(self)?;
        self.path.truncate(length);
        Ok(value)
    }
}
