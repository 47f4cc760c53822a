//! Tidegate's own algorithm: as many as the upstream works on at once, three times.
//!
//! By Little's law an upstream that answers `x` requests a second, each of which takes `base` when it need not wait, works
//! on `x * base` of them at once: the knee. More than that in flight wait. The limit under overload is [`GAIN`] knees:
//! what is in flight keeps the upstream busy, and waits two times as long as it is worked on.
//!
//! - **Growth.** A request that finds no place raises the limit by half, there and then, unless a queue *stands*: the
//!   window before was answered in twice `base` or more, and at its end two knees or more were still in flight. A burst
//!   that drains, and a load that the upstream can carry, so find room from the first request on.
//! - **Overload** is a window in which requests found no place while a queue stood. The limit then goes to [`GAIN`]
//!   knees, by three tenths a window at most, about as fast as the upstream drains.
//! - **Load alone** never lowers it, however slow answers are: without a request that found no place the limit stays, or
//!   sinks slowly towards twice what was in flight at most, but not below its start.
//! - **`base`** follows the mean latency of windows in which all found a place, down quickly and up within a second or so:
//!   a lasting shift is the new normal. Under overload it cannot be seen, so now and then the limit *dips*
//!   below the knee, for a window in which the queue drains and one to measure. Was `base` too high, it sinks by a fifth
//!   and the limit dips again at once, which costs nothing since work was waiting; was it too low, it is set right at once. A dip
//!   that changes nothing doubles the time to the next.
//!
//! It fails where the mean latency says little of the upstream: where long and short requests alternate in waves much
//! longer than a window, or where one of many servers behind the limit is slow alone. An upstream close to its capacity whose service
//! times scatter much queues by itself; a few per cent of its load is then rejected.

use super::limit::{Bounds, Limit, SAMPLES, Window, Words, pack, unpack, whole};
use crate::control::{Nanos, Random};

/// Knees in flight under overload.
const GAIN: f64 = 3.0;
/// A queue may stand when latency is so many times `base`.
const STANDING: f64 = 2.0;
/// Part of a knee in flight during a dip.
const DIP: f64 = 0.8;
/// Windows under overload to the next dip, at first and at most.
const DIP_AFTER: f64 = 16.0;
const DIP_AFTER_MOST: f64 = 512.0;
/// Windows last so many times `base`, within bounds.
const PERIOD: f64 = 2.5;
const SHORTEST: Nanos = 50_000_000;
const LONGEST: Nanos = 2_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Normal,
    /// The queue drains before a measurement.
    Drain,
    /// Fewer in flight than the upstream works on.
    Measure,
}

/// Tidegate's own limit algorithm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    bounds: Bounds,
    limit: f64,
    /// Mean latency of a request that does not wait, in nanoseconds; 0 until known.
    base: f64,
    standing: bool,
    phase: Phase,
    /// Requests answered in a nanosecond, before the dip.
    rate: f64,
    /// Windows under overload to the next dip, and to the one after it.
    dip_in: f64,
    dip_after: f64,
}

impl Adaptive {
    /// At its start.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: bounds.hold(f64::from(bounds.initial)),
            base: 0.0,
            standing: false,
            phase: Phase::Normal,
            rate: 0.0,
            dip_in: DIP_AFTER,
            dip_after: DIP_AFTER,
        }
    }

    pub(super) fn restore(bounds: Bounds, words: &Words) -> Self {
        let [limit, base, standing, phase, rate, dip_in, dip_after] = unpack(words);
        if limit == 0.0 {
            return Self::new(bounds);
        }
        let phase = match phase {
            1.0 => Phase::Drain,
            2.0 => Phase::Measure,
            _ => Phase::Normal,
        };
        Self { bounds, limit: bounds.hold(limit), base, standing: standing != 0.0, phase, rate, dip_in, dip_after }
    }

    fn judge(&mut self, window: &Window, rtt: f64, rate: f64) {
        let knee = rate * self.base;
        self.standing = rtt >= STANDING * self.base && f64::from(window.inflight) >= STANDING * knee;
        if rtt < self.base {
            self.base += 0.3 * (rtt - self.base);
        } else if !window.full {
            self.base += 0.1 * (rtt - self.base);
        }
        if !window.full {
            let idle = self.limit > 2.0 * f64::from(window.peak);
            let floor = f64::from(self.bounds.initial).max(2.0 * f64::from(window.peak));
            if idle && self.limit > floor {
                self.limit = (self.limit * 0.98).max(floor);
            }
            return;
        }
        if !self.standing {
            return;
        }
        let target = GAIN * rate * self.base;
        let used = self.limit.min(f64::from(window.peak.max(window.inflight)));
        self.limit =
            if target < self.limit { target.max(0.7 * used).min(self.limit) } else { target.min(1.5 * self.limit) };
        self.dip_in -= 1.0;
        if self.dip_in <= 0.0 {
            self.dip(rate);
        }
    }

    fn dip(&mut self, rate: f64) {
        self.phase = Phase::Drain;
        self.rate = rate;
        self.limit = (DIP * rate * self.base).ceil();
    }

    fn measured(&mut self, window: &Window, rtt: f64, rate: f64) {
        let before = self.base;
        self.phase = Phase::Normal;
        // More in flight than the dip allows: the queue has not drained, or is not ours.
        let drained = rate * rtt <= 1.25 * self.limit;
        if drained && window.samples >= SAMPLES {
            self.base = rtt;
            if window.full && rtt < 0.9 * before {
                self.dip(self.rate);
                return;
            }
            let confirmed = rtt < 1.1 * before;
            self.dip_after = if confirmed { (2.0 * self.dip_after).min(DIP_AFTER_MOST) } else { DIP_AFTER };
        }
        self.limit = GAIN * self.rate * self.base;
        self.dip_in = self.dip_after;
    }
}

impl Limit for Adaptive {
    fn period(&self) -> Nanos {
        // Casts of f64 saturate.
        ((PERIOD * self.base) as Nanos).clamp(SHORTEST, LONGEST)
    }

    fn update(&mut self, window: &Window, _: &mut dyn Random) {
        if window.samples == 0 {
            // Nothing was answered: with work in flight that is a queue, as far as anybody can tell.
            self.standing = self.base > 0.0 && window.inflight > 0;
            return;
        }
        let rtt = window.rtt as f64;
        let rate = window.samples as f64 / window.duration.max(1) as f64;
        if self.base == 0.0 {
            self.base = rtt;
        }
        match self.phase {
            Phase::Normal => self.judge(window, rtt, rate),
            Phase::Drain => self.phase = Phase::Measure,
            Phase::Measure => self.measured(window, rtt, rate),
        }
        self.limit = self.bounds.hold(self.limit);
    }

    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn stretch(&mut self) -> bool {
        let before = self.limit();
        if !self.standing && self.phase == Phase::Normal {
            self.limit = self.bounds.hold((1.5 * self.limit).ceil());
        }
        self.limit() > before
    }

    fn dips(&self) -> bool {
        self.phase != Phase::Normal
    }

    fn words(&self) -> Words {
        let phase = match self.phase {
            Phase::Normal => 0.0,
            Phase::Drain => 1.0,
            Phase::Measure => 2.0,
        };
        let standing = if self.standing { 1.0 } else { 0.0 };
        pack([self.limit, self.base, standing, phase, self.rate, self.dip_in, self.dip_after])
    }
}
