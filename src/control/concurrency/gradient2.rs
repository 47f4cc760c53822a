//! Gradient: the ratio of long-term to recent latency scales the limit, and a small queue is always allowed.
//!
//! After Netflix concurrency-limits, `Gradient2Limit`. The long-term average follows what it sees: under overload that
//! lasts it rises to the overloaded latency, and the limit drifts up with it.

use super::limit::{Bounds, Limit, Window, Words, pack, unpack, whole};
use crate::control::{Nanos, Random};

const SMOOTHING: f64 = 0.2;
const QUEUE: f64 = 4.0;
const TOLERANCE: f64 = 1.5;
const LONG_WINDOW: f64 = 600.0;
const WARM_UP: f64 = 10.0;

/// An exponential average over about so many values; of the first few the plain mean.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Average {
    value: f64,
    sum: f64,
    count: f64,
}

impl Average {
    fn add(&mut self, sample: f64, window: f64) -> f64 {
        if self.count < WARM_UP {
            self.count += 1.0;
            self.sum += sample;
            self.value = self.sum / self.count;
        } else {
            let factor = 2.0 / (window + 1.0);
            self.value = self.value * (1.0 - factor) + sample * factor;
        }
        self.value
    }
}

/// Latency gradient against a long-term average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gradient2 {
    bounds: Bounds,
    limit: f64,
    long: Average,
}

impl Gradient2 {
    /// At its start.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, limit: bounds.hold(f64::from(bounds.initial)), long: Average::default() }
    }

    pub(super) fn restore(bounds: Bounds, words: &Words) -> Self {
        let [limit, value, sum, count] = unpack(words);
        if limit == 0.0 {
            return Self::new(bounds);
        }
        Self { bounds, limit: bounds.hold(limit), long: Average { value, sum, count } }
    }
}

impl Limit for Gradient2 {
    fn period(&self) -> Nanos {
        super::WINDOW
    }

    fn update(&mut self, window: &Window, _: &mut dyn Random) {
        if window.rtt == 0 {
            return;
        }
        let short = window.rtt as f64;
        let long = self.long.add(short, LONG_WINDOW);
        // Recovering from load: let the average follow faster.
        if long / short > 2.0 {
            self.long.value *= 0.95;
        }
        if f64::from(window.peak) < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * long / short).clamp(0.5, 1.0);
        let next = self.limit * gradient + QUEUE;
        self.limit = self.bounds.hold(self.limit * (1.0 - SMOOTHING) + next * SMOOTHING);
    }

    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn words(&self) -> Words {
        pack([self.limit, self.long.value, self.long.sum, self.long.count])
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Fixed, bounds};
    use super::*;

    // Netflix concurrency-limits, ExpAvgMeasurementTest.
    #[test]
    fn the_average_is_plain_at_first_and_exponential_then() {
        let mut average = Average::default();
        for step in 0..10 {
            let seen = average.add(10.0 + f64::from(step), 100.0);
            assert_eq!(seen, 10.0 + 0.5 * f64::from(step));
        }
        assert!((average.add(100.0, 100.0) - 16.2).abs() < 0.1);
    }

    fn see(limit: &mut Gradient2, rtt: Nanos, peak: u32) -> f64 {
        limit.update(&Window { rtt, peak, ..Window::default() }, &mut Fixed(0));
        limit.limit
    }

    // The definition, worked by hand.

    #[test]
    fn steady_latency_adds_a_fifth_of_the_queue_each_window() {
        let mut limit = Gradient2::new(bounds(20, 20, 200));
        assert!((see(&mut limit, 100, 20) - 20.8).abs() < 1e-9);
        assert!((see(&mut limit, 100, 20) - 21.6).abs() < 1e-9);
    }

    #[test]
    fn latency_that_leaps_shrinks_the_limit_by_a_tenth_at_most() {
        let mut limit = Gradient2::new(bounds(100, 20, 200));
        see(&mut limit, 100, 10);
        // Long-term (100 + 1900) / 2 = 1000, gradient 0.5 at least and here 1.5 * 1000 / 1900 = 0.789.
        assert!((see(&mut limit, 1900, 100) - (80.0 + 0.2 * (100.0 * 1500.0 / 1900.0 + 4.0))).abs() < 1e-9);
    }

    #[test]
    fn a_limit_that_is_not_half_used_stays() {
        let mut limit = Gradient2::new(bounds(20, 20, 200));
        assert_eq!(see(&mut limit, 100, 9), 20.0);
    }

    #[test]
    fn bounds_hold() {
        let mut limit = Gradient2::new(bounds(20, 20, 22));
        for _ in 0..10 {
            see(&mut limit, 100, 20);
        }
        assert_eq!(limit.limit(), 22);
    }
}
