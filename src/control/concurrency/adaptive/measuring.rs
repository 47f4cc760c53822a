//! How long requests take, seen with fewer in flight than the upstream works on, and with few when nothing is known.

use super::{AFTER, Adaptive, DIP, GAIN, Phase, SHORTEST, rate};
use crate::control::concurrency::limit::Window;

/// Two measurements agree that are no further apart than this.
const AGREES: f64 = 0.75;
/// Part of the start that is in flight at least in a measurement at a blind start.
pub(super) const LEAST: f64 = 0.25;
/// Part of a knee in flight during a dip after one that has shown that `base` is too high.
const DIP_ON: f64 = 0.4;
/// Windows under overload to the next dip after `base` has proved much too low.
const DIP_AFTER_DOUBT: f64 = 4.0;
/// And at most.
const DIP_AFTER_MOST: f64 = 512.0;
/// The longest a queue is given to drain, in windows of the usual length.
const DRAIN: f64 = 20.0;
/// The same while some are spared: it does not drain if they are most of the load.
const DRAIN_SPARED: f64 = 5.0;
/// The same at a blind start, when windows are short and the queue may be as long as the largest limit.
const DRAIN_BLIND: f64 = 400.0;

impl Adaptive {
    /// Goes back to the start, to see how long requests take with so few in flight.
    pub(super) fn open_eyes(&mut self) {
        self.phase = Phase::Drain;
        self.drain = DRAIN_BLIND * SHORTEST as f64;
        self.before = 0.0;
        self.overload = AFTER;
        self.cut();
    }

    /// At most as many as at the start, for everybody.
    fn cut(&mut self) {
        self.limit = self.limit.min(f64::from(self.bounds.initial));
        self.spared = self.limit;
        self.streams = 0.0;
    }

    /// Clients give up, and nobody is answered: what was known is so no more.
    pub(super) fn nobody_answered(&mut self, window: &Window) {
        let initial = f64::from(self.bounds.initial);
        if self.limit > initial {
            self.cut();
        } else if window.refused && f64::from(window.inflight) <= self.limit {
            // Those who gave up were no more than that.
            self.limit = self.bounds.hold((0.5 * self.limit).ceil());
            self.spared = self.limit;
        }
        self.overload = AFTER;
        self.seen = 0.0;
    }

    /// Lowers the limit to a part of the knee.
    pub(super) fn dip(&mut self, part: f64) {
        self.drain_to(part * self.base * self.rate, 0.0);
    }

    /// Lowers it to half of what it is; requests took so long before.
    pub(super) fn halve(&mut self, before: f64) {
        self.drain_to(0.5 * self.limit, before);
    }

    fn drain_to(&mut self, inflight: f64, before: f64) {
        self.phase = Phase::Drain;
        let windows = if self.spared > inflight { DRAIN_SPARED } else { DRAIN };
        self.drain = windows * self.usual_period() as f64;
        self.before = before;
        self.limit = self.bounds.hold(inflight.ceil());
    }

    /// The limit is low, and more are in flight. If some were spared they are no small part of the load: the dip goes on for
    /// them too. Else it has failed.
    pub(super) fn miss(&mut self) {
        if self.spared > self.limit {
            self.spared = self.limit;
            self.drain_to(self.limit, self.before);
        } else {
            self.fill();
        }
    }

    /// What is in flight now is to leave before the next measurement.
    pub(super) fn clear(&mut self, window: &Window) {
        self.phase = Phase::Clear;
        self.drain = f64::from(window.inflight);
    }

    pub(super) fn measure(&mut self, window: &Window) {
        let rtt = window.rtt as f64;
        if self.is_blind() {
            // Who came before the limit was lowered is not gone yet: by Little's law so many cannot have been in flight.
            if rate(window) * rtt > 1.8 * self.limit {
                return self.clear(window);
            }
            let before = std::mem::replace(&mut self.before, rtt);
            self.base = rtt;
            self.rate = rate(window);
            if rtt.min(before) < AGREES * rtt.max(before) {
                // Half as many tell whether they wait for one another.
                let least = (LEAST * f64::from(self.bounds.initial)).ceil().min(self.limit);
                self.limit = (0.5 * self.limit).ceil().max(least);
                return self.clear(window);
            }
            self.seen = 1.0;
            return self.fill();
        }
        // With more in flight than the dip allows, those who are spared or another proxy keep the upstream busy.
        if (rate(window) * rtt).min(f64::from(window.inflight)) > 1.4 * self.limit {
            return self.miss();
        }
        let less = rtt < 0.8 * self.before;
        if rtt > 2.0 * self.base {
            if self.before == 0.0 || less {
                // Work waits still, or the machine stood still, or `base` has changed: half as many will tell.
                return self.halve(rtt);
            }
            // By Little's law in flight are as many as come in the time that each takes; more do where a stall has ended.
            if rtt > 1.25 * self.before || rate(window) * rtt > 1.8 * self.limit {
                self.before = self.before.max(rtt);
                return self.clear(window);
            }
        } else if less {
            // Fewer wait less: it is a queue, and how long requests take without is to be seen yet.
            return self.dip(DIP);
        }
        let before = self.base;
        if window.full && rtt < 0.82 * before {
            self.base = rtt;
            return self.dip(DIP_ON);
        }
        self.base = if rtt > 2.0 * before { rtt } else { 0.5 * (before + rtt) };
        let confirmed = rtt < 1.5 * before;
        self.dip_after = if confirmed { (2.0 * self.dip_after).min(DIP_AFTER_MOST) } else { DIP_AFTER_DOUBT };
        let most = if self.before > 0.0 { 4.0 * self.limit } else { f64::INFINITY };
        self.fill();
        // What came out of doubt may be wrong still: the limit grows from where it was measured.
        self.limit = self.limit.min(most);
    }

    pub(super) fn fill(&mut self) {
        self.phase = Phase::Fill;
        self.limit = GAIN * self.rate * self.base;
        self.dip_in = self.dip_after;
        self.cut_from = 0.0;
    }
}
