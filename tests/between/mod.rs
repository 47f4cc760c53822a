//! Shared state between whose calls others act: what a worker does is cut into, before any call of its own, by others.

use tidegate::share::{Cell, Memory, Pages, ShareError, SharedState, Version};

/// A call to shared state that anything may happen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A number is added to or read.
    Number,
    /// A page is read.
    Load,
    /// A page is stored.
    Store,
}

/// What happens between the calls of a worker.
pub trait Between {
    fn memory(&self) -> &Memory;

    /// Something may happen before this call.
    fn before(&self, call: Call);
}

/// Shared state, as it is for a worker that does not know what happens between its calls.
pub struct Shared<'a, T>(pub &'a T);

impl<T: Between> SharedState for Shared<'_, T> {
    fn cell(&self, name: &str) -> Result<Cell, ShareError> {
        self.0.memory().cell(name)
    }

    fn add(&self, cell: Cell, delta: i64) {
        self.0.before(Call::Number);
        self.0.memory().add(cell, delta);
    }

    fn read(&self, cell: Cell) -> i64 {
        self.0.before(Call::Number);
        self.0.memory().read(cell)
    }

    fn pages(&self, name: &str, count: u32, initial: &[u8]) -> Result<Pages, ShareError> {
        self.0.memory().pages(name, count, initial)
    }

    fn load(&self, pages: Pages, index: u32, into: &mut [u8]) -> Result<Version, ShareError> {
        self.0.before(Call::Load);
        self.0.memory().load(pages, index, into)
    }

    fn store(&self, pages: Pages, index: u32, bytes: &[u8], expected: Version) -> Result<(), ShareError> {
        self.0.before(Call::Store);
        self.0.memory().store(pages, index, bytes, expected)
    }
}
