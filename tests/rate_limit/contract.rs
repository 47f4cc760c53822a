//! What one client sees of a limit over time.

use tidegate::control::Nanos;
use tidegate::control::rate_limit::{Algorithm, KeyHash, Quota};

use super::support::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NONE: KeyHash = KeyHash::NONE;
const ALGORITHMS: [Algorithm; 3] = [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::FixedWindow];

fn bucket(quota: Quota) -> Solo {
    Solo::new(&settings(Algorithm::TokenBucket, quota, 1))
}

#[test]
fn rates_that_do_not_divide_a_second_do_not_drift_by_one_token() {
    for (count, period) in [(7, SECOND), (999_983, SECOND), (100_000, 24 * HOUR), (1_000_000_007, SECOND)] {
        let mut solo = bucket(quota(count, period, 10));
        let (mut now, mut granted) = (0, 0u64);
        while granted < 20_000 {
            now += solo.wait(NONE, 1, now).unwrap();
            while solo.takes(NONE, 1, now) {
                granted += 1;
            }
            let due = 10 + u128::from(now) * u128::from(count) / u128::from(period);
            assert_eq!(u128::from(granted), due, "{count} per {period} at {now}");
        }
    }
}

#[test]
fn a_billion_a_second_is_one_each_nanosecond() {
    let mut solo = bucket(quota(1_000_000_000, SECOND, 1_000));
    assert!(solo.takes(NONE, 1_000, 5));
    assert!(!solo.takes(NONE, 1, 5));
    assert!(solo.takes(NONE, 1, 6));
    assert!(!solo.takes(NONE, 2, 7));
    assert!(solo.takes(NONE, 2, 8));
}

#[test]
fn a_pause_of_five_seconds_yields_the_burst_and_no_more() {
    for algorithm in ALGORITHMS {
        let mut solo = Solo::new(&settings(algorithm, quota(10, SECOND, 10), 1));
        let granted = |solo: &mut Solo, now| (0..100).filter(|_| solo.takes(NONE, 1, now)).count();
        assert_eq!(granted(&mut solo, SECOND), 10);
        assert_eq!(granted(&mut solo, 6 * SECOND), 10, "{algorithm:?}");
    }
}

#[test]
fn a_clock_that_steps_back_adds_nothing_and_delays_by_no_more_than_the_step() {
    for algorithm in ALGORITHMS {
        let mut solo = Solo::new(&settings(algorithm, quota(10, SECOND, 10), 1));
        assert!(solo.takes(NONE, 4, 100 * SECOND));
        assert_eq!(solo.remaining(NONE, 90 * SECOND), 6, "{algorithm:?}");
        assert!(solo.takes(NONE, 6, 90 * SECOND));
        assert!(!solo.takes(NONE, 1, 90 * SECOND));
        let wait = solo.wait(NONE, 10, 90 * SECOND).unwrap();
        assert!(wait <= 12 * SECOND, "{algorithm:?}: {wait}");
        assert!(solo.takes(NONE, 10, 90 * SECOND + wait));
    }
}

#[test]
fn a_cost_above_the_capacity_never_conforms_and_takes_nothing() {
    for algorithm in ALGORITHMS {
        let mut solo = Solo::new(&settings(algorithm, quota(5, SECOND, 5), 1));
        for cost in [6, u64::MAX] {
            assert_eq!(solo.charge(NONE, cost, 0).unwrap_err().wait, None);
        }
        assert_eq!(solo.remaining(NONE, 0), 5);
    }
}

#[test]
fn the_largest_numbers_neither_panic_nor_open_the_limit() {
    let most = quota(u64::MAX, u64::MAX, u64::MAX);
    for algorithm in ALGORITHMS {
        for quota in [most, quota(1, u64::MAX, 1), quota(u64::MAX, 1, 1), quota(1, 1, u64::MAX), quota(0, 0, 0)] {
            for now in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
                let mut solo = Solo::new(&settings(algorithm, quota, 1));
                for cost in [0, 1, u64::MAX] {
                    let _ = solo.wait(NONE, cost, now);
                    if let Ok((mut charged, _)) = solo.limiter.reserve(&solo.share, NONE, 0, cost, u64::MAX, now) {
                        let _ = solo.limiter.charge_late(&solo.share, &mut charged, u64::MAX, now);
                        let _ = solo.limiter.refund(&solo.share, charged, u64::MAX);
                    }
                }
            }
        }
        let mut solo = Solo::new(&settings(algorithm, quota(2, SECOND, 2), 1));
        let granted = (0..10).filter(|_| solo.takes(NONE, 1, u64::MAX)).count();
        assert!(granted <= 2, "{algorithm:?} let {granted} through at the end of time");
    }
}

#[test]
fn a_cost_charged_late_has_to_refill_before_anything_passes() {
    let at = |algorithm| {
        let mut solo = Solo::new(&settings(algorithm, quota(10, 10 * SECOND, 10), 1));
        let mut charged = solo.charge(NONE, 1, 0).unwrap();
        assert!(solo.limiter.charge_late(&solo.share, &mut charged, 29, 0).is_ok());
        assert_eq!(solo.remaining(NONE, 0), 0);
        let wait = solo.wait(NONE, 1, 0).unwrap();
        assert_eq!((charged.budget.remaining, charged.budget.grows_in), (0, Some(wait)));
        assert!(!solo.takes(NONE, 1, wait - 1));
        assert!(solo.takes(NONE, 1, wait));
        wait
    };
    assert_eq!(at(Algorithm::TokenBucket), 21 * SECOND, "30 are used, 10 were there: 20 to refill and one to take");
    assert_eq!(at(Algorithm::FixedWindow), 30 * SECOND, "30 are three windows' worth");
    assert_eq!(at(Algorithm::SlidingWindow), 30 * SECOND + 1, "the third fades as the fourth window begins");
}

#[test]
fn paced_requests_are_spaced_by_the_rate_and_refused_beyond_the_longest_wait() {
    let mut solo = bucket(quota(10, SECOND, 1));
    let mut reserve = |now| solo.limiter.reserve(&solo.share, NONE, 0, 1, 250 * MS, now).map(|(_, at)| at);
    assert_eq!(reserve(0), Ok(0));
    assert_eq!(reserve(0), Ok(100 * MS));
    assert_eq!(reserve(0), Ok(200 * MS));
    assert_eq!(reserve(0).map_err(|refused| refused.wait), Err(Some(300 * MS)));
    assert_eq!(reserve(50 * MS), Ok(300 * MS));
}

#[test]
fn paced_requests_of_windows_are_let_through_in_the_first_window_with_room() {
    let mut solo = Solo::new(&settings(Algorithm::FixedWindow, quota(2, SECOND, 1), 1));
    let mut reserve = |cost, now| solo.limiter.reserve(&solo.share, NONE, 0, cost, 5 * SECOND, now).map(|(_, at)| at);
    assert_eq!(reserve(1, 0), Ok(0));
    assert_eq!(reserve(2, 0), Ok(SECOND));
    assert_eq!(reserve(1, 0), Ok(2 * SECOND), "nothing overtakes");
    assert_eq!(reserve(1, 2 * SECOND), Ok(2 * SECOND));
    assert_eq!(reserve(1, 2 * SECOND), Ok(3 * SECOND));
}

#[test]
fn a_sliding_window_agrees_with_an_exact_log_where_requests_come_evenly() {
    let mut solo = Solo::new(&settings(Algorithm::SlidingWindow, quota(100, SECOND, 1), 1));
    let (mut log, mut granted): (Vec<Nanos>, u64) = (Vec::new(), 0);
    let spacing = SECOND / 150;
    for request in 0..150 * 60 {
        let now = request * spacing;
        log.retain(|&at| now - at < SECOND);
        if log.len() < 100 {
            log.push(now);
        }
        granted += u64::from(solo.takes(NONE, 1, now));
    }
    // The first window is exact for both; a log then repeats its own gaps for ever, 100 a second.
    let exact = 60 * 100;
    assert!(granted.abs_diff(exact) <= exact * 6 / 100, "{granted} of {exact}: the published mean error is 6 %");
    assert!(granted <= exact);
}

#[test]
fn a_refund_that_comes_after_the_bucket_would_have_overflowed_gives_nothing_back() {
    let mut solo = bucket(quota(1, SECOND, 2));
    let charged = solo.charge(NONE, 1, 0).unwrap();
    assert!(solo.takes(NONE, 2, SECOND), "refilled meanwhile");
    assert!(solo.limiter.refund(&solo.share, charged, SECOND).is_ok());
    assert!(!solo.takes(NONE, 1, SECOND));
}

#[test]
fn a_refund_of_an_exhausted_bucket_is_whole_also_when_it_comes_late() {
    let mut solo = bucket(quota(10, SECOND, 10));
    assert!(solo.takes(NONE, 9, 0));
    let charged = solo.charge(NONE, 1, 0).unwrap();
    assert!(solo.limiter.refund(&solo.share, charged, 100 * MS).is_ok());
    assert_eq!(solo.remaining(NONE, 100 * MS), 2);
}

#[test]
fn a_late_refund_that_nothing_came_before_is_as_if_there_had_been_no_charge() {
    for algorithm in ALGORITHMS {
        let told = |refund: bool, later: Nanos| {
            let mut solo = Solo::new(&settings(algorithm, quota(4, 4 * SECOND, 4), 1));
            assert!(solo.takes(NONE, 1, SECOND));
            if refund {
                let charged = solo.charge(NONE, 2, SECOND).unwrap();
                assert!(solo.limiter.refund(&solo.share, charged, later).is_ok());
            }
            solo.limiter.check(&solo.share, NONE, 0, 4, later)
        };
        for later in (4..40).map(|quarter| quarter * SECOND / 4) {
            assert_eq!(told(true, later), told(false, later), "{algorithm:?} at {later}");
        }
    }
}

#[test]
fn a_paced_request_is_never_held_longer_than_asked_also_where_another_worker_is_ahead_in_time() {
    let mut solo = bucket(quota(10, SECOND, 1));
    assert!(solo.takes(NONE, 1, 50 * MS));
    // 100 ms from the newest reading of the clock are 150 from this one.
    let refused = solo.limiter.reserve(&solo.share, NONE, 0, 1, 120 * MS, 0).map(|(_, at)| at).unwrap_err();
    assert_eq!(refused.wait, Some(150 * MS));
    assert_eq!(solo.limiter.reserve(&solo.share, NONE, 0, 1, 150 * MS, 0).map(|(_, at)| at), Ok(150 * MS));
}

#[test]
fn a_refund_of_a_window_that_is_gone_changes_nothing() {
    let mut solo = Solo::new(&settings(Algorithm::FixedWindow, quota(2, SECOND, 1), 1));
    let charged = solo.charge(NONE, 1, 0).unwrap();
    assert!(solo.takes(NONE, 2, SECOND));
    assert!(solo.limiter.refund(&solo.share, charged, SECOND).is_ok());
    assert!(!solo.takes(NONE, 1, SECOND));
}

#[test]
fn a_refund_comes_off_the_window_that_fades() {
    let mut solo = Solo::new(&settings(Algorithm::SlidingWindow, quota(4, SECOND, 1), 1));
    let charged = solo.charge(NONE, 4, 0).unwrap();
    assert_eq!(solo.remaining(NONE, SECOND + SECOND / 2), 2);
    assert!(solo.limiter.refund(&solo.share, charged, SECOND).is_ok());
    assert_eq!(solo.remaining(NONE, SECOND), 4);
}

#[test]
fn refunds_of_several_requests_do_not_add_up_to_more_than_the_bucket_holds() {
    let mut solo = bucket(quota(1, 10, 2));
    let first = solo.charge(NONE, 1, 0).unwrap();
    let second = solo.charge(NONE, 1, 0).unwrap();
    assert!(solo.limiter.refund(&solo.share, first, 0).is_ok());
    assert!(solo.takes(NONE, 1, 9));
    // Of the second nothing is due but a tenth of a token: without both, the bucket would have been full at 9.
    assert!(solo.limiter.refund(&solo.share, second, 9).is_ok());
    assert_eq!((0..3).filter(|_| solo.takes(NONE, 1, 10)).count(), 1);
}

#[test]
fn what_a_response_adds_is_owed_also_where_the_time_it_takes_to_refill_passes_64_bits() {
    let day = 24 * HOUR;
    let mut solo = bucket(quota(1, day, 1));
    let mut charged = solo.charge(NONE, 1, 0).unwrap();
    // So many days are 2^64 nanoseconds and 21 minutes.
    assert!(solo.limiter.charge_late(&solo.share, &mut charged, 213_504, 0).is_ok());
    assert!(!solo.takes(NONE, 1, 100 * day));
    // The control: what fits refills in its time.
    let mut solo = bucket(quota(1, day, 1));
    let mut charged = solo.charge(NONE, 1, 0).unwrap();
    assert!(solo.limiter.charge_late(&solo.share, &mut charged, 98, 0).is_ok());
    assert!(!solo.takes(NONE, 1, 98 * day) && solo.takes(NONE, 1, 100 * day));
}
