//! Any sequence of calls, over any workers, trips exactly where a list of the calls says so.

use proptest::prelude::*;
use tidegate::control::Nanos;
use tidegate::control::circuit_breaker::{Counts, Outcome, Settings, State, TripReason, Window};

use super::fleet::{FAILURE, Fleet, MS, SECOND};

#[derive(Debug, Clone, Copy)]
struct Call {
    worker: usize,
    after: Nanos,
    outcome: Outcome,
    took: Nanos,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Success),
        2 => Just(FAILURE),
        1 => Just(Outcome::RateLimited { retry_after: None }),
    ];
    let after = prop_oneof![8 => 0..300 * MS, 1 => 0..12 * SECOND];
    let took = prop_oneof![2 => Just(0), 1 => Just(2 * SECOND)];
    let call = (0_usize..4, after, outcome, took);
    prop::collection::vec(call.prop_map(|(worker, after, outcome, took)| Call { worker, after, outcome, took }), 1..120)
}

fn settings() -> impl Strategy<Value = Settings> {
    let window = prop_oneof![(1..20_u64).prop_map(|s| Window::Time(s * SECOND)), (1..30_u32).prop_map(Window::Count)];
    let thresholds = (0..=10_000_u32, 0..=10_000_u32, 0..6_u32);
    (window, 1..30_u32, thresholds, any::<bool>()).prop_map(
        |(window, minimum_calls, (failed, slow, run), judge_slow)| Settings {
            window,
            minimum_calls,
            failure_rate_threshold: failed,
            slow_call_duration: judge_slow.then_some(SECOND),
            slow_call_rate_threshold: slow,
            consecutive_failures: run,
            ..Settings::default()
        },
    )
}

/// What the breaker has to say after these calls, the last just ended at `now`.
fn expected(settings: &Settings, calls: &[(Nanos, Call)], now: Nanos) -> Option<(TripReason, Counts)> {
    let window: Vec<&Call> = match settings.window {
        Window::Time(duration) => {
            let bucket = duration / 10;
            calls.iter().filter(|(at, _)| at / bucket + 9 >= now / bucket).map(|(_, call)| call).collect()
        }
        Window::Count(length) => calls.iter().rev().take(length as usize).map(|(_, call)| call).collect(),
    };
    let minimum = match settings.window {
        Window::Time(_) => settings.minimum_calls,
        Window::Count(length) => settings.minimum_calls.min(length),
    };
    let all = window.len();
    let failures = window.iter().filter(|call| call.outcome != Outcome::Success).count();
    let slow = window.iter().filter(|call| settings.slow_call_duration.is_some_and(|limit| call.took > limit)).count();
    let run = calls.iter().rev().take_while(|(_, call)| call.outcome == FAILURE).count();
    let reaches = |part: usize, threshold: u32| {
        threshold > 0 && all >= minimum as usize && part * 10_000 >= threshold as usize * all
    };
    let reason = if settings.consecutive_failures > 0 && run >= settings.consecutive_failures as usize {
        TripReason::ConsecutiveFailures
    } else if reaches(failures, settings.failure_rate_threshold) {
        TripReason::FailureRate
    } else if settings.slow_call_duration.is_some() && reaches(slow, settings.slow_call_rate_threshold) {
        TripReason::SlowCallRate
    } else {
        return None;
    };
    let slow = if settings.slow_call_rate_threshold > 0 { slow as u64 } else { 0 };
    Some((reason, Counts { calls: all as u64, failures: failures as u64, slow }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_breaker_trips_exactly_where_a_list_of_its_calls_does(settings in settings(), calls in calls(), start in 0..u64::MAX / 2) {
        let mut fleet = Fleet::new(settings.clone(), 4);
        fleet.now = start;
        let mut ended = Vec::new();
        for call in calls {
            fleet.now += call.after;
            let state = fleet.call_taking(call.worker, call.outcome, call.took);
            ended.push((fleet.now, call));
            match expected(&settings, &ended, fleet.now) {
                None => prop_assert_eq!(state, State::Closed),
                Some((reason, counts)) => {
                    prop_assert_eq!(state, State::Open);
                    prop_assert_eq!((fleet.last().reason, fleet.last().counts), (reason, counts));
                    return Ok(());
                }
            }
        }
    }
}
