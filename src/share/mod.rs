//! What the workers of one proxy share: numbers they add to, and pages of bytes they compare and set.
//!
//! The host layer implements [`SharedState`] with the proxy's metrics and shared data; [`Memory`] is the twin that
//! tests use, and what a worker falls back to where the host shares nothing.

mod memory;
mod names;
mod rows;
mod slots;
mod tenant;

pub use memory::Memory;
pub use names::Names;
pub use rows::{GRACE, LEASE, Lease, ROWS, Return};
pub use slots::{Address, Found, HEADER, MAX_WORDS, Page, SLOTS, SlotTable, Words};
pub use tenant::Tenant;

/// A number that every holder of the same name adds to and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell(pub u32);

/// A row of equally long pages under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pages(pub u32);

/// Which state of a page was read; a store succeeds only on the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub u32);

/// Why shared state did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareError {
    /// Another worker stored first: load again.
    Conflict,
    /// The host refused, lost the state, or has none.
    Unavailable,
}

/// State that all workers of a proxy see. Costs are those of Envoy 1.40 with V8.
pub trait SharedState {
    /// Opens the number of this name, 0 if nobody has yet. At configure time only.
    ///
    /// # Errors
    /// [`ShareError::Unavailable`] where the host has no metrics.
    fn cell(&self, name: &str) -> Result<Cell, ShareError>;

    /// Adds to a number (about 50 ns). Numbers never go below zero in any order of settled additions; an interim
    /// negative value is the host's to avoid.
    fn add(&self, cell: Cell, delta: i64);

    /// Reads a number (about 60 ns).
    fn read(&self, cell: Cell) -> i64;

    /// Opens `count` pages under this name; those that do not exist are created as `initial`, and those that do are left
    /// alone, also when several workers come at once. Not for every request: each page is a call to the host.
    ///
    /// # Errors
    /// [`ShareError::Unavailable`] where the host has no shared data.
    fn pages(&self, name: &str, count: u32, initial: &[u8]) -> Result<Pages, ShareError>;

    /// Copies a page (about 480 ns) and says which version it was. `into` is as long as the page.
    ///
    /// # Errors
    /// [`ShareError::Unavailable`] when the page is gone or of another length.
    fn load(&self, pages: Pages, index: u32, into: &mut [u8]) -> Result<Version, ShareError>;

    /// Replaces a page if it is still `expected` (about 110 ns more).
    ///
    /// # Errors
    /// [`ShareError::Conflict`] when another worker was first, [`ShareError::Unavailable`] when the host refused.
    fn store(&self, pages: Pages, index: u32, bytes: &[u8], expected: Version) -> Result<(), ShareError>;
}
