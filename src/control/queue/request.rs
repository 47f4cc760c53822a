//! A request that waits in a queue, or wants to.

use crate::control::Nanos;

/// A request that waits or waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The request, by its stream's id.
    pub id: u32,
    /// How important it is: 0 is the most.
    pub level: usize,
    /// When it came.
    pub since: Nanos,
    /// When it is of no more use; [`Nanos::MAX`] if that is not known.
    pub deadline: Nanos,
    /// Its turn has come here before.
    pub called: bool,
}

/// What a request has behind it that asks for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: it has just come.
    New,
    /// It has waited since then for places of other limits.
    Since(Nanos),
    /// The same, and its turn has come here before.
    Called(Nanos),
}

/// What became of a request that wanted to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits.
    Queued,
    /// It waits in the place of this less important one, which is to be rejected.
    Displaced(Waiting),
    /// The queue is full of requests at least as important.
    Full,
}
