//! The success-rate throttle: published vectors, and its window over workers.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use tidegate::control::throttle::{Settings, Throttle};
use tidegate::control::{Nanos, Random};
use tidegate::engine::SplitMix64;
use tidegate::share::{GRACE, LEASE, Memory, ROWS};

#[path = "counting/mod.rs"]
mod counting;
use counting::Counting;

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

fn reusing(share: &Counting, owner: u64, now: Nanos) -> Throttle {
    let mut throttle = Throttle::reusing(SETTINGS, share, "test", owner, now).unwrap();
    throttle.tick(share, now);
    throttle
}

/// A hundred requests that fail; what is rejected a second later.
fn rejects(throttle: &mut Throttle, share: &Counting, now: Nanos) -> u64 {
    (0..100).for_each(|_| throttle.settle(share, false));
    throttle.tick(share, now + SECOND);
    throttle.rejection_percent()
}

#[test]
fn settings_that_come_and_go_have_counts_of_their_own_in_no_more_than_the_rows_there_are() {
    let share = Counting::default();
    let mut before: Option<Throttle> = None;
    let mut pages = Vec::new();
    for change in 1..=40 {
        let now = START + change * GRACE;
        let mut throttle = reusing(&share, change, now);
        assert_eq!(
            (throttle.rejection_percent(), throttle.take_news(), throttle.take_errors()),
            (0, None, 0),
            "{change}"
        );
        assert_eq!(rejects(&mut throttle, &share, now), 80, "{change}");
        if let Some(before) = before.replace(throttle) {
            before.release(&share, now);
        }
        pages.push(share.page_count());
    }
    // One for each row, and the register.
    assert!(pages[39] <= 1 + ROWS as u32, "{pages:?}");
    assert_eq!(pages[39], pages[4], "{pages:?}");
    // The control: a name for each.
    let share = Counting::default();
    (0..40).for_each(|change| drop(Throttle::new(SETTINGS, &share, &format!("test/{change}")).unwrap()));
    assert_eq!(share.page_count(), 40);
}

#[test]
fn the_same_settings_count_together_and_one_setting_too_many_counts_on_each_worker() {
    let share = Counting::default();
    let (mut one, mut same) = (reusing(&share, 1, START), reusing(&share, 1, START));
    assert_eq!(rejects(&mut one, &share, START), 80);
    same.tick(&share, START + SECOND);
    assert_eq!(same.rejection_percent(), 80);
    let others: Vec<_> = (2..=ROWS as u64).map(|owner| reusing(&share, owner, START)).collect();
    let mut late = [reusing(&share, 0, START), reusing(&share, 0, START)];
    for late in &mut late {
        assert_eq!((late.take_news(), late.take_errors()), (Some(true), 1));
    }
    let [first, second] = &mut late;
    assert_eq!(rejects(first, &share, START), 80);
    second.tick(&share, START + SECOND);
    assert_eq!(second.rejection_percent(), 0, "each by itself");
    // A row is given up: they count together again.
    others[0].release(&share, START + SECOND);
    let now = START + SECOND + GRACE;
    late.iter_mut().for_each(|late| late.keep(&share, now));
    assert_eq!(late.each_mut().map(Throttle::take_news), [Some(false); 2]);
    let [first, second] = &mut late;
    first.tick(&share, now);
    assert_eq!(rejects(first, &share, now), 80);
    second.tick(&share, now + SECOND);
    assert_eq!(second.rejection_percent(), 80);
}

#[test]
fn a_throttle_whose_row_was_taken_while_the_process_stood_still_has_another_at_its_next_keep() {
    let share = Counting::default();
    let mut lost = reusing(&share, 1, START);
    assert_eq!(rejects(&mut lost, &share, START), 80);
    let now = START + LEASE;
    let mut other = reusing(&share, 2, now);
    assert_eq!(rejects(&mut other, &share, now), 80);
    lost.tick(&share, now);
    assert_eq!((lost.rejection_percent(), lost.take_errors()), (0, 1), "it goes by nobody else's counts");
    lost.keep(&share, now);
    lost.tick(&share, now);
    assert_eq!((lost.rejection_percent(), lost.take_errors()), (0, 0));
    assert_eq!(rejects(&mut lost, &share, now), 80);
    other.tick(&share, now + 2 * SECOND);
    assert_eq!(other.rejection_percent(), 80);
}
