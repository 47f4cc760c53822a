//! What trips a closed breaker.

use tidegate::control::circuit_breaker::{Counts, Mode, Outcome, Settings, State, TripReason, Window};

use super::fleet::{FAILURE, Fleet, MS, SECOND, consecutive, half_of, quiet};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const RATE_LIMITED: Outcome = Outcome::RateLimited { retry_after: None };

fn both_windows() -> [Window; 2] {
    [Window::Time(5 * SECOND), Window::Count(5)]
}

/// resilience4j `CircuitBreakerStateMachineTest.shouldOpenAfterFailureRateThresholdExceeded`.
#[test]
fn the_call_that_fills_the_minimum_trips_even_when_it_is_good() {
    for window in both_windows() {
        for workers in [1, 2, 4, 8] {
            let mut fleet = Fleet::new(half_of(5, window), workers);
            for (call, outcome) in [FAILURE, FAILURE, FAILURE, Outcome::Success].into_iter().enumerate() {
                assert_eq!(fleet.call(call % workers, outcome), State::Closed);
            }
            assert_eq!(fleet.call(4 % workers, Outcome::Success), State::Open);
            assert_eq!(fleet.last_reason(), TripReason::FailureRate);
            assert_eq!(fleet.last().counts, Counts { calls: 5, failures: 3, slow: 0 });
            assert!(fleet.ask(0).is_err());
        }
    }
}

/// resilience4j `CircuitBreakerStateMachineTest.shouldOpenAfterSlowCallRateThresholdExceeded`.
#[test]
fn slow_calls_trip_whether_they_fail_or_not() {
    for window in both_windows() {
        for workers in [1, 2, 4, 8] {
            let settings = Settings {
                failure_rate_threshold: 6_000,
                slow_call_duration: Some(4 * SECOND),
                slow_call_rate_threshold: 5_000,
                ..half_of(5, window)
            };
            let mut fleet = Fleet::new(settings, workers);
            let (slow, fast) = (5 * SECOND, 100 * MS);
            let calls = [(FAILURE, slow), (Outcome::Success, slow), (FAILURE, fast), (Outcome::Success, fast)];
            for (call, (outcome, took)) in calls.into_iter().enumerate() {
                assert_eq!(fleet.call_taking(call % workers, outcome, took), State::Closed);
            }
            assert_eq!(fleet.call_taking(4 % workers, Outcome::Success, slow), State::Open);
            assert_eq!(fleet.last_reason(), TripReason::SlowCallRate);
            assert_eq!(fleet.last().counts, Counts { calls: 5, failures: 2, slow: 3 });
        }
    }
}

#[test]
fn a_call_of_exactly_the_slow_duration_is_not_slow() {
    let settings = Settings { slow_call_duration: Some(SECOND), slow_call_rate_threshold: 1, ..quiet() };
    let mut fleet = Fleet::new(settings, 1);
    assert_eq!(fleet.call_taking(0, Outcome::Success, SECOND), State::Closed);
    assert_eq!(fleet.call_taking(0, Outcome::Success, SECOND + 1), State::Open);
}

/// linkerd `success_rate.rs`: `cold_start_holds_until_min_requests` and `failure_burst_trips_independent_of_rate`.
#[test]
fn a_burst_of_failures_trips_at_the_same_call_at_any_pace() {
    for pace in [0, 1, SECOND] {
        let mut fleet = Fleet::new(half_of(5, Window::Time(10 * SECOND)), 2);
        for call in 0..4 {
            assert_eq!(fleet.call(call % 2, FAILURE), State::Closed, "pace {pace}");
            fleet.now += pace;
        }
        assert_eq!(fleet.call(0, FAILURE), State::Open, "pace {pace}");
    }
}

/// linkerd `success_rate.rs`: `samples_age_out_after_window`.
#[test]
fn failures_older_than_the_window_do_not_count() {
    let mut fleet = Fleet::new(half_of(5, Window::Time(10 * SECOND)), 2);
    for _ in 0..4 {
        fleet.call(0, FAILURE);
    }
    fleet.now += 11 * SECOND;
    for _ in 0..4 {
        assert_eq!(fleet.call(1, FAILURE), State::Closed);
    }
}

#[test]
fn one_call_more_or_less_at_the_threshold_decides() {
    for window in [Window::Time(10 * SECOND), Window::Count(100)] {
        for workers in [1, 2, 4, 8] {
            for failures in [49, 50] {
                let mut fleet = Fleet::new(half_of(100, window), workers);
                let mut calls: Vec<_> =
                    (0..100).map(|i| if i < failures { FAILURE } else { Outcome::Success }).collect();
                fleet.rng.shuffle(&mut calls);
                for (i, outcome) in calls.into_iter().enumerate() {
                    assert_eq!(fleet.state(0), State::Closed, "call {i}");
                    fleet.call(i % workers, outcome);
                }
                let expected = if failures == 50 { State::Open } else { State::Closed };
                assert_eq!(fleet.state(workers - 1), expected, "{failures} failures, {workers} workers, {window:?}");
            }
        }
    }
}

#[test]
fn failures_in_a_row_are_counted_over_all_workers() {
    for window in both_windows() {
        for workers in [1, 2, 4, 8] {
            let mut fleet = Fleet::new(Settings { window, ..consecutive(5) }, workers);
            for call in 0..4 {
                assert_eq!(fleet.call(call % workers, FAILURE), State::Closed);
            }
            fleet.call(5 % workers, Outcome::Success);
            for call in 0..4 {
                assert_eq!(fleet.call(call % workers, FAILURE), State::Closed);
            }
            assert_eq!(fleet.call(3 % workers, FAILURE), State::Open);
            assert_eq!(fleet.last_reason(), TripReason::ConsecutiveFailures);
        }
    }
}

#[test]
fn a_run_of_failures_has_no_time_limit() {
    let mut fleet = Fleet::new(Settings { window: Window::Time(SECOND), ..consecutive(3) }, 2);
    for call in 0..2 {
        assert_eq!(fleet.call(call, FAILURE), State::Closed);
        fleet.now += 100 * SECOND;
    }
    assert_eq!(fleet.call(0, FAILURE), State::Open);
}

/// linkerd `unified.rs`: consecutive failures are checked before the rate, and need no minimum of calls.
#[test]
fn consecutive_failures_are_named_before_the_rate() {
    for window in both_windows() {
        let mut fleet = Fleet::new(Settings { consecutive_failures: 3, ..half_of(3, window) }, 1);
        for _ in 0..3 {
            fleet.call(0, FAILURE);
        }
        assert_eq!(fleet.last_reason(), TripReason::ConsecutiveFailures);
    }
}

/// linkerd `unified.rs`: 429 and RESOURCE_EXHAUSTED degrade the rate and are no hard failures.
#[test]
fn an_upstream_that_limits_its_rate_is_judged_by_the_rate_only() {
    for window in both_windows() {
        let mut fleet = Fleet::new(Settings { consecutive_failures: 3, ..half_of(5, window) }, 2);
        for call in 0..4 {
            assert_eq!(fleet.call(call % 2, RATE_LIMITED), State::Closed);
        }
        assert_eq!(fleet.call(0, RATE_LIMITED), State::Open);
        assert_eq!(fleet.last_reason(), TripReason::FailureRate);

        let mut fleet = Fleet::new(Settings { window, ..consecutive(3) }, 2);
        for outcome in [FAILURE, FAILURE, RATE_LIMITED, FAILURE, FAILURE] {
            assert_eq!(fleet.call(0, outcome), State::Closed);
        }
        assert_eq!(fleet.call(1, FAILURE), State::Open);
    }
}

#[test]
fn a_count_window_caps_the_minimum_at_its_length() {
    let mut fleet = Fleet::new(half_of(100, Window::Count(3)), 1);
    fleet.call(0, FAILURE);
    fleet.call(0, FAILURE);
    assert_eq!(fleet.call(0, FAILURE), State::Open);
}

#[test]
fn thresholds_of_zero_never_trip() {
    for window in both_windows() {
        let mut fleet = Fleet::new(Settings { window, ..quiet() }, 1);
        for _ in 0..100 {
            assert_eq!(fleet.call(0, FAILURE), State::Closed);
        }
    }
}

#[test]
fn a_breaker_that_closed_judges_new_calls_only() {
    for window in both_windows() {
        let mut fleet = Fleet::new(half_of(5, window), 2);
        for _ in 0..5 {
            fleet.call(0, FAILURE);
        }
        fleet.wait_out(1);
        assert_eq!(fleet.call(1, Outcome::Success), State::Closed);
        for call in 0..4 {
            assert_eq!(fleet.call(call % 2, FAILURE), State::Closed);
        }
        assert_eq!(fleet.call(0, FAILURE), State::Open);
        assert_eq!(fleet.last().counts.calls, 5);
    }
}

#[test]
fn forced_open_rejects_and_says_so() {
    let mut fleet = Fleet::new(Settings { mode: Mode::ForcedOpen, ..quiet() }, 1);
    let denied = fleet.ask(0).unwrap_err();
    assert_eq!((denied.reason(), denied.retry_in(), denied.state()), ("forced_open", None, State::Open));
    assert_eq!(fleet.state(0), State::Open);
}

#[test]
fn disabled_lets_everything_through_and_counts_nothing() {
    let mut fleet = Fleet::new(Settings { mode: Mode::Disabled, ..consecutive(1) }, 1);
    for _ in 0..100 {
        assert_eq!(fleet.call(0, FAILURE), State::Closed);
    }
    assert!(fleet.transitions.is_empty());
}

#[test]
fn a_healthy_upstream_is_never_cut_off() {
    for (window, seed) in [(Window::Time(10 * SECOND), 11), (Window::Count(100), 12)] {
        let settings =
            Settings { window, slow_call_duration: Some(SECOND), consecutive_failures: 10, ..Settings::default() };
        let mut fleet = Fleet::seeded(settings, 8, seed);
        for _ in 0..100_000 {
            let worker = fleet.rng.below(8);
            fleet.now += fleet.rng.below(20 * MS as usize) as u64;
            let outcome = if fleet.rng.below(100) < 2 { FAILURE } else { Outcome::Success };
            let took = if fleet.rng.below(100) < 30 { 2 * SECOND } else { 1 };
            assert_eq!(fleet.call_taking(worker, outcome, took), State::Closed);
        }
        // The same run with an ill upstream must end otherwise, or the above proves nothing.
        let mut calls = 0;
        while fleet.state(0) == State::Closed {
            let outcome = if fleet.rng.below(100) < 80 { FAILURE } else { Outcome::Success };
            fleet.call(calls % 8, outcome);
            calls += 1;
        }
    }
}
