//! When an open-loop client sends: decided beforehand, whatever the proxy does.
//!
//! A schedule is a rate over time, piecewise linear, plus bursts. Arrivals lie at unit distances on the axis of the expected
//! count (each moved by its jitter, or at exponential distances) and are taken back to time through the inverse of the rate's
//! integral; so a ramp is as even as a constant rate, and the same seed gives the same times.

use std::time::Duration;

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// When requests are sent.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    pieces: Vec<Piece>,
    bursts: Vec<(f64, usize)>,
    spacing: Spacing,
}

/// A rate that goes linearly from one value to another.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: f64,
    to: f64,
    seconds: f64,
}

#[derive(Debug, Clone, Copy, Default)]
enum Spacing {
    #[default]
    Even,
    Jitter(f64),
    Poisson,
}

// === impl Schedule ===

impl Schedule {
    /// `rate` requests per second for this long.
    pub fn constant(rate: f64, time: Duration) -> Self {
        Self::default().then(rate, time)
    }

    /// All at once.
    pub fn burst(requests: usize) -> Self {
        Self::default().then_burst(requests)
    }

    /// Then `rate` requests per second for this long; 0 is a pause.
    #[must_use]
    pub fn then(mut self, rate: f64, time: Duration) -> Self {
        self.pieces.push(Piece { from: rate, to: rate, seconds: time.as_secs_f64() });
        self
    }

    /// Then linearly from the rate reached so far to `rate`.
    #[must_use]
    pub fn then_ramp(mut self, rate: f64, time: Duration) -> Self {
        let from = self.pieces.last().map_or(0.0, |piece| piece.to);
        self.pieces.push(Piece { from, to: rate, seconds: time.as_secs_f64() });
        self
    }

    /// Then so many requests at the same moment.
    #[must_use]
    pub fn then_burst(mut self, requests: usize) -> Self {
        self.bursts.push((self.seconds(), requests));
        self
    }

    /// Moves each request by up to half of this share of the distance to the next, either way; from 0 to 1.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.spacing = Spacing::Jitter(share.clamp(0.0, 1.0));
        self
    }

    /// Independent arrivals: exponentially distributed distances.
    #[must_use]
    pub fn poisson(mut self) -> Self {
        self.spacing = Spacing::Poisson;
        self
    }

    /// How long it lasts.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds())
    }

    fn seconds(&self) -> f64 {
        self.pieces.iter().map(|piece| piece.seconds).sum()
    }

    /// Every moment at which a request is sent, in order.
    pub fn times(&self, seed: u64) -> Vec<Duration> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let total: f64 = self.pieces.iter().map(Piece::count).sum();
        let mut times: Vec<f64> =
            self.bursts.iter().flat_map(|(at, requests)| std::iter::repeat_n(*at, *requests)).collect();
        let mut sum = 0.0;
        for index in 0_u32.. {
            let place = match self.spacing {
                Spacing::Even => f64::from(index) + 0.5,
                Spacing::Jitter(share) => f64::from(index) + 0.5 + share * (random.random::<f64>() - 0.5),
                Spacing::Poisson => {
                    sum -= (1.0 - random.random::<f64>()).ln();
                    sum
                }
            };
            if place >= total {
                break;
            }
            times.push(self.time_of(place));
        }
        times.sort_by(f64::total_cmp);
        times.into_iter().map(Duration::from_secs_f64).collect()
    }

    /// When the expected count reaches `place`.
    fn time_of(&self, mut place: f64) -> f64 {
        let mut start = 0.0;
        for piece in &self.pieces {
            let count = piece.count();
            if place < count {
                return start + piece.time_of(place);
            }
            place -= count;
            start += piece.seconds;
        }
        start
    }
}

// === impl Piece ===

impl Piece {
    /// The expected number of requests: the area of a trapezium.
    fn count(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.seconds
    }

    /// Solves `from t + slope t^2 / 2 = place` in the form that also holds for a slope of 0.
    fn time_of(&self, place: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        let root = 2.0_f64.mul_add(slope * place, self.from * self.from).max(0.0).sqrt();
        2.0 * place / (self.from + root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_constant_rate_is_even() {
        let times = Schedule::constant(4.0, SECOND).times(1);
        assert_eq!(times, [125, 375, 625, 875].map(Duration::from_millis));
    }

    #[test]
    fn a_ramp_sends_its_area_and_ever_faster() {
        let times = Schedule::default().then_ramp(100.0, SECOND * 2).times(1);
        assert_eq!(times.len(), 100);
        let halfway = times.iter().filter(|at| **at < SECOND).count();
        assert_eq!(halfway, 25);
    }

    #[test]
    fn bursts_and_pauses_stand_where_they_were_put() {
        let schedule = Schedule::burst(3).then(0.0, SECOND).then_burst(2).then(2.0, SECOND);
        let times = schedule.times(1);
        assert_eq!(times, [0, 0, 0, 1000, 1000, 1250, 1750].map(Duration::from_millis));
        assert_eq!(schedule.duration(), 2 * SECOND);
    }

    #[test]
    fn the_same_seed_gives_the_same_times_and_another_does_not() {
        let schedule = Schedule::constant(50.0, SECOND).poisson();
        assert_eq!(schedule.times(7), schedule.times(7));
        assert_ne!(schedule.times(7), schedule.times(8));
    }

    #[test]
    fn jitter_keeps_the_order_and_the_number() {
        let times = Schedule::constant(1000.0, SECOND).jitter(1.0).times(3);
        assert_eq!(times.len(), 1000);
        assert!(times.iter().enumerate().all(|(i, at)| at.as_millis() == i as u128), "one in each millisecond");
    }
}
