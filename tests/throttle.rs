//! The success-rate throttle: published vectors, and its window over workers.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use tidegate::control::throttle::{Settings, Throttle};
use tidegate::control::{Nanos, Random};
use tidegate::engine::SplitMix64;
use tidegate::share::Memory;

const SECOND: Nanos = 1_000_000_000;
const START: Nanos = 1_000 * SECOND;
const SETTINGS: Settings =
    Settings { success_threshold: 9_500, window: 30 * SECOND, max_rejection: 8_000, minimum_calls: 20 };

/// A draw of so many ten-thousandths.
struct Draw(u64);

impl Random for Draw {
    fn next_u64(&mut self) -> u64 {
        u64::MAX / 10_000 * self.0
    }
}

// Envoy, admission_control_filter_test.cc.

#[test]
fn nothing_is_rejected_before_anything_is_known() {
    assert_eq!(Settings { minimum_calls: 0, ..SETTINGS }.rejection(0, 0), 0.0);
}

#[test]
fn when_all_fail_the_most_is_rejected() {
    assert_eq!(SETTINGS.rejection(1_000, 0), 0.80);
}

#[test]
fn when_half_fail_a_draw_of_4500_is_rejected_and_one_of_5500_passes() {
    assert!((SETTINGS.rejection(1_000, 500) - 0.4732).abs() < 0.0001);
    let share = Memory::new();
    let mut throttle = Throttle::new(SETTINGS, &share, "test").unwrap();
    throttle.admits(&share, START, &mut Draw(0));
    (0..1_000).for_each(|call| throttle.settle(&share, call % 2 == 0));
    let later = START + SECOND;
    assert!(!throttle.admits(&share, later, &mut Draw(4_500)));
    assert!(throttle.admits(&share, later, &mut Draw(5_500)));
}

// Google, Site Reliability Engineering, "Handling Overload", K = 2: max(0, (requests - 2 accepts) / (requests + 1)).

#[test]
fn a_threshold_of_half_is_the_k_of_two() {
    let settings = Settings { success_threshold: 5_000, max_rejection: 10_000, ..SETTINGS };
    for (requests, accepts) in [(100u32, 100u32), (100, 50), (100, 49), (100, 10), (1_000, 0)] {
        let (n, s) = (f64::from(requests), f64::from(accepts));
        let expected = ((n - 2.0 * s) / (n + 1.0)).max(0.0);
        assert!((settings.rejection(requests.into(), accepts.into()) - expected).abs() < 1e-12);
    }
}

#[test]
fn at_the_threshold_nothing_is_rejected() {
    assert_eq!(SETTINGS.rejection(1_000, 950), 0.0);
    assert!(SETTINGS.rejection(1_000, 949) > 0.0);
}

#[test]
fn few_calls_say_nothing() {
    assert_eq!(SETTINGS.rejection(19, 0), 0.0);
    assert!(SETTINGS.rejection(20, 0) > 0.7);
}

#[test]
fn all_workers_judge_what_all_have_seen() {
    let share = Memory::new();
    let mut workers = [(); 4].map(|()| Throttle::new(SETTINGS, &share, "test").unwrap());
    let random = &mut SplitMix64::new(1);
    workers.iter_mut().for_each(|worker| assert!(worker.admits(&share, START, random)));
    for call in 0..20 {
        workers[call % 4].settle(&share, false);
    }
    for worker in &mut workers {
        worker.admits(&share, START + SECOND, random);
        assert!((worker.rejection() - 20.0 / 21.0).abs() < 0.2, "{}", worker.rejection());
    }
}

#[test]
fn what_is_older_than_the_window_is_forgotten() {
    let share = Memory::new();
    let mut throttle = Throttle::new(SETTINGS, &share, "test").unwrap();
    let random = &mut SplitMix64::new(1);
    throttle.admits(&share, START, random);
    (0..100).for_each(|_| throttle.settle(&share, false));
    throttle.admits(&share, START + 26 * SECOND, random);
    assert_eq!(throttle.rejection(), 0.80);
    throttle.admits(&share, START + 31 * SECOND, random);
    assert_eq!(throttle.rejection(), 0.0);
}

#[test]
fn a_recovered_upstream_is_sent_more_and_more_until_nothing_is_rejected() {
    let share = Memory::new();
    let mut throttle = Throttle::new(SETTINGS, &share, "test").unwrap();
    let random = &mut SplitMix64::new(7);
    let mut shares = Vec::new();
    for second in 0..90 {
        let mut admitted = 0;
        for call in 0..200 {
            let now = START + second * SECOND + call * SECOND / 200;
            if throttle.admits(&share, now, random) {
                admitted += 1;
                throttle.settle(&share, second >= 30);
            }
        }
        shares.push(admitted);
    }
    assert!(shares[25] < 60, "about a fifth passes while all fail: {shares:?}");
    assert_eq!(shares[70..], [200; 20], "{shares:?}");
}
