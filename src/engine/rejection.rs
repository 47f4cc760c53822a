//! A rejection: which policy, which control, why, and how long to wait.

use crate::control::Nanos;

/// Why a request is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A rate limit has no room for it.
    RateLimited,
    /// The circuit breaker lets nobody, or not everybody, through: why it tripped, or what holds it.
    CircuitOpen(&'static str),
    /// As many requests as allowed are in flight.
    Overloaded,
    /// It waited in a queue for too long.
    QueueTimeout,
    /// A more important request took its place in a queue.
    Displaced,
    /// It could not be answered in the time that it has left.
    PastDeadline,
    /// The upstream fails, and chance did not let it pass.
    Throttled,
    /// The request itself passes a bound.
    Invalid(Invalid),
}

/// Which bound a request passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Its path is too long (414).
    Path,
    /// Its headers are too many or too large (431).
    Headers,
    /// Its body is too long (413).
    Body,
}

impl Reason {
    /// The decision's name in stats, headers and access logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::CircuitOpen(_) => "circuit_open",
            Self::Overloaded | Self::Displaced | Self::PastDeadline | Self::Throttled => "overloaded",
            Self::QueueTimeout => "queue_timeout",
            Self::Invalid(_) => "invalid_request",
        }
    }
}

/// A request that is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Position of the policy that rejected it.
    pub policy: usize,
    /// Why.
    pub reason: Reason,
    /// Position of the rate limit, where one rejected it.
    pub limit: Option<usize>,
    /// After how long it would have been let through, where that is known.
    pub wait: Option<Nanos>,
}
