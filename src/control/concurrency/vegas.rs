//! TCP Vegas: from the least latency ever seen it estimates how many of those in flight are waiting, and keeps
//! that number between two bounds that grow with the logarithm of the limit.
//!
//! After Netflix concurrency-limits, `VegasLimit`. A drop takes a step off, as there; one that came quicker than work is done
//! has no part in latencies here. The least latency is forgotten now and then (after some thirty limits' worth of updates);
//! if it is learnt anew under load, the limit drifts up. Where latencies scatter, their least is far below the mean, and
//! the limit stays too low.

use super::limit::{Bounds, Limit, Window, Words, pack, unpack, whole};
use crate::control::{Nanos, Random};

const PROBE_MULTIPLIER: f64 = 30.0;

/// TCP Vegas.
#[derive(Debug, Clone, Copy)]
pub struct Vegas {
    bounds: Bounds,
    limit: f64,
    no_load: f64,
    updates: f64,
    jitter: f64,
    smoothing: f64,
    decrease: fn(f64) -> f64,
}

fn log(limit: f64) -> f64 {
    limit.log10().floor().max(1.0)
}

impl Vegas {
    /// At its start.
    pub fn new(bounds: Bounds) -> Self {
        let limit = bounds.hold(f64::from(bounds.initial));
        Self {
            bounds,
            limit,
            no_load: 0.0,
            updates: 0.0,
            jitter: 1.0,
            smoothing: 1.0,
            decrease: |limit| limit - log(limit),
        }
    }

    pub(super) fn restore(bounds: Bounds, words: &Words) -> Self {
        let [limit, no_load, updates, jitter] = unpack(words);
        let fresh = Self::new(bounds);
        if limit == 0.0 { fresh } else { Self { limit: bounds.hold(limit), no_load, updates, jitter, ..fresh } }
    }

    fn go_to(&mut self, next: f64) {
        self.limit += self.smoothing * (self.bounds.hold(next) - self.limit);
    }

    fn next(&self, rtt: f64, window: &Window) -> f64 {
        let queue = (self.limit * (1.0 - self.no_load / rtt)).ceil();
        let step = log(self.limit);
        let (alpha, beta) = (3.0 * step, 6.0 * step);
        if window.dropped {
            (self.decrease)(self.limit)
        } else if f64::from(window.peak) * 2.0 < self.limit {
            self.limit
        } else if queue <= step {
            self.limit + beta
        } else if queue < alpha {
            self.limit + step
        } else if queue > beta {
            (self.decrease)(self.limit)
        } else {
            self.limit
        }
    }
}

impl Limit for Vegas {
    fn period(&self) -> Nanos {
        super::WINDOW
    }

    fn heeds_drops(&self) -> bool {
        true
    }

    fn update(&mut self, window: &Window, random: &mut dyn Random) {
        if window.rtt == 0 {
            // Drops that came quicker than work is done have no latency to judge, and are heeded all the same.
            if window.dropped {
                self.go_to((self.decrease)(self.limit));
            }
            return;
        }
        let rtt = window.rtt as f64;
        self.updates += 1.0;
        if self.jitter * PROBE_MULTIPLIER * self.limit <= self.updates {
            self.updates = 0.0;
            // Uniform from a half to one.
            self.jitter = 0.5 + (random.next_u64() >> 11) as f64 / (1u64 << 54) as f64;
            self.no_load = rtt;
        } else if self.no_load == 0.0 || rtt < self.no_load {
            self.no_load = rtt;
        } else {
            self.go_to(self.next(rtt, window));
        }
    }

    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn words(&self) -> Words {
        pack([self.limit, self.no_load, self.updates, self.jitter])
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Fixed, bounds};
    use super::*;

    const MS: Nanos = 1_000_000;

    fn vegas(initial: u32, max: u32) -> Vegas {
        Vegas::new(bounds(initial, 1, max))
    }

    fn see(limit: &mut Vegas, rtt: Nanos, peak: u32) -> u32 {
        limit.update(&Window { rtt, peak, ..Window::default() }, &mut Fixed(0));
        limit.limit()
    }

    // Netflix concurrency-limits, VegasLimitTest.

    #[test]
    fn without_a_queue_the_limit_grows() {
        let mut limit = vegas(10, 20);
        assert_eq!(see(&mut limit, 10 * MS, 10), 10);
        assert_eq!(see(&mut limit, 10 * MS, 11), 16);
    }

    #[test]
    fn a_long_queue_shrinks_the_limit() {
        let mut limit = vegas(10, 20);
        assert_eq!(see(&mut limit, 10 * MS, 10), 10);
        assert_eq!(see(&mut limit, 50 * MS, 11), 9);
    }

    #[test]
    fn a_queue_between_the_bounds_keeps_the_limit() {
        let mut limit = vegas(10, 20);
        assert_eq!(see(&mut limit, 10 * MS, 10), 10);
        assert_eq!(see(&mut limit, 14 * MS, 14), 10);
    }

    #[test]
    fn steps_grow_with_the_logarithm_of_the_limit() {
        let mut limit = vegas(10_000, 20_000);
        assert_eq!(see(&mut limit, 10_000 * MS, 5_000), 10_000);
        assert_eq!(see(&mut limit, 10_000 * MS, 6_000), 10_024);
    }

    /// As published a drop takes the decrease function's step off; that it had no latency to tell is ours.
    #[test]
    fn a_drop_takes_a_step_off_and_a_window_with_nothing_else_does_so_too() {
        for rtt in [14 * MS, 0] {
            let after = |dropped| {
                let mut limit = vegas(200, 1000);
                see(&mut limit, 10 * MS, 10);
                limit.update(&Window { rtt, peak: 10, dropped, ..Window::default() }, &mut Fixed(0));
                (limit.limit(), limit.no_load)
            };
            assert_eq!((after(true), after(false)), ((198, 10e6), (200, 10e6)), "{rtt}");
        }
        let mut limit = vegas(3, 10);
        let least: Vec<_> = (0..4)
            .map(|_| {
                limit.update(&Window { dropped: true, ..Window::default() }, &mut Fixed(0));
                limit.limit()
            })
            .collect();
        assert_eq!(least, [2, 1, 1, 1]);
    }

    #[test]
    fn smoothing_halves_a_halving() {
        for (smoothing, expected) in [(0.5, [100, 75, 56]), (1.0, [100, 50, 25])] {
            let mut limit = Vegas { smoothing, decrease: |limit| limit / 2.0, ..vegas(100, 200) };
            assert_eq!([10, 20, 20].map(|rtt| see(&mut limit, rtt * MS, 100)), expected, "smoothing {smoothing}");
        }
    }

    #[test]
    fn the_least_latency_is_forgotten_in_time() {
        let mut limit = vegas(1, 1);
        see(&mut limit, 10 * MS, 1);
        for _ in 0..30 {
            see(&mut limit, 50 * MS, 1);
        }
        assert_eq!(limit.no_load, 50e6);
    }
}
