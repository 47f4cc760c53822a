//! How long a breaker stays open, what it says about it, and how it takes requests back.

use tidegate::control::circuit_breaker::{Denied, Outcome, Settings, State, TripReason, Window};
use tidegate::control::{Nanos, Random};

use super::fleet::{FAILURE, Fleet, MS, SECOND, SplitMix, consecutive};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn asking(wait: Nanos) -> Outcome {
    Outcome::Failure { retry_after: Some(wait) }
}

fn within_a_tenth(wait: Nanos, of: Nanos) -> bool {
    wait >= of / 10 * 9 && wait <= of / 10 * 11
}

/// The waits of a breaker whose probes all fail, one after another.
fn gaps(settings: Settings, rounds: usize, seed: u64) -> Vec<Nanos> {
    let mut fleet = Fleet::seeded(settings, 2, seed);
    fleet.call(0, FAILURE);
    let mut gaps = vec![fleet.wait(1)];
    while gaps.len() < rounds {
        fleet.wait_out(gaps.len() % 2);
        fleet.call(gaps.len() % 2, FAILURE);
        assert_eq!(fleet.last_reason(), TripReason::ProbeFailed);
        gaps.push(fleet.wait(0));
    }
    gaps
}

#[test]
fn each_failed_probe_round_doubles_the_open_time_up_to_the_maximum() {
    for seed in 0..200 {
        let settings = Settings { open_duration_max: 10 * SECOND, ..consecutive(1) };
        let gaps = gaps(settings, 70, seed);
        for (gap, expected) in gaps.iter().zip([1, 2, 4, 8]) {
            assert!(within_a_tenth(*gap, expected * SECOND), "seed {seed}: {gaps:?}");
        }
        for gap in &gaps[4..] {
            assert!((9 * SECOND..=10 * SECOND).contains(gap), "seed {seed}: {gaps:?}");
        }
    }
}

#[test]
fn jitter_reaches_a_tenth_either_way() {
    let waits: Vec<Nanos> = (0..2_000).map(|seed| gaps(consecutive(1), 1, seed)[0]).collect();
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!((900 * MS..905 * MS).contains(least), "{least}");
    assert!((1_095 * MS..=1_100 * MS).contains(most), "{most}");
}

#[test]
fn closing_takes_the_open_time_back_to_its_base() {
    let mut fleet = Fleet::new(consecutive(1), 1);
    fleet.call(0, FAILURE);
    for outcome in [FAILURE, FAILURE, Outcome::Success] {
        fleet.wait_out(0);
        fleet.call(0, outcome);
    }
    fleet.call(0, FAILURE);
    let wait = fleet.wait(0);
    assert!(within_a_tenth(wait, SECOND), "{wait}");
}

#[test]
fn the_wait_it_names_is_the_moment_a_request_passes_and_no_earlier() {
    for seed in 0..50 {
        let mut fleet = Fleet::seeded(consecutive(1), 2, seed);
        fleet.call(0, FAILURE);
        fleet.now += SECOND / 3;
        let wait = fleet.wait(1);
        fleet.now += wait - 1;
        assert_eq!(fleet.wait(0), 1);
        fleet.now += 1;
        assert!(fleet.ask(1).unwrap().is_probe());
    }
}

#[test]
fn retry_after_lengthens_the_open_time_and_never_shortens_it() {
    for window in [Window::Time(10 * SECOND), Window::Count(10)] {
        let settings = || Settings { window, ..consecutive(1) };
        let mut fleet = Fleet::new(settings(), 2);
        fleet.call(0, asking(7 * SECOND));
        assert_eq!(fleet.wait(1), 7 * SECOND);

        let mut fleet = Fleet::new(settings(), 2);
        fleet.call(0, asking(SECOND / 2));
        let wait = fleet.wait(1);
        assert!(within_a_tenth(wait, SECOND), "{wait}");
    }
}

#[test]
fn retry_after_is_capped_by_the_maximum() {
    for wait in [60 * SECOND, 61 * SECOND, 86_400 * SECOND, Nanos::MAX] {
        let mut fleet = Fleet::new(consecutive(1), 1);
        fleet.call(0, asking(wait));
        assert_eq!(fleet.wait(0), 60 * SECOND);
    }
}

#[test]
fn retry_after_of_an_earlier_failure_in_the_same_state_is_kept_on_every_worker() {
    for window in [Window::Time(10 * SECOND), Window::Count(10)] {
        let mut fleet = Fleet::new(Settings { window, ..consecutive(2) }, 2);
        fleet.call(0, asking(20 * SECOND));
        fleet.now += 4 * SECOND;
        fleet.call(1, FAILURE);
        assert_eq!(fleet.wait(0), 16 * SECOND);
    }
}

#[test]
fn retry_after_of_a_failed_probe_counts() {
    let mut fleet = Fleet::new(consecutive(1), 1);
    fleet.call(0, FAILURE);
    fleet.wait_out(0);
    fleet.call(0, Outcome::RateLimited { retry_after: Some(30 * SECOND) });
    assert_eq!(fleet.wait(0), 30 * SECOND);
}

#[test]
fn retry_after_is_ignored_where_the_policy_says_so() {
    for window in [Window::Time(10 * SECOND), Window::Count(10)] {
        let mut fleet = Fleet::new(Settings { window, honor_retry_after: false, ..consecutive(1) }, 1);
        fleet.call(0, asking(30 * SECOND));
        let wait = fleet.wait(0);
        assert!(within_a_tenth(wait, SECOND), "{wait}");
    }
}

#[test]
fn a_probe_never_comes_before_the_open_time_is_over_on_a_clock_near_its_end() {
    let mut fleet = Fleet::new(consecutive(1), 1);
    fleet.now = Nanos::MAX - SECOND / 2;
    fleet.call(0, FAILURE);
    assert_eq!(fleet.wait(0), SECOND / 2, "time saturates, it does not wrap");
}

fn share_admitted(elapsed: Nanos, seed: u64) -> f64 {
    let settings = Settings { recovery_ramp: Some(10 * SECOND), ..consecutive(1) };
    let mut fleet = Fleet::seeded(settings, 4, seed);
    fleet.call(0, FAILURE);
    fleet.wait_out(0);
    assert_eq!(fleet.call(0, Outcome::Success), State::Closed);
    fleet.now += elapsed;
    let mut admitted = 0;
    for request in 0..20_000 {
        match fleet.ask(request % 4) {
            Ok(permit) => {
                admitted += 1;
                fleet.end(request % 4, permit, Outcome::Success);
            }
            Err(denied) => assert_eq!((denied, denied.retry_in()), (Denied::Recovering, None)),
        }
    }
    f64::from(admitted) / 20_000.0
}

#[test]
fn recovery_readmits_linearly_from_a_tenth_to_all() {
    for (elapsed, expected) in [(0, 0.1), (2_500, 0.325), (5_000, 0.55), (7_500, 0.775)] {
        let share = share_admitted(elapsed * MS, elapsed);
        // Five standard deviations of 20 000 coins.
        assert!((share - expected).abs() < 0.018, "{share} after {elapsed} ms, not {expected}");
    }
    assert!(share_admitted(10 * SECOND, 5) >= 1.0);
    assert!(share_admitted(Nanos::MAX / 2, 6) >= 1.0);
}

#[test]
fn a_breaker_that_was_never_open_has_no_ramp() {
    let mut fleet = Fleet::new(Settings { recovery_ramp: Some(3_600 * SECOND), ..consecutive(1) }, 1);
    fleet.now = 0;
    for _ in 0..1_000 {
        fleet.call(0, Outcome::Success);
    }
}

#[test]
fn the_random_source_of_these_tests_is_splitmix64() {
    // The published first outputs for seed 1234567.
    let mut rng = SplitMix(1_234_567);
    assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
    assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
}
