//! What an admitted request holds until it is settled.

use crate::control::Nanos;
use crate::control::circuit_breaker::Permit as BreakerPermit;
use crate::control::concurrency::Place;
use crate::control::rate_limit::Charged;

/// One thing held, and for which policy.
#[derive(Debug)]
pub(super) struct Held {
    pub policy: usize,
    pub what: What,
}

/// A thing that can be held.
#[derive(Debug)]
pub(super) enum What {
    Breaker(BreakerPermit),
    Charge { limit: usize, quota: usize, charged: Charged },
    Place(Place),
}

/// What a request holds. Kept with its stream and used again for the next, so that its memory is allocated once.
///
/// Settled exactly once: [`Engine::end`](super::Engine::end) takes everything out, so a second call finds nothing.
#[derive(Debug, Default)]
pub struct Permit {
    pub(super) held: Vec<Held>,
    pub(super) started: Nanos,
    pub(super) grpc: bool,
    /// A `CONNECT` request: what follows good headers is a tunnel.
    pub(super) connect: bool,
    pub(super) answer: Answer,
}

/// What is known of the response so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: Option<u16>,
    pub grpc_status: Option<u8>,
    /// From the decision to the response headers.
    pub took: Option<Nanos>,
    /// The response's `Retry-After`.
    pub retry_after: Option<Nanos>,
    pub rejected_downstream: bool,
    /// The upstream wrote these headers. Asked of bad ones only.
    pub from_upstream: bool,
}

impl Permit {
    /// Whether anything is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether the response's status will matter when this is settled.
    pub fn judges_upstream(&self) -> bool {
        self.held.iter().any(|held| matches!(held.what, What::Breaker(_)))
    }
}
