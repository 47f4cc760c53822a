//! What a queue is like.

use crate::control::Nanos;

/// Who is served first within a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newest first and short patience while the queue does not drain.
    AdaptiveLifo,
    /// Oldest first.
    Fifo,
    /// Newest first.
    Lifo,
}

/// What a queue is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Requests waiting at most, over all workers.
    pub max_length: u32,
    /// The longest a request waits.
    pub max_wait: Nanos,
    /// Who is served first within a level.
    pub order: Order,
    /// Levels of importance, at least 1; level 0 is the most important.
    pub levels: usize,
}
