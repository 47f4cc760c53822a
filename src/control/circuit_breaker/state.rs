//! The words of the circuit breaker: states, reasons, permits, outcomes.

use crate::control::Nanos;

/// Where a breaker stands. The codes are stable: gauges and dashboards hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Requests pass and their outcomes are judged.
    Closed,
    /// Requests are rejected until a time.
    Open,
    /// A few requests, the probes, find out whether the upstream is well again.
    HalfOpen,
}

impl State {
    /// 0 closed, 1 open, 2 half-open.
    pub const fn code(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }

    /// The name as logs and stats spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Why a breaker opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TripReason {
    /// The share of failed calls in the window reached the threshold.
    FailureRate,
    /// The share of slow calls in the window reached the threshold.
    SlowCallRate,
    /// So many calls in a row failed.
    ConsecutiveFailures,
    /// A probe failed, or too many of a round's probes were slow.
    ProbeFailed,
    /// A probe had no answer in time.
    ProbeTimeout,
}

impl TripReason {
    /// The name as logs and headers spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::SlowCallRate => "slow_call_rate",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeTimeout => "probe_timeout",
        }
    }
}

/// Calls and how they ended. A call may be both a failure and slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All calls that ended and were judged.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow.
    pub slow: u64,
}

/// A breaker went from one state to another. The worker that made the change is the only one to report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Which change of this breaker it is, counted from 1.
    pub generation: u64,
    /// The state left.
    pub from: State,
    /// The state entered.
    pub to: State,
    /// Why the breaker opened: now, when `to` is open; else the last time it did.
    pub reason: TripReason,
    /// What was judged when `to` is open: the window, or the answered probes. Zero otherwise.
    pub counts: Counts,
    /// How long no request will pass, when `to` is open. Zero otherwise.
    pub open_for: Nanos,
}

/// A request was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The breaker is open.
    Open {
        /// Why it opened.
        reason: TripReason,
        /// How long no request will pass.
        retry_in: Nanos,
    },
    /// The breaker is half-open and all probes are taken.
    HalfOpen {
        /// Why it had opened.
        reason: TripReason,
    },
    /// The breaker closed a short while ago and re-admits only a share of the requests so far.
    Recovering,
    /// The breaker is held open by configuration.
    ForcedOpen,
}

impl Denied {
    /// The state the request met.
    pub const fn state(self) -> State {
        match self {
            Self::Open { .. } | Self::ForcedOpen => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
            Self::Recovering => State::Closed,
        }
    }

    /// How long the client should wait. `None` where nobody knows: the next answer of a probe may end the wait, or
    /// only an operator can.
    pub const fn retry_in(self) -> Option<Nanos> {
        match self {
            Self::Open { retry_in, .. } => Some(retry_in),
            Self::HalfOpen { .. } | Self::Recovering | Self::ForcedOpen => None,
        }
    }

    /// Why, as logs and headers spell it: the reason of the trip, `recovering` or `forced_open`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Open { reason, .. } | Self::HalfOpen { reason } => reason.name(),
            Self::Recovering => "recovering",
            Self::ForcedOpen => "forced_open",
        }
    }
}

/// How a call ended that is to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream answered as it should.
    Success,
    /// The upstream failed.
    Failure {
        /// How long it asked to be left alone, if it did.
        retry_after: Option<Nanos>,
    },
    /// The upstream answered that it takes no more for now (status 429, gRPC code 8): it is alive, so this ends a run
    /// of consecutive failures like a success; it counts as a failure in the rate and fails a probe.
    RateLimited {
        /// How long it asked to be left alone, if it did.
        retry_after: Option<Nanos>,
    },
}

impl Outcome {
    pub(super) const fn failed(self) -> bool {
        !matches!(self, Self::Success)
    }

    pub(super) const fn retry_after(self) -> Option<Nanos> {
        match self {
            Self::Success => None,
            Self::Failure { retry_after } | Self::RateLimited { retry_after } => retry_after,
        }
    }
}

/// One breaker among those of a policy; the same number on every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// What an admitted request holds, to be settled or cancelled exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a probe that is neither settled nor cancelled counts as unanswered"]
pub struct Permit {
    pub(super) slot: SlotId,
    /// Which life of the breakers it is from.
    pub(super) life: u64,
    pub(super) generation: u64,
    pub(super) grant: Grant,
}

/// What kind of admission a permit stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    /// A request through a closed breaker.
    Call,
    /// One of a round's probes.
    Probe(Probe),
    /// Let through without being watched: the breaker is off, or what the workers share was out of reach.
    Unwatched,
}

/// A probe that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    /// When it was let through.
    pub at: Nanos,
    pub heard: Heard,
}

/// Why a probe is not judged by its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unjudged {
    /// The upstream answered, and the answer is to be ignored.
    Answered,
    /// The upstream owed an answer up to then.
    Owed,
    /// The upstream had no part in it.
    Uninvolved,
}

/// What has been heard of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    /// Good response headers; the rest is to come.
    Good,
    /// The same, and they were slow.
    Slow,
}

impl Permit {
    /// The breaker that gave it.
    pub const fn slot(self) -> SlotId {
        self.slot
    }

    /// The generation of the state that gave it; 0 before the breaker first opened.
    pub const fn generation(self) -> u64 {
        self.generation
    }

    /// Whether the request probes a half-open breaker.
    pub const fn is_probe(self) -> bool {
        matches!(self.grant, Grant::Probe(_))
    }
}
