//! Published vectors.

use super::*;
use crate::share::Memory;

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000_000_000;

/// A limiter and the state it shares, for one key.
struct Bench {
    share: Memory,
    limiter: RateLimiter,
}

impl Bench {
    fn new(algorithm: Algorithm, count: u64, period: Nanos, burst: u64) -> Self {
        let share = Memory::new();
        let settings = Settings { quotas: vec![Quota { count, period, burst }], algorithm, max_keys: 1 };
        let limiter = RateLimiter::new(&settings, &share, "limit").unwrap();
        Self { share, limiter }
    }

    fn bucket(burst: u64, count: u64, period: Nanos) -> Self {
        Self::new(Algorithm::TokenBucket, count, period, burst)
    }

    fn take(&mut self, cost: u64, now: Nanos) -> bool {
        self.limiter.charge(&self.share, KeyHash::NONE, 0, cost, now).is_ok()
    }

    fn wait(&mut self, cost: u64, now: Nanos) -> Option<Nanos> {
        self.limiter.check(&self.share, KeyHash::NONE, 0, cost, now).map_or_else(|refused| refused.wait, |_| Some(0))
    }

    fn remaining(&mut self, now: Nanos) -> u64 {
        self.limiter.check(&self.share, KeyHash::NONE, 0, 0, now).unwrap().remaining
    }
}

#[test]
fn a_bucket_of_one_lets_one_through() {
    let mut bucket = Bench::bucket(1, 1, SECOND);
    assert!(bucket.take(1, 0));
    assert!(!bucket.take(1, 0));
}

#[test]
fn envoys_bucket_of_three_refills_to_three_and_no_more() {
    let mut bucket = Bench::bucket(3, 1, SECOND);
    assert!(bucket.take(3, 0));
    assert!(!bucket.take(4, 10 * SECOND));
    assert!(bucket.take(3, 10 * SECOND));
    assert!(!bucket.take(1, 10 * SECOND));
}

#[test]
fn envoys_bucket_of_ten_refills_at_whole_seconds() {
    let mut bucket = Bench::bucket(10, 1, SECOND);
    assert!(!bucket.take(20, 0));
    assert!(bucket.take(9, 0));
    assert!(bucket.take(1, 0));
    assert!(!bucket.take(1, 999 * MS));
    assert!(!bucket.take(6, 5_999 * MS));
    assert!(bucket.take(6, 6_000 * MS));
    assert!(!bucket.take(1, 6_000 * MS));
}

#[test]
fn envoys_bucket_at_half_a_token_a_second_refills_in_two() {
    let mut bucket = Bench::bucket(1, 1, 2 * SECOND);
    assert!(bucket.take(1, 0));
    assert!(!bucket.take(1, 500 * MS));
    assert!(!bucket.take(1, 1_500 * MS));
    assert!(bucket.take(1, 2_000 * MS));
}

#[test]
fn envoys_emptied_bucket_at_five_a_second_says_when_the_next_token_comes() {
    let mut bucket = Bench::bucket(10, 5, SECOND);
    assert!(bucket.take(10, 0));
    assert_eq!(bucket.wait(1, 0), Some(200 * MS));
}

#[test]
fn envoys_bucket_of_sixteen_refills_each_sixteenth_of_a_second() {
    let mut bucket = Bench::bucket(16, 16, SECOND);
    assert_eq!(bucket.remaining(0), 16, "18 wanted, 16 there");
    assert!(bucket.take(16, 0));
    assert_eq!(bucket.wait(1, 0), Some(62_500_000), "63 ms in whole milliseconds");
    assert!(!bucket.take(1, 62 * MS));
    assert!(bucket.take(1, 63 * MS));
}

#[test]
fn cloudflares_sliding_window_of_fifty_allows_at_49_and_a_half() {
    const MINUTE: Nanos = 60 * SECOND;
    let mut window = Bench::new(Algorithm::SlidingWindow, 50, MINUTE, 1);
    assert!(window.take(42, 0));
    assert!(window.take(18, MINUTE + 15 * SECOND));
    assert!(window.take(1, MINUTE + 15 * SECOND));
    // 42 * 45/60 + 19 = 50.5
    assert!(!window.take(1, MINUTE + 15 * SECOND));
}
