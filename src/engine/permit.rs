//! What an admitted request holds until it is settled.

use crate::control::Nanos;
use crate::control::circuit_breaker::Permit as BreakerPermit;
use crate::control::concurrency::Place;
use crate::control::rate_limit::Charged;

use super::decide::Applied;

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
    /// `until`: when the limit lets the request through, zero if the policy is not to hold it.
    Charge {
        limit: usize,
        quota: usize,
        charged: Charged,
        until: Nanos,
    },
    /// `learns`: its limit learns from how the request ends.
    Place {
        place: Place,
        learns: bool,
    },
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
    /// Set while the request is held.
    pub(super) waiting: Option<Waiting>,
}

/// What a request that is held will need when it goes on.
#[derive(Debug)]
pub(super) struct Waiting {
    pub since: Nanos,
    /// The policy on whose behalf it waits.
    pub policy: usize,
    pub applied: Vec<Applied>,
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
    /// The response stands for a tunnel.
    pub tunnel: bool,
}

impl Permit {
    /// Whether anything is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The policy that lets the request through last, and when, if that is later than now.
    pub(super) fn holds_until(&self, now: Nanos) -> Option<(usize, Nanos)> {
        let charges = self.held.iter().filter_map(|held| match held.what {
            What::Charge { until, .. } => Some((held.policy, until)),
            _ => None,
        });
        charges.max_by_key(|(_, until)| *until).filter(|(_, until)| *until > now)
    }

    /// The request goes on after a wait: its upstream is not to be judged by it, and what clients are told of a limit
    /// counts from when they hear it.
    pub(super) fn go_on(&mut self, waited: Nanos, now: Nanos) {
        self.started = now;
        for held in &mut self.held {
            if let What::Charge { charged, .. } = &mut held.what {
                let grows_in = &mut charged.budget.grows_in;
                *grows_in = grows_in.map(|time| time.saturating_sub(waited));
            }
        }
    }

    /// Whether the response's status will matter when this is settled.
    pub fn judges_upstream(&self) -> bool {
        self.held.iter().any(|held| matches!(held.what, What::Breaker(_) | What::Place { learns: true, .. }))
    }
}
