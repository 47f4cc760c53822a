//! What an admitted request holds until it is settled.

use crate::config::Release;
use crate::control::Nanos;
use crate::control::circuit_breaker::Permit as BreakerPermit;
use crate::control::concurrency::Place;
use crate::control::queue::Standing;
use crate::control::rate_limit::Charged;

use super::bounds::Body;
use super::decide::Applied;
use super::shedding::Seat;

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
        release: Release,
    },
    /// A throttle is to be told how the request ends.
    Outcome,
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
    /// The host's number of the stream.
    pub(super) stream: u32,
    /// When it came.
    pub(super) arrived: Nanos,
    /// When it first had to wait in a queue.
    pub(super) queued_since: Option<Nanos>,
    /// The policies in whose queues its turn has come.
    pub(super) called: Vec<usize>,
    /// Set while the request is held.
    pub(super) waiting: Option<Waiting>,
    /// Its time has been missed once.
    pub(super) missed: bool,
    /// Its body, if that is counted.
    pub(super) body: Body,
}

/// What a request that is held will need when it goes on.
#[derive(Debug)]
pub(super) struct Waiting {
    pub since: Nanos,
    /// The policy on whose behalf it waits.
    pub policy: usize,
    pub applied: Vec<Applied>,
    /// Its place in the policy's queues; `None` if it waits until its rate limits let it through.
    pub seat: Option<Seat>,
    /// Its turn has come.
    pub turn: Option<Come>,
    /// It is among those counted as waiting.
    pub counted: bool,
    /// The process stood still when its time came.
    pub missed: bool,
}

/// How a turn in a queue has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Come {
    /// With a place, which it holds.
    HasPlace,
    /// Too late.
    Late,
    /// For another.
    Displaced,
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
    /// Whether the upstream wrote these headers, where it is known.
    pub from_upstream: Option<bool>,
    /// All of the response has come.
    pub whole: bool,
    /// The response stands for a tunnel.
    pub tunnel: bool,
}

impl Permit {
    /// Whether nothing is held, nobody waits, and nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_none() && !self.body.is_counted()
    }

    /// The process stood still when its time came: it is to be charged anew. Once: a process that stands still over and over
    /// lets it go on the next time.
    pub fn miss(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.missed = !self.missed;
            self.missed = true;
        }
    }

    /// What it has behind it that asks for a place of this policy's limits.
    pub(super) fn standing(&self, policy: usize) -> Standing {
        match self.queued_since {
            None => Standing::New,
            Some(since) if self.called.contains(&policy) => Standing::Called(since),
            Some(since) => Standing::Since(since),
        }
    }

    /// Whether a place of this policy's limits is held.
    pub(super) fn has_place(&self, policy: usize) -> bool {
        self.held.iter().any(|held| held.policy == policy && matches!(held.what, What::Place { .. }))
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
        self.age_budgets(waited);
    }

    /// Some time has passed since the charges: so much nearer is the moment when more is left.
    pub(super) fn age_budgets(&mut self, by: Nanos) {
        for held in &mut self.held {
            if let What::Charge { charged, .. } = &mut held.what {
                let grows_in = &mut charged.budget.grows_in;
                *grows_in = grows_in.map(|time| time.saturating_sub(by));
            }
        }
    }

    /// Whether a breaker tries its upstream with this request.
    pub(super) fn has_probe(&self) -> bool {
        self.held.iter().any(|held| matches!(&held.what, What::Breaker(granted) if granted.is_probe()))
    }

    /// Whether the response's status will matter when this is settled.
    pub fn judges_upstream(&self) -> bool {
        self.held
            .iter()
            .any(|held| matches!(held.what, What::Breaker(_) | What::Outcome | What::Place { learns: true, .. }))
    }
}
