//! A round of probes: who is out, what has been heard of them, and how it ends.

use super::asked_until;
use crate::control::circuit_breaker::record::{Closed, HalfOpen, Open};
use crate::control::circuit_breaker::settings::Settings;
use crate::control::circuit_breaker::state::{Counts, Heard, Probe, TripReason, Unjudged};
use crate::control::{Nanos, Random};

impl HalfOpen {
    pub(super) fn is_full(&self, settings: &Settings) -> bool {
        let out = u32::try_from(self.out.len()).unwrap_or(u32::MAX);
        self.good.saturating_add(out) >= settings.probes
    }

    fn is_past(settings: &Settings, probe: Probe, now: Nanos) -> bool {
        now.saturating_sub(probe.at) >= settings.probe_timeout
    }

    /// Whether time alone changes something.
    pub(super) fn is_due(&self, settings: &Settings, now: Nanos) -> bool {
        self.out.iter().any(|probe| Self::is_past(settings, *probe, now))
    }

    pub(super) fn is_overdue(&self, settings: &Settings, now: Nanos) -> bool {
        self.out.iter().any(|probe| probe.heard == Heard::Nothing && Self::is_past(settings, *probe, now))
    }

    /// Counts the probes as good whose headers were, and whose time is over.
    pub(super) fn count_heard(&mut self, settings: &Settings, now: Nanos) {
        let past = |probe: &mut Probe| probe.heard != Heard::Nothing && Self::is_past(settings, *probe, now);
        let heard: Vec<_> = self.out.extract_if(.., past).collect();
        heard.into_iter().for_each(|probe| self.count_good(probe.heard == Heard::Slow));
    }

    pub(super) fn count_good(&mut self, slow: bool) {
        self.good = self.good.saturating_add(1);
        self.slow = self.slow.saturating_add(u32::from(slow));
    }

    /// Clears the place of a probe; which of several that are alike does not matter.
    pub(super) fn take(&mut self, probe: Probe) -> bool {
        let place = self.out.iter().position(|out| *out == probe);
        if let Some(place) = place {
            self.out.swap_remove(place);
        }
        place.is_some()
    }

    /// Notes what has been heard of a probe. Whether it was out.
    pub(super) fn hear(&mut self, probe: Probe, heard: Heard) -> bool {
        let Some(out) = self.out.iter_mut().find(|out| **out == probe) else { return false };
        out.heard = heard;
        self.silence = 0;
        true
    }

    /// Clears the place of a probe that is not judged by its end. One whose headers were good has been answered. Time in which
    /// the upstream owed an answer to this probe alone is noted, so that it adds up, over the probes of clients that do not
    /// wait, to as long as one probe may take.
    pub(super) fn give_back(&mut self, probe: Probe, why: Unjudged, now: Nanos) -> bool {
        let owed_since = self.owed_since(now);
        if !self.take(probe) {
            return false;
        }
        if probe.heard != Heard::Nothing {
            self.count_good(probe.heard == Heard::Slow);
        }
        // Below `probe_timeout` both before and after: a sum that wrapped would make the upstream look well.
        let waited = self.owed_since(now).saturating_sub(owed_since);
        match why {
            Unjudged::Answered => self.silence = 0,
            Unjudged::Owed => self.silence = self.silence.saturating_add(waited),
            Unjudged::Uninvolved => {}
        }
        true
    }

    /// Since when the upstream owes an answer to a probe that is out; `now` if it owes none.
    fn owed_since(&self, now: Nanos) -> Nanos {
        let silent = self.out.iter().filter(|probe| probe.heard == Heard::Nothing);
        silent.map(|probe| probe.at.min(now)).min().unwrap_or(now)
    }

    pub(super) fn close(&self, settings: &Settings, now: Nanos) -> Closed {
        Closed::new(settings, Some(now))
    }

    pub(super) fn reopen(
        &self,
        settings: &Settings,
        reason: TripReason,
        retry_after: Option<Nanos>,
        now: Nanos,
        rng: &mut dyn Random,
    ) -> Open {
        let failures = u64::from(reason == TripReason::ProbeFailed && self.good < settings.probes);
        let counts = Counts { calls: u64::from(self.good).saturating_add(failures), failures, slow: self.slow.into() };
        let asked = asked_until(settings, retry_after, now);
        Open::lasting(settings, self.round.saturating_add(1), asked, (reason, counts), now, rng)
    }
}
