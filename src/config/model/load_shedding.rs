//! Load shedding: limits, levels, queues and the throttle.

use std::time::Duration;

use super::{BasisPoints, KeySource, Match};

/// Load shedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadShedding {
    /// How many requests may be in flight.
    pub limit: ConcurrencyLimit,
    /// One limit per value (a bulkhead); empty is one for all.
    pub key: Vec<KeySource>,
    /// Limits tracked at once; the keys beyond share one.
    pub max_keys: u32,
    /// Who goes first.
    pub priority: Option<Priority>,
    /// Where requests wait for a free place.
    pub queue: Option<Queue>,
    /// Success-rate throttle.
    pub throttle: Option<Throttle>,
    /// Header that says how much time a request has left.
    pub deadline_header: Option<String>,
    /// When a place becomes free.
    pub release: Release,
}

/// How many requests may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConcurrencyLimit {
    /// This many.
    Fixed(u32),
    /// Found by this algorithm within bounds.
    Dynamic {
        /// The algorithm.
        algorithm: LimitAlgorithm,
        /// The limit to start with, from `min` to `max`; 20 by default, held to them.
        initial: u32,
        /// The least it becomes, at least 1, which is the default.
        min: u32,
        /// The most it becomes; 1000 by default, or `min` if that is more.
        max: u32,
    },
}

/// How a concurrency limit is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitAlgorithm {
    /// Tidegate's own.
    Adaptive,
    /// Latency gradient against a long-term average.
    Gradient2,
    /// Estimated queue length.
    Vegas,
    /// Additive increase, multiplicative decrease.
    Aimd,
}

/// Priority levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priority {
    /// Most important first.
    pub levels: Vec<Level>,
    /// Index of the level of requests that match none.
    pub default: usize,
}

/// One priority level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Unique, `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// Who belongs to it; none: only those that match no level, if this is the default.
    pub matches: Option<Match>,
    /// Admitted only while in-flight is below this share of the limit.
    pub share: BasisPoints,
}

/// A bounded queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Queue {
    /// Requests waiting at most.
    pub max_length: u32,
    /// The longest a request waits.
    pub max_wait: Duration,
    /// Who is served first within a level.
    pub order: QueueOrder,
}

/// Who is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum QueueOrder {
    /// Newest first and short patience while the queue does not drain.
    #[default]
    AdaptiveLifo,
    /// Oldest first.
    Fifo,
    /// Newest first.
    Lifo,
}

/// Success-rate throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Throttle {
    /// Above this success rate nothing is rejected.
    pub success_threshold: BasisPoints,
    /// Over which time the rate is taken.
    pub window: Duration,
    /// The most it rejects.
    pub max_rejection: BasisPoints,
    /// Nothing is rejected before so many calls in the window.
    pub minimum_calls: u32,
}

/// When a place becomes free again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Release {
    /// When the stream ends.
    #[default]
    End,
    /// When the response headers arrive.
    Headers,
}
