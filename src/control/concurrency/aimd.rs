//! Additive increase, multiplicative decrease: a window with a drop, or one slower than the timeout, takes a tenth off;
//! any other adds one when at least half the limit was in use.
//!
//! After Netflix concurrency-limits, `AIMDLimit`. It knows overload only by drops: while the upstream queues without
//! refusing, it grows to its maximum.

use super::limit::{Bounds, Limit, Window, Words, pack, unpack, whole};
use crate::control::{Nanos, Random};

const BACKOFF: f64 = 0.9;
const TIMEOUT: Nanos = 5_000_000_000;

/// Additive increase, multiplicative decrease.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aimd {
    bounds: Bounds,
    limit: f64,
}

impl Aimd {
    /// At its start.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, limit: bounds.hold(f64::from(bounds.initial)) }
    }

    pub(super) fn restore(bounds: Bounds, words: &Words) -> Self {
        let [limit] = unpack(words);
        if limit == 0.0 { Self::new(bounds) } else { Self { bounds, limit: bounds.hold(limit) } }
    }
}

impl Limit for Aimd {
    fn period(&self) -> Nanos {
        super::WINDOW
    }

    fn heeds_drops(&self) -> bool {
        true
    }

    fn update(&mut self, window: &Window, _: &mut dyn Random) {
        if window.dropped || window.rtt > TIMEOUT {
            self.limit = (self.limit * BACKOFF).floor();
        } else if f64::from(window.peak) * 2.0 >= self.limit {
            self.limit += 1.0;
        }
        self.limit = self.bounds.hold(self.limit);
    }

    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn words(&self) -> Words {
        pack([self.limit])
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Fixed, bounds};
    use super::*;

    fn after(initial: u32, max: u32, peak: u32, rtt: Nanos, dropped: bool) -> u32 {
        let mut limit = Aimd::new(bounds(initial, 20, max));
        limit.update(&Window { rtt, peak, dropped, ..Window::default() }, &mut Fixed(0));
        limit.limit()
    }

    // Netflix concurrency-limits, AIMDLimitTest.

    #[test]
    fn a_good_window_adds_one() {
        assert_eq!(after(20, 200, 10, 1_000_000, false), 21);
    }

    #[test]
    fn a_drop_takes_a_tenth_off() {
        assert_eq!(after(30, 200, 0, 0, true), 27);
    }

    #[test]
    fn the_maximum_is_not_passed() {
        assert_eq!(after(21, 21, 10, 1_000_000, false), 21);
    }

    #[test]
    fn an_answer_after_the_timeout_is_a_drop() {
        assert_eq!(after(30, 200, 30, 5_000_000_001, false), 27);
    }

    #[test]
    fn a_limit_that_is_not_half_used_stays() {
        assert_eq!(after(20, 200, 9, 1_000_000, false), 20);
    }
}
