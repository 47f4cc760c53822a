//! The state machine of one breaker, as all workers agree on it.
//!
//! Which moves there are stands in [`record`](super::record); here is when they are made. Each is a function of the state that
//! it leaves: [`Closed::trip`], [`Open::probe`], [`HalfOpen::close`] and [`HalfOpen::reopen`].

mod half_open;

use super::record::{Calls, Closed, HalfOpen, Open, Phase, Record};
use super::settings::Settings;
use super::state::{Counts, Denied, Grant, Heard, Outcome, Probe, Transition, TripReason, Unjudged};
use super::window::{TimeWindow, reaches};
use crate::control::{Nanos, Random};

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
    /// What can be said about a request without changing anything.
    pub fn admission(&self, settings: &Settings, now: Nanos, rng: &mut dyn Random) -> Admission {
        match self.phase() {
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
        let before = self.generation();
        self.expire(settings, now, rng);
        // One change at a time, so that each is reported, even where the open time is zero.
        let expired = self.generation() != before;
        match self.phase() {
            Phase::Closed(closed) if closed.admits(settings, now, rng) => return Ok(Grant::Call),
            Phase::Closed(_) => return Err(Denied::Recovering),
            Phase::Open(open) if expired => return Err(open.denial(now)),
            Phase::HalfOpen(half) if half.is_full(settings) => {
                return Err(Denied::HalfOpen { reason: half.reason });
            }
            Phase::Open(_) | Phase::HalfOpen(_) => {}
        }
        let probe = Probe { at: now, heard: Heard::Nothing };
        self.leave(Open::probe);
        if let Some(half) = self.inside::<HalfOpen>() {
            half.out.push(probe);
        }
        Ok(Grant::Probe(probe))
    }

    /// Takes note of the probes that have been out for as long as they may: one of which nothing was heard opens again,
    /// the others are good.
    pub fn expire(&mut self, settings: &Settings, now: Nanos, rng: &mut dyn Random) {
        let Some(half) = self.inside::<HalfOpen>() else { return };
        if half.is_overdue(settings, now) {
            self.leave(|half: &HalfOpen| half.reopen(settings, TripReason::ProbeTimeout, None, now, rng));
        } else {
            half.count_heard(settings, now);
            self.conclude(settings, now, rng);
        }
    }

    /// Gives the place of a probe back that is not judged by its end. Whether there was one.
    pub fn give_back(
        &mut self,
        settings: &Settings,
        probe: (u64, Probe),
        why: Unjudged,
        now: Nanos,
        rng: &mut dyn Random,
    ) -> bool {
        let Some((half, probe)) = self.round_of(settings, probe, now, rng) else { return false };
        if !half.give_back(probe, why, now) {
            return false;
        }
        if half.silence >= settings.probe_timeout {
            self.leave(|half: &HalfOpen| half.reopen(settings, TripReason::ProbeTimeout, None, now, rng));
        } else {
            self.conclude(settings, now, rng);
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
        if self.generation() == generation {
            self.expire(settings, now, rng);
        }
        (self.generation() == generation).then(|| self.inside()).flatten().map(|half| (half, probe))
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
            let retry_after = ending.outcome.retry_after();
            return self.leave(|half: &HalfOpen| half.reopen(settings, TripReason::ProbeFailed, retry_after, now, rng));
        }
        half.silence = 0;
        half.count_good(ending.slow);
        self.conclude(settings, now, rng);
    }

    /// Ends a round whose probes were all answered without a failure.
    fn conclude(&mut self, settings: &Settings, now: Nanos, rng: &mut dyn Random) {
        let Phase::HalfOpen(half) = self.phase() else { return };
        if half.good < settings.probes {
            return;
        }
        if reaches(half.slow.into(), half.good.into(), settings.slow_call_rate_threshold) {
            self.leave(|half: &HalfOpen| half.reopen(settings, TripReason::ProbeFailed, None, now, rng));
        } else {
            self.leave(|half: &HalfOpen| half.close(settings, now));
        }
    }

    /// The closed state of this generation.
    pub fn closed(&mut self, generation: u64) -> Option<&mut Closed> {
        (self.generation() == generation).then(|| self.inside()).flatten()
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
        judged: (TripReason, Counts),
        now: Nanos,
        rng: &mut dyn Random,
    ) {
        if self.generation() == generation {
            self.leave(|closed: &Closed| closed.trip(settings, judged, now, rng));
        }
    }

    /// What changed from `before` to this.
    pub fn transition_from(&self, before: &Self, now: Nanos) -> Option<Transition> {
        if self.generation() == before.generation() {
            return None;
        }
        let (from, to) = (before.state(), self.state());
        let (reason, counts, open_for) = match (self.phase(), before.phase()) {
            (Phase::Open(open), _) => (open.reason, open.counts, open.until.saturating_sub(now)),
            (_, Phase::Open(open)) => (open.reason, Counts::default(), 0),
            (_, Phase::HalfOpen(half)) => (half.reason, Counts::default(), 0),
            // Closed comes after half-open and half-open after open.
            (_, Phase::Closed(_)) => return None,
        };
        Some(Transition { generation: self.generation(), from, to, reason, counts, open_for })
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

    fn trip(&self, settings: &Settings, judged: (TripReason, Counts), now: Nanos, rng: &mut dyn Random) -> Open {
        Open::lasting(settings, 0, self.asked_until, judged, now, rng)
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
