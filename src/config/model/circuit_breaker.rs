//! Circuit breakers, and which outcomes count as failures.

use std::time::Duration;

use super::{BasisPoints, KeySource};

/// A circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CircuitBreaker {
    /// One breaker per value.
    pub key: Vec<KeySource>,
    /// Breakers tracked at once; the keys beyond share one.
    pub max_keys: u32,
    /// Over which calls the rates are taken.
    pub window: Window,
    /// Rates are not judged before so many calls.
    pub minimum_calls: u32,
    /// Trips when reached; 0 is off.
    pub failure_rate_threshold: BasisPoints,
    /// A call that takes longer to its response headers is slow.
    pub slow_call_duration: Option<Duration>,
    /// Trips when reached; 0 is off.
    pub slow_call_rate_threshold: BasisPoints,
    /// Trips at this many failures in a row; 0 is off.
    pub consecutive_failures: u32,
    /// How long the first trip lasts.
    pub open_duration: Duration,
    /// The longest a trip lasts, `Retry-After` included; at least `open_duration`.
    pub open_duration_max: Duration,
    /// How recovery is tried.
    pub half_open: HalfOpen,
    /// After closing, re-admit linearly over this time.
    pub recovery_ramp: Option<Duration>,
    /// What counts as a failure.
    pub failure_when: Outcomes,
    /// What counts neither as failure nor as success.
    pub ignore_when: Outcomes,
    /// A failure's `Retry-After` lengthens the open time.
    pub honor_retry_after: bool,
    /// Manual override.
    pub state: BreakerControl,
}

/// Over which calls a breaker's rates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// Those that ended within this time.
    Time(Duration),
    /// The last so many.
    Count(u32),
}

/// How a breaker tries whether its upstream is well again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HalfOpen {
    /// Requests admitted while half-open, over all workers.
    pub probes: u32,
    /// Probes unanswered after this time count as failures.
    pub timeout: Duration,
}

/// A class of outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Outcomes {
    /// Inclusive ranges of HTTP status.
    pub status: Vec<(u16, u16)>,
    /// gRPC status codes, 0 to 16.
    pub grpc_status: Vec<u8>,
    /// The upstream reset the stream or could not be reached.
    pub reset: bool,
    /// The upstream timed out.
    pub timeout: bool,
}

impl Outcomes {
    /// What an upstream's failures are unless a policy says otherwise.
    pub fn failures() -> Self {
        Self { status: vec![(500, 599)], grpc_status: vec![2, 4, 13, 14, 15], reset: true, timeout: true }
    }
}

/// Manual override of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BreakerControl {
    /// The breaker decides.
    #[default]
    Auto,
    /// Everything is rejected.
    ForcedOpen,
    /// Nothing is rejected, nothing is counted.
    Disabled,
}
