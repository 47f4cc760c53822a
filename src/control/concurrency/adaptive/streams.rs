//! What is in flight and is not answered for long: streams.

use super::measuring::LEAST;
use super::{Adaptive, DIP, Phase, STOOD, rate};
use crate::control::Nanos;
use crate::control::concurrency::limit::Window;

/// Nobody is answered for `STOOD` times this, though requests are refused and nobody gives up: a few more are let in. Once
/// this is enough where few are in flight on purpose.
const EMPTY: Nanos = 500_000_000;
/// How fast the number of streams follows what is seen of them, up and down.
const MORE: f64 = 0.1;
const FEWER: f64 = 0.5;
/// The same while a queue may grow or drain.
const MORE_OR_QUEUE: f64 = 0.02;
const FEWER_OR_DRAINS: f64 = 0.05;
/// Part of a knee up to which streams are no matter; of the start while that is not known.
const SOME: f64 = 0.5;

impl Adaptive {
    /// Places that streams hold, if they are some: knees are of the others.
    pub(super) fn held(&self) -> f64 {
        // What is seen in the first windows may be waiting.
        let least = if self.is_blind() { f64::from(self.bounds.initial) } else { self.rate * self.base };
        if self.streams > SOME * least { self.streams.floor() } else { 0.0 }
    }

    /// A window without them.
    pub(super) fn working(&self, window: &Window) -> Window {
        // Casts of f64 saturate.
        let without = |inflight: u32| inflight.saturating_sub(self.held() as u32);
        Window { inflight: without(window.inflight), peak: without(window.peak), ..*window }
    }

    /// By Little's law in flight are as many as are answered in the time that each takes. More are while a queue grows, and
    /// where some are not answered for long.
    pub(super) fn count_streams(&mut self, window: &Window) {
        let seen = (f64::from(window.inflight) - rate(window) * window.rtt as f64).max(0.0);
        let quiet = !window.full && self.stood <= 0.0 && self.overload <= 0.0;
        let (more, fewer) = match self.phase {
            Phase::Normal if quiet => (MORE, FEWER),
            // As many were answered as were in flight before: the work of others that they waited behind is done.
            Phase::Measure if self.is_blind() => (1.0, FEWER_OR_DRAINS),
            // What waits behind the work of others looks like streams.
            _ if self.is_blind() => (0.0, FEWER),
            // A queue may be growing, or one that was cut drain: those answered waited longer than those in flight will.
            Phase::Normal => (MORE_OR_QUEUE, FEWER_OR_DRAINS),
            Phase::Clear => (MORE, 0.0),
            Phase::Measure => (MORE, FEWER),
            Phase::Drain | Phase::Fill => (0.0, 0.0),
        };
        let pace = if seen > self.streams { more } else { fewer };
        self.streams += pace * (seen - self.streams);
    }

    /// Nobody was answered. If that lasts though requests are refused, and nobody gives up, all that is in flight may be
    /// streams: a few more tell, no more than a measurement needs.
    pub(super) fn nobody_tells(&mut self, window: &Window) {
        let lasted = window.duration as f64 / EMPTY as f64;
        self.refused = if window.refused && !window.left { self.refused + lasted } else { 0.0 };
        let lasts = if self.is_blind() || self.phase != Phase::Normal { 1.0 } else { STOOD };
        if self.refused >= lasts {
            let initial = f64::from(self.bounds.initial);
            let few = if self.is_blind() { LEAST * self.limit.min(initial) } else { DIP * self.rate * self.base };
            let inflight = f64::from(window.inflight);
            self.limit = self.bounds.hold(self.limit.max(inflight + few.ceil().max(1.0)));
            self.spared = self.spared.max(self.limit);
            self.streams = self.streams.max(inflight);
            self.refused = 0.0;
        }
    }
}
