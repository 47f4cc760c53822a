//! The state machine of one breaker, as all workers agree on it.
//!
//! Each move is a function of the state that it leaves:
//!
//! | from | to | when |
//! |---|---|---|
//! | [`Closed`] | [`Open`] | [`Closed::trip`]: a threshold is reached |
//! | [`Open`] | [`HalfOpen`] | [`Open::probe`]: a request comes after the open time |
//! | [`HalfOpen`] | [`Closed`] | [`HalfOpen::close`]: every probe was good, to its end or for as long as a probe may take |
//! | [`HalfOpen`] | [`Open`] | [`HalfOpen::reopen`]: a probe failed, or the upstream was silent for as long as a probe may take |
//!
//! Nothing else calls [`Record::enter`]. Beside the moves a state is made by [`Record::new`], for a breaker that nobody has
//! used, and by the page's reader, which believes what a worker wrote. That no sequence of calls makes another move is no
//! matter of types: `tests/circuit_breaker/interleaving.rs` looks for one.

mod half_open;

use super::settings::{Settings, Window};
use super::state::{Counts, Denied, Grant, Heard, Outcome, Probe, State, Transition, TripReason};
use super::window::{CountWindow, TimeWindow, reaches};
use crate::control::{Nanos, Random};

/// What is agreed about one breaker. The generation grows by one at each change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub generation: u64,
    pub phase: Phase,
}

/// A state with what it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Closed(Box<Closed>),
    Open(Open),
    HalfOpen(HalfOpen),
}

/// Requests pass and are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closed {
    /// When the breaker closed; `None` when it has never been open.
    pub since: Option<Nanos>,
    /// Until when failures of this generation asked to be left alone.
    pub asked_until: Nanos,
    /// Failures in a row.
    pub run: u32,
    /// The total of successes at the run's last failure (time windows only): another total means that the run is over.
    pub run_ok: u64,
    pub calls: Calls,
}

/// The window, by its type.
#[allow(
    clippy::large_enum_variant,
    reason = "one per breaker; boxing the larger would allocate at each turn of the window"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Calls {
    Time(TimeWindow),
    Count(CountWindow),
}

/// Requests are rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub until: Nanos,
    /// Failed probe rounds since the breaker was last closed.
    pub round: u32,
    pub reason: TripReason,
    /// What was judged.
    pub counts: Counts,
}

/// Probes are out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HalfOpen {
    pub round: u32,
    pub reason: TripReason,
    /// Probes answered, none of them with a failure.
    pub good: u32,
    /// Those of them that were slow.
    pub slow: u32,
    /// For how long probes were out that were cancelled without an answer, since the upstream was last heard of.
    pub silence: Nanos,
    /// The probes that are not answered to their end.
    pub out: Vec<Probe>,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Let it through.
    Admit,
    /// Turn it away.
    Deny(Denied),
    /// The record has to change for an answer.
    Ask,
}

// === impl Record ===

impl Record {
    /// A breaker nobody has used.
    pub fn new(settings: &Settings) -> Self {
        Self { generation: 0, phase: Phase::Closed(Box::new(Closed::new(settings, None))) }
    }

    pub fn state(&self) -> State {
        match &self.phase {
            Phase::Closed(_) => State::Closed,
            Phase::Open(_) => State::Open,
            Phase::HalfOpen(_) => State::HalfOpen,
        }
    }

    fn enter(&mut self, phase: Phase) {
        // Wrapping: at a change each nanosecond the same number would come round after five centuries.
        self.generation = self.generation.wrapping_add(1);
        self.phase = phase;
    }

    /// What can be said about a request without changing anything.
    pub fn admission(&self, settings: &Settings, now: Nanos, rng: &mut dyn Random) -> Admission {
        match &self.phase {
            Phase::Closed(closed) if closed.admits(settings, now, rng) => Admission::Admit,
            Phase::Closed(_) => Admission::Deny(Denied::Recovering),
            Phase::Open(open) if now < open.until => Admission::Deny(open.denial(now)),
            Phase::HalfOpen(half) if half.is_full(settings) && !half.is_due(settings, now) => {
                Admission::Deny(Denied::HalfOpen { reason: half.reason })
            }
            Phase::Open(_) | Phase::HalfOpen(_) => Admission::Ask,
        }
    }

    /// Decides about a request, and takes a probe's place for it where one is free.
    pub fn acquire(&mut self, settings: &Settings, now: Nanos, rng: &mut dyn Random) -> Result<Grant, Denied> {
        match self.admission(settings, now, rng) {
            Admission::Admit => return Ok(Grant::Call),
            Admission::Deny(denied) => return Err(denied),
            Admission::Ask => {}
        }
        let before = self.generation;
        self.expire(settings, now, rng);
        // One change at a time, so that each is reported, even where the open time is zero.
        let expired = self.generation != before;
        let probe = Probe { at: now, heard: Heard::Nothing };
        match &mut self.phase {
            Phase::Closed(closed) if closed.admits(settings, now, rng) => Ok(Grant::Call),
            Phase::Closed(_) => Err(Denied::Recovering),
            Phase::Open(open) if expired => Err(open.denial(now)),
            Phase::Open(open) => {
                let half = HalfOpen { out: vec![probe], ..open.probe() };
                self.enter(Phase::HalfOpen(half));
                Ok(Grant::Probe(probe))
            }
            Phase::HalfOpen(half) if half.is_full(settings) => Err(Denied::HalfOpen { reason: half.reason }),
            Phase::HalfOpen(half) => {
                half.out.push(probe);
                Ok(Grant::Probe(probe))
            }
        }
    }

    /// Takes note of the probes that have been out for as long as they may: one of which nothing was heard opens again,
    /// the others are good.
    pub fn expire(&mut self, settings: &Settings, now: Nanos, rng: &mut dyn Random) {
        let Phase::HalfOpen(half) = &mut self.phase else { return };
        if half.is_overdue(settings, now) {
            let open = half.reopen(settings, TripReason::ProbeTimeout, None, now, rng);
            self.enter(Phase::Open(open));
        } else {
            half.count_heard(settings, now);
            self.conclude(settings, now, rng);
        }
    }

    /// Gives the place of a probe back. Whether there was one. `answered`: the upstream has said something, if nothing that
    /// counts.
    pub fn give_back(
        &mut self,
        settings: &Settings,
        probe: (u64, Probe),
        answered: bool,
        now: Nanos,
        rng: &mut dyn Random,
    ) -> bool {
        let Some((half, probe)) = self.round_of(settings, probe, now, rng) else { return false };
        if !half.give_back(probe, answered, now) {
            return false;
        }
        if half.silence >= settings.probe_timeout {
            let open = half.reopen(settings, TripReason::ProbeTimeout, None, now, rng);
            self.enter(Phase::Open(open));
        }
        true
    }

    /// Notes what has been heard of a probe. Whether it was out.
    pub fn hear(
        &mut self,
        settings: &Settings,
        probe: (u64, Probe),
        heard: Heard,
        now: Nanos,
        rng: &mut dyn Random,
    ) -> bool {
        self.round_of(settings, probe, now, rng).is_some_and(|(half, probe)| half.hear(probe, heard))
    }

    /// A probe's round, if that is not over. What is told after a probe's time must not count, so whoever tells it notices
    /// that the time is over, unless others were first.
    fn round_of(
        &mut self,
        settings: &Settings,
        (generation, probe): (u64, Probe),
        now: Nanos,
        rng: &mut dyn Random,
    ) -> Option<(&mut HalfOpen, Probe)> {
        if self.generation == generation {
            self.expire(settings, now, rng);
        }
        match &mut self.phase {
            Phase::HalfOpen(half) if self.generation == generation => Some((half, probe)),
            _ => None,
        }
    }

    /// A probe was answered.
    pub fn answer(
        &mut self,
        settings: &Settings,
        probe: (u64, Probe),
        ending: Ending,
        now: Nanos,
        rng: &mut dyn Random,
    ) {
        let Some((half, probe)) = self.round_of(settings, probe, now, rng) else { return };
        if !half.take(probe) {
            return;
        }
        if ending.outcome.failed() {
            let open = half.reopen(settings, TripReason::ProbeFailed, ending.outcome.retry_after(), now, rng);
            return self.enter(Phase::Open(open));
        }
        half.silence = 0;
        half.count_good(ending.slow);
        self.conclude(settings, now, rng);
    }

    /// Ends a round whose probes were all answered without a failure.
    fn conclude(&mut self, settings: &Settings, now: Nanos, rng: &mut dyn Random) {
        let Phase::HalfOpen(half) = &self.phase else { return };
        if half.good < settings.probes {
            return;
        }
        let phase = if reaches(half.slow.into(), half.good.into(), settings.slow_call_rate_threshold) {
            Phase::Open(half.reopen(settings, TripReason::ProbeFailed, None, now, rng))
        } else {
            Phase::Closed(Box::new(half.close(settings, now)))
        };
        self.enter(phase);
    }

    /// The closed state of this generation.
    pub fn closed(&mut self, generation: u64) -> Option<&mut Closed> {
        match &mut self.phase {
            Phase::Closed(closed) if self.generation == generation => Some(closed),
            _ => None,
        }
    }

    /// Empties a window by time: the next call begins it anew.
    pub fn forget_calls(&mut self, generation: u64) {
        if let Some(Calls::Time(window)) = self.closed(generation).map(|closed| &mut closed.calls) {
            *window = TimeWindow::default();
        }
    }

    /// Trips a closed breaker of this generation.
    pub fn trip(
        &mut self,
        settings: &Settings,
        generation: u64,
        trip: (TripReason, Counts),
        now: Nanos,
        rng: &mut dyn Random,
    ) {
        if let Phase::Closed(closed) = &self.phase
            && self.generation == generation
        {
            let open = closed.trip(settings, trip.0, trip.1, now, rng);
            self.enter(Phase::Open(open));
        }
    }

    /// What changed from `before` to this.
    pub fn transition_from(&self, before: &Self, now: Nanos) -> Option<Transition> {
        if self.generation == before.generation {
            return None;
        }
        let (from, to) = (before.state(), self.state());
        let (reason, counts, open_for) = match (&self.phase, &before.phase) {
            (Phase::Open(open), _) => (open.reason, open.counts, open.until.saturating_sub(now)),
            (_, Phase::Open(open)) => (open.reason, Counts::default(), 0),
            (_, Phase::HalfOpen(half)) => (half.reason, Counts::default(), 0),
            // Closed comes after half-open and half-open after open.
            (_, Phase::Closed(_)) => return None,
        };
        Some(Transition { generation: self.generation, from, to, reason, counts, open_for })
    }
}

/// How a call ended, and whether it was slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    pub outcome: Outcome,
    pub slow: bool,
}

// === impl Closed ===

impl Closed {
    pub fn new(settings: &Settings, since: Option<Nanos>) -> Self {
        let calls = match settings.window {
            Window::Time(_) => Calls::Time(TimeWindow::default()),
            Window::Count(length) => Calls::Count(CountWindow::new(length)),
        };
        Self { since, asked_until: 0, run: 0, run_ok: 0, calls }
    }

    /// Whether the recovery ramp lets a request through: a tenth of them at first, all at its end.
    fn admits(&self, settings: &Settings, now: Nanos, rng: &mut dyn Random) -> bool {
        let (Some(ramp), Some(since)) = (settings.recovery_ramp, self.since) else { return true };
        let elapsed = now.saturating_sub(since);
        if elapsed >= ramp {
            return true;
        }
        // In 1/10 000: 1 000 at first and 9 000 more over the ramp. The bias of the remainder is below 2^-50.
        let share = u128::from(elapsed) * 9_000 / u128::from(ramp) + 1_000;
        u128::from(rng.next_u64() % 10_000) < share
    }

    fn trip(&self, settings: &Settings, reason: TripReason, counts: Counts, now: Nanos, rng: &mut dyn Random) -> Open {
        Open::lasting(settings, 0, self.asked_until, (reason, counts), now, rng)
    }

    /// Lengthens or ends the run of failures.
    pub fn count_run(&mut self, outcome: Outcome) {
        self.run = match outcome {
            Outcome::Failure { .. } => self.run.saturating_add(1),
            Outcome::Success | Outcome::RateLimited { .. } => 0,
        };
    }

    /// Remembers how long a failure asked to be left alone.
    pub fn heed(&mut self, settings: &Settings, outcome: Outcome, now: Nanos) {
        self.asked_until = self.asked_until.max(asked_until(settings, outcome.retry_after(), now));
    }
}

// === impl Open ===

impl Open {
    /// `round` doubles the base so often, up to the maximum; jitter of a tenth either way keeps proxies that tripped
    /// together from probing together; what the upstream asked for may lengthen it. Nothing passes the maximum.
    fn lasting(
        settings: &Settings,
        round: u32,
        asked_until: Nanos,
        (reason, counts): (TripReason, Counts),
        now: Nanos,
        rng: &mut dyn Random,
    ) -> Self {
        let doubled = settings.open_duration.saturating_mul(1_u64.checked_shl(round).unwrap_or(Nanos::MAX));
        let plain = doubled.min(settings.open_duration_max);
        let jittered = u128::from(plain) * u128::from(9_000 + rng.next_u64() % 2_001) / 10_000;
        let latest = now.saturating_add(settings.open_duration_max);
        let until = now.saturating_add(Nanos::try_from(jittered).unwrap_or(Nanos::MAX));
        Self { until: until.max(asked_until).min(latest), round, reason, counts }
    }

    fn probe(&self) -> HalfOpen {
        HalfOpen { round: self.round, reason: self.reason, good: 0, slow: 0, silence: 0, out: Vec::new() }
    }

    fn denial(&self, now: Nanos) -> Denied {
        Denied::Open { reason: self.reason, retry_in: self.until.saturating_sub(now) }
    }
}

fn asked_until(settings: &Settings, retry_after: Option<Nanos>, now: Nanos) -> Nanos {
    match retry_after {
        Some(wait) if settings.honor_retry_after => now.saturating_add(wait.min(settings.open_duration_max)),
        _ => 0,
    }
}
