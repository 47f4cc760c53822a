//! Published vectors of others: Envoy's token bucket, governor's cell rate algorithm, Cloudflare's sliding window, nginx's
//! leaky bucket.

use tidegate::control::Nanos;
use tidegate::control::rate_limit::{Algorithm, KeyHash, Quota};

use super::interleaved::*;
use super::support::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NONE: KeyHash = KeyHash::NONE;

fn bucket(quota: Quota) -> Solo {
    Solo::new(&settings(Algorithm::TokenBucket, quota, 1))
}

#[test]
fn a_bucket_of_one_lets_one_through() {
    let mut bucket = bucket(quota(1, SECOND, 1));
    assert!(bucket.takes(NONE, 1, 0));
    assert!(!bucket.takes(NONE, 1, 0));
}

#[test]
fn envoys_bucket_of_three_refills_to_three_and_no_more() {
    let mut bucket = bucket(quota(1, SECOND, 3));
    assert!(bucket.takes(NONE, 3, 0));
    assert!(!bucket.takes(NONE, 4, 10 * SECOND));
    assert!(bucket.takes(NONE, 3, 10 * SECOND));
    assert!(!bucket.takes(NONE, 1, 10 * SECOND));
}

#[test]
fn envoys_bucket_of_ten_refills_at_whole_seconds() {
    let mut bucket = bucket(quota(1, SECOND, 10));
    assert!(!bucket.takes(NONE, 20, 0));
    assert!(bucket.takes(NONE, 9, 0));
    assert!(bucket.takes(NONE, 1, 0));
    assert!(!bucket.takes(NONE, 1, 999 * MS));
    assert!(!bucket.takes(NONE, 6, 5_999 * MS));
    assert!(bucket.takes(NONE, 6, 6_000 * MS));
    assert!(!bucket.takes(NONE, 1, 6_000 * MS));
}

#[test]
fn envoys_bucket_at_half_a_token_a_second_refills_in_two() {
    let mut bucket = bucket(quota(1, 2 * SECOND, 1));
    assert!(bucket.takes(NONE, 1, 0));
    assert!(!bucket.takes(NONE, 1, 500 * MS));
    assert!(!bucket.takes(NONE, 1, 1_500 * MS));
    assert!(bucket.takes(NONE, 1, 2_000 * MS));
}

#[test]
fn envoys_emptied_bucket_at_five_a_second_says_when_the_next_token_comes() {
    let mut bucket = bucket(quota(5, SECOND, 10));
    assert!(bucket.takes(NONE, 10, 0));
    assert_eq!(bucket.wait(NONE, 1, 0), Some(200 * MS));
}

#[test]
fn envoys_bucket_of_sixteen_refills_each_sixteenth_of_a_second() {
    let mut bucket = bucket(quota(16, SECOND, 16));
    assert_eq!(bucket.remaining(NONE, 0), 16, "18 wanted, 16 there");
    assert!(bucket.takes(NONE, 16, 0));
    assert_eq!(bucket.wait(NONE, 1, 0), Some(62_500_000), "63 ms in whole milliseconds");
    assert!(!bucket.takes(NONE, 1, 62 * MS));
    assert!(bucket.takes(NONE, 1, 63 * MS));
}

#[test]
fn cloudflares_sliding_window_of_fifty_allows_at_49_and_a_half() {
    const MINUTE: Nanos = 60 * SECOND;
    let mut window = Solo::new(&settings(Algorithm::SlidingWindow, quota(50, MINUTE, 1), 1));
    assert!(window.takes(NONE, 42, 0));
    assert!(window.takes(NONE, 18, MINUTE + 15 * SECOND));
    assert!(window.takes(NONE, 1, MINUTE + 15 * SECOND));
    // 42 * 45/60 + 19 = 50.5
    assert!(!window.takes(NONE, 1, MINUTE + 15 * SECOND));
}

#[test]
fn envoys_four_threads_are_granted_exactly_the_1200_tokens_that_time_adds() {
    // A drained bucket of 1200, one token a second; time goes on by 1 s 200 times and then by 10 s 100 times.
    let workers = Workers::new(4, &settings(Algorithm::TokenBucket, quota(1, SECOND, 1_200), 1), 0);
    let ask = |worker: usize, cost: u64, after: Nanos, within: bool| Op {
        worker,
        key: 0,
        act: Act::Charge { cost },
        after,
        within,
    };
    let drain = [ask(0, 1_200, 0, false)];
    let steps = (0..200).map(|_| SECOND).chain((0..100).map(|_| 10 * SECOND));
    // At each step the four ask three times as often as there are tokens, three of them while the fourth is about to store.
    let asks = steps.flat_map(|step| {
        let rounds = 0..3 * step / SECOND;
        rounds.flat_map(move |round| {
            (0..4).map(move |turn| {
                let worker = usize::try_from((turn + round) % 4).unwrap();
                ask(worker, 1, if (turn, round) == (0, 0) { step } else { 0 }, turn > 0)
            })
        })
    });
    let granted = workers.run(drain.into_iter().chain(asks));
    assert_eq!(granted.len() - 1, 1_200);
    assert!(workers.conflicts.get() > 0, "they were in each other's way");
}

/// The cell rate algorithm as governor has it (`gcra.rs`), for one key.
struct Governor {
    /// From one cell to the next.
    t: u64,
    tau: u64,
    tat: Option<u64>,
}

impl Governor {
    fn new(count: u64, period: Nanos, burst: u64) -> Self {
        let t = (period / count).max(1);
        Self { t, tau: t * (burst - 1), tat: None }
    }

    /// Lets this many cells through at once, or says from when on it would; nothing if it never will.
    fn check(&mut self, cells: u64, now: u64) -> Result<(), Option<u64>> {
        let extra = self.t * (cells - 1);
        if extra > self.tau {
            return Err(None);
        }
        let tat = self.tat.unwrap_or(now);
        let earliest = (tat + extra).saturating_sub(self.tau);
        if now < earliest {
            return Err(Some(earliest));
        }
        self.tat = Some(tat.max(now) + self.t + extra);
        Ok(())
    }

    fn remaining(&self, now: u64) -> u64 {
        (self.tau + self.t - self.tat.unwrap_or(now).saturating_sub(now)) / self.t
    }
}

#[test]
fn governors_two_a_second_are_two_in_any_second_from_the_first() {
    let mut bucket = bucket(quota(2, SECOND, 2));
    for begin in [0, 1_002 * MS] {
        assert!(bucket.takes(NONE, 1, begin));
        assert!(bucket.takes(NONE, 1, begin + MS));
        assert!(!bucket.takes(NONE, 1, begin + 2 * MS));
    }
}

#[test]
fn governor_would_decide_the_same_of_any_number_of_cells() {
    for (count, period, burst) in [(10, SECOND, 6), (1, 3 * SECOND, 1), (250, SECOND, 40), (1_000, SECOND, 2)] {
        let (mut solo, mut governor) = (bucket(quota(count, period, burst)), Governor::new(count, period, burst));
        let (mut now, mut let_through, mut never) = (0, 0, 0);
        for step in 0..5_000u64 {
            now += (step * step * 7_919) % (3 * governor.t);
            let cells = 1 + (step * 31) % (burst + 1);
            let expected = governor.check(cells, now);
            let wait = expected.map_or_else(|earliest| earliest.map(|at| at - now), |()| Some(0));
            assert_eq!(solo.wait(NONE, cells, now), wait, "{cells} at {now}");
            assert_eq!(solo.takes(NONE, cells, now), expected.is_ok(), "{cells} at {now}");
            assert_eq!(solo.remaining(NONE, now), governor.remaining(now), "at {now}");
            let_through += u64::from(expected.is_ok());
            never += u64::from(expected == Err(None));
        }
        assert!(let_through > 100 && never > 100, "{let_through} let through, {never} never possible");
    }
}

/// nginx's `limit_req`: excess in thousandths of a request, time in milliseconds.
struct Nginx {
    rate: i64,
    burst: i64,
    delay: i64,
    excess: i64,
    last: Option<i64>,
}

impl Nginx {
    /// For how many milliseconds it holds a request, or none if it rejects it.
    fn ask(&mut self, ms: i64) -> Option<i64> {
        let next = self.last.map_or(0, |last| (self.excess - self.rate * (ms - last) / 1_000 + 1_000).max(0));
        if next > self.burst * 1_000 {
            return None;
        }
        (self.excess, self.last) = (next, Some(ms));
        Some((next - self.delay * 1_000).max(0) * 1_000 / self.rate)
    }
}

#[test]
fn nginx_would_reject_and_delay_the_same() {
    // Ten a second, with a burst of five: of these `delay` pass at once (`nodelay`: all of them), the rest is paced.
    for delay in [0, 1, 3, 5] {
        let mut nginx = Nginx { rate: 10_000, burst: 5, delay, excess: 0, last: None };
        // What nginx lets through beside the rate, and for how long it holds at most.
        let mut solo = bucket(quota(10, SECOND, 1 + u64::try_from(delay).unwrap()));
        let max_wait = u64::try_from(5 - delay).unwrap() * 100 * MS;
        let (mut now, mut held, mut rejected) = (0u64, 0, 0);
        for step in 0..5_000u64 {
            now += (step * 7_919) % 151;
            let expected = nginx.ask(i64::try_from(now).unwrap());
            let reserved = solo.limiter.reserve(&solo.share, NONE, 0, 1, max_wait, now * MS);
            let waits = reserved.map(|(_, at)| i64::try_from((at - now * MS) / MS).unwrap()).ok();
            assert_eq!(waits, expected, "at {now} ms with {delay} at once");
            held += u64::from(expected > Some(0));
            rejected += u64::from(expected.is_none());
        }
        assert!(rejected > 100 && (held > 100) == (delay < 5), "{held} held, {rejected} rejected");
    }
}
