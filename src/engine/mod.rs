//! One request's life: decide, hold a permit, settle it; and what the client is told.
//!
//! # Deciding
//!
//! All policies that match a request apply to it, in the order of the configuration. The decision goes over all of them
//! at once, cheapest and least committal first: request limits, circuit breakers, rate limits, throttles, concurrency. The first
//! control to refuse rejects the request, except that among rate limits, which are all asked before any is charged, the
//! one with the longest wait speaks. They are charged last, when there is a place, or when the request is to wait for
//! one: while requests are rejected for concurrency by the thousand, none of them takes a token that another worker could be asked
//! for, unless a queue was filled by another worker after it was asked about. Whatever a rejected
//! request had taken so far, a probe of a half-open breaker, or a place where another worker took the tokens since they
//! were asked for, is given back as though it had never been taken.
//!
//! A policy in shadow mode, and one whose `enforce_percent` spares the request, decides like any other, but its refusal
//! is only counted: the policy drops out, what was taken for it is given back, and the others go on. So its own state
//! stays what it would be if refused requests were really rejected.
//!
//! # Holding
//!
//! A rate limit that paces says when a request conforms; until then it is held, with nothing but the charges that are its
//! place in the line. Breakers are asked before, so that nobody waits for an upstream that is down, but a probe is taken,
//! and a place among those in flight, only when the request goes on: a request that waits uses up neither. Should one of
//! them refuse it then, its charges are given back. The same happens when its client leaves.
//!
//! A policy in shadow holds nobody, and neither does one whose `enforce_percent` spares the request.
//!
//! # Settling
//!
//! An admitted request holds one permit until its stream ends, however it ends. The upstream is judged there and not at
//! its response headers, since only then is it known whether the answer was whole and who wrote it; tunnels, which may
//! last for days, are the exception.
//!
//! # Cost
//!
//! A proxy comes back to this code with caches that its other work has filled. So what admitted requests seldom need is
//! `#[cold]`, or not inlined: out of the way of what all of them run through.

mod bounds;
mod compile;
mod deadline;
mod decide;
mod gauges;
mod headers;
pub mod held;
mod judge;
mod limits;
mod outcome;
mod permit;
mod queues;
mod quotas;
mod random;
mod rates;
mod rejection;
mod response;
mod retry_after;
mod settle;
mod shedding;
pub mod stats;
mod throttling;
mod updates;
mod waits;

use crate::config::Scope;
use crate::control::{Nanos, Random};
use crate::matching::{Index, KeyBuf};
use crate::share::SharedState;

use self::compile::Policy;
use self::stats::{Metrics, Registry};

pub use self::decide::Decision;
pub use self::outcome::{Ending, Verdict, classify, client_left};
pub use self::permit::Permit;
pub use self::queues::Woken;
pub use self::random::SplitMix64;
pub use self::rejection::{Invalid, Reason, Rejection};
pub use self::response::LocalReply;
pub use self::settle::Stream;
pub use self::updates::Updates;

/// The most that rate limits and concurrency limits by key of one configuration may keep in each worker, in bytes: any single one
/// has room, and a VM, which Envoy gives 1 GiB, has it for the configuration before as well.
pub const MOST_OWN_BYTES: u64 = 384 << 20;

/// What a decision may ask of the world.
pub struct Env<'e> {
    /// The time.
    pub now: Nanos,
    /// What all workers share.
    pub share: &'e dyn SharedState,
    /// What this worker keeps for itself.
    pub own: &'e dyn SharedState,
    /// Chance.
    pub random: &'e mut dyn Random,
    /// Where stats go.
    pub metrics: &'e dyn Metrics,
    /// The stats of this worker.
    pub stats: &'e Registry,
    /// Whether the host can hold another request.
    pub may_wait: bool,
    /// The key of the hashes that stand for clients' keys, the same on all workers and nobody else's to know.
    pub hash_key: (u64, u64),
}

impl Env<'_> {
    /// Counts failures of what a kind of control, the stat's label, needs of the host.
    fn count_errors(&self, kind: &str, errors: u64) {
        if errors > 0 {
            self.count_some_errors(kind, errors);
        }
    }

    #[cold]
    fn count_some_errors(&self, kind: &str, errors: u64) {
        self.stats.add(self.metrics, stats::ERRORS, &[kind], i64::try_from(errors).unwrap_or(i64::MAX));
    }
}

/// A configuration at work on one worker.
#[derive(Debug)]
pub struct Engine {
    policies: Vec<Policy>,
    index: Index,
    work: Workspace,
}

/// Buffers that are used again by every request.
#[derive(Debug, Default)]
struct Workspace {
    found: Vec<u32>,
    applied: Vec<decide::Applied>,
    charges: Vec<rates::Charge>,
    /// A limit that paces will let the request through later, and may have it held until then.
    may_hold: bool,
    /// The first policy, by its position among those that apply, in whose queue the request is to wait.
    line: Option<(usize, queues::Line)>,
    key: KeyBuf,
    lines: headers::Lines,
}

impl Engine {
    /// Whether a request's headers need to be read at all.
    pub fn needs_headers(&self) -> bool {
        !self.policies.is_empty()
    }

    /// How many bytes the rate limits keep at most: shared by all workers, and kept by each. The host's own overhead is
    /// not counted.
    pub fn rate_limit_bytes(&self) -> (u64, u64) {
        let (mut shared, mut own) = (0u64, 0u64);
        for rate in self.policies.iter().flat_map(|policy| &policy.rates) {
            let bytes = match rate.settings.scope {
                Scope::Proxy => &mut shared,
                Scope::Worker => &mut own,
            };
            // The host has just made room for all of it: a sum past u64::MAX is none.
            *bytes = bytes.saturating_add(rate.limiter.shared_bytes());
        }
        (shared, own)
    }

    /// How many bytes concurrency limits by key and their queues keep in each worker at most, once all keys have been seen.
    pub fn bulkhead_bytes(&self) -> u64 {
        let all = self.policies.iter().filter_map(|policy| policy.concurrency.as_ref());
        // Their sum was within bounds, or there would be no engine.
        all.map(shedding::Concurrency::bytes).fold(0, u64::saturating_add)
    }
}
