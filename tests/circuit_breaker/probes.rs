//! Half-open: how many probes pass over all workers, and what their answers do.

use tidegate::control::circuit_breaker::{Counts, Denied, Outcome, Permit, Settings, State, TripReason, Window};

use super::fleet::{FAILURE, Fleet, SECOND, consecutive, half_of};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

pub fn probing(probes: u32) -> Settings {
    Settings { probes, ..consecutive(1) }
}

/// Tripped, and the open time is over.
pub fn tripped(settings: Settings, workers: usize, seed: u64) -> Fleet {
    let mut fleet = Fleet::seeded(settings, workers, seed);
    fleet.call(0, FAILURE);
    fleet.wait_out(0);
    fleet.transitions.clear();
    fleet
}

fn ask_all(fleet: &mut Fleet, requests: usize, workers: usize) -> Vec<(usize, Permit)> {
    let mut permits = Vec::new();
    for _ in 0..requests {
        let worker = fleet.rng.below(workers);
        match fleet.ask(worker) {
            Ok(permit) => permits.push((worker, permit)),
            Err(denied) => assert!(matches!(denied, Denied::HalfOpen { .. }), "{denied:?}"),
        }
    }
    permits
}

/// resilience4j `CircuitBreakerStateMachineTest.shouldOnlyPermitFourCallsInHalfOpenState`, over workers.
#[test]
fn of_a_thousand_waiting_requests_exactly_the_probes_pass() {
    for workers in [1, 2, 4, 8] {
        for probes in [1, 3, 4, 256] {
            let mut fleet = tripped(probing(probes), workers, u64::from(probes));
            let permits = ask_all(&mut fleet, 1_000, workers);
            assert_eq!(permits.len(), probes as usize, "{workers} workers");
            assert!(permits.iter().all(|(_, permit)| permit.is_probe()));
            assert_eq!(fleet.transitions.len(), 1, "one worker reports the change");
            for worker in 0..workers {
                assert_eq!(fleet.state(worker), State::HalfOpen);
            }
        }
    }
}

#[test]
fn the_breaker_closes_with_the_last_good_probe_and_not_before() {
    for workers in [1, 2, 4, 8] {
        let mut fleet = tripped(probing(3), workers, 2);
        let mut permits = ask_all(&mut fleet, 100, workers);
        fleet.rng.shuffle(&mut permits);
        for (answered, (worker, permit)) in permits.into_iter().enumerate() {
            assert_eq!(fleet.state(0), State::HalfOpen, "{answered} answered");
            assert!(fleet.ask(0).is_err(), "an answer frees no place");
            fleet.end(worker, permit, Outcome::Success);
        }
        for worker in 0..workers {
            assert_eq!(fleet.state(worker), State::Closed);
            assert!(!fleet.ask(worker).unwrap().is_probe());
        }
        let changes: Vec<_> = fleet.transitions.iter().map(|t| (t.generation, t.from, t.to)).collect();
        assert_eq!(changes, [(2, State::Open, State::HalfOpen), (3, State::HalfOpen, State::Closed)]);
    }
}

#[test]
fn one_bad_probe_opens_again_whatever_the_others_say() {
    for outcome in [FAILURE, Outcome::RateLimited { retry_after: None }] {
        let mut fleet = tripped(probing(3), 2, 3);
        let permits = ask_all(&mut fleet, 100, 2);
        fleet.end(permits[0].0, permits[0].1, Outcome::Success);
        fleet.end(permits[1].0, permits[1].1, outcome);
        assert_eq!((fleet.state(0), fleet.state(1)), (State::Open, State::Open));
        assert_eq!(fleet.last_reason(), TripReason::ProbeFailed);
        assert_eq!(fleet.last().counts, Counts { calls: 2, failures: 1, slow: 0 });
        fleet.end(permits[2].0, permits[2].1, Outcome::Success);
        assert_eq!(fleet.state(0), State::Open);
    }
}

/// resilience4j `CircuitBreakerStateMachineTest.shouldIncreaseCounterOnReleasePermission`, over workers.
#[test]
fn a_cancelled_probe_gives_its_place_to_any_worker() {
    let mut fleet = tripped(probing(4), 3, 4);
    let permits = ask_all(&mut fleet, 100, 3);
    for worker in 0..3 {
        assert!(fleet.ask(worker).is_err());
    }
    for (worker, permit) in permits {
        fleet.cancel(worker, permit);
        assert!(fleet.ask((worker + 1) % 3).unwrap().is_probe());
        assert!(fleet.ask((worker + 2) % 3).is_err());
    }
}

#[test]
fn a_permit_that_is_used_twice_counts_once() {
    let mut fleet = tripped(probing(2), 1, 5);
    let first = fleet.ask(0).unwrap();
    fleet.end(0, first, Outcome::Success);
    fleet.end(0, first, Outcome::Success);
    fleet.cancel(0, first);
    assert_eq!(fleet.state(0), State::HalfOpen);
    assert!(fleet.ask(0).is_ok());
    assert!(fleet.ask(0).is_err());
}

#[test]
fn a_round_without_probes_waits_for_the_next_request() {
    let mut fleet = tripped(probing(1), 2, 6);
    let permit = fleet.ask(0).unwrap();
    fleet.cancel(0, permit);
    fleet.now += 1_000_000 * SECOND;
    fleet.tick(0);
    assert_eq!(fleet.state(1), State::HalfOpen);
    assert_eq!(fleet.call(1, Outcome::Success), State::Closed);
}

#[test]
fn an_unanswered_probe_fails_when_its_time_is_over_and_no_earlier() {
    for by_tick in [true, false] {
        let mut fleet = tripped(probing(2), 2, 7);
        let _lost = fleet.ask(0).unwrap();
        fleet.now += 4 * SECOND;
        fleet.call(1, Outcome::Success);
        fleet.now += 6 * SECOND - 1;
        fleet.tick(1);
        fleet.tick(0);
        assert_eq!(fleet.state(1), State::HalfOpen);
        fleet.now += 1;
        if by_tick {
            for worker in [1, 0, 1] {
                fleet.tick(worker);
            }
        } else {
            assert!(matches!(fleet.ask(1), Err(Denied::Open { reason: TripReason::ProbeTimeout, .. })));
        }
        assert_eq!(fleet.state(0), State::Open);
        assert_eq!(fleet.transitions.len(), 2, "ticks of several workers make one change");
        assert_eq!(fleet.last_reason(), TripReason::ProbeTimeout);
        let wait = fleet.wait(0);
        assert!((1_800_000_000..=2_200_000_000).contains(&wait), "a failed round doubles the wait: {wait}");
    }
}

#[test]
fn a_probe_with_good_headers_counts_as_good_when_its_time_is_over_whoever_notices() {
    for noticed in ["by a tick", "by a request", "by its own end"] {
        let mut fleet = tripped(probing(2), 2, 10);
        let mut stream = fleet.ask(0).unwrap();
        let mut lost = fleet.ask(1).unwrap();
        fleet.now += SECOND;
        fleet.hear(0, &mut stream, SECOND);
        fleet.hear(1, &mut lost, SECOND);
        fleet.now += 9 * SECOND - 1;
        fleet.tick(0);
        assert_eq!(fleet.state(1), State::HalfOpen, "it may still turn out bad");
        assert!(fleet.ask(1).is_err(), "its place is taken");
        fleet.now += 1;
        match noticed {
            "by a tick" => fleet.tick(1),
            "by a request" => assert!(!fleet.ask(1).unwrap().is_probe()),
            _ => fleet.end(0, stream, FAILURE),
        }
        assert_eq!((fleet.state(0), fleet.state(1)), (State::Closed, State::Closed), "{noticed}");
        assert_eq!(fleet.transitions.len(), 2, "{noticed}");
        // The end comes from another generation.
        fleet.end(1, lost, FAILURE);
        assert_eq!(fleet.state(0), State::Closed);
    }
}

#[test]
fn a_probe_with_good_headers_still_fails_within_its_time_and_is_good_when_its_client_leaves() {
    let streams = |count: usize| {
        let mut fleet = tripped(probing(2), 2, 11);
        for worker in 0..count {
            let mut stream = fleet.ask(worker).unwrap();
            fleet.hear(worker, &mut stream, 0);
            fleet.now += SECOND;
            // It used to give its place back, and so did all that came after it: for good.
            fleet.cancel(worker, stream);
        }
        fleet
    };
    assert_eq!(streams(2).state(0), State::Closed);
    let mut fleet = streams(1);
    let mut next = fleet.ask(1).unwrap();
    assert!(next.is_probe());
    assert!(fleet.ask(0).is_err(), "one is good, and one is out");
    fleet.hear(1, &mut next, 0);
    fleet.now += 9 * SECOND;
    fleet.end(1, next, FAILURE);
    assert_eq!((fleet.state(0), fleet.last_reason()), (State::Open, TripReason::ProbeFailed));
    // The control: what was slow was slow.
    let mut fleet = tripped(Settings { slow_call_duration: Some(SECOND), ..probing(1) }, 2, 11);
    let mut slow = fleet.ask(0).unwrap();
    fleet.hear(0, &mut slow, 2 * SECOND);
    fleet.cancel(0, slow);
    assert_eq!((fleet.state(0), fleet.last_reason()), (State::Open, TripReason::ProbeFailed));
}

#[test]
fn good_headers_of_one_probe_do_not_excuse_the_silence_of_another() {
    let mut fleet = tripped(probing(2), 2, 12);
    let mut stream = fleet.ask(0).unwrap();
    let _silent = fleet.ask(1).unwrap();
    fleet.hear(0, &mut stream, 0);
    fleet.now += 10 * SECOND;
    fleet.tick(1);
    assert_eq!((fleet.state(0), fleet.last_reason()), (State::Open, TripReason::ProbeTimeout));
}

#[test]
fn streaming_probes_that_were_slow_to_their_headers_open_again() {
    let slow = Settings { slow_call_duration: Some(SECOND), slow_call_rate_threshold: 5_000, ..probing(2) };
    for (second, expected) in [(0, State::Open), (2 * SECOND, State::Open)] {
        let mut fleet = tripped(slow.clone(), 1, 13);
        let mut probes = [fleet.ask(0).unwrap(), fleet.ask(0).unwrap()];
        fleet.hear(0, &mut probes[0], 2 * SECOND);
        fleet.hear(0, &mut probes[1], second);
        fleet.now += 10 * SECOND;
        fleet.tick(0);
        assert_eq!((fleet.state(0), fleet.last().counts.slow), (expected, 1 + u64::from(second > 0)));
    }
    let mut fleet = tripped(slow, 1, 14);
    let mut probes = [fleet.ask(0).unwrap(), fleet.ask(0).unwrap()];
    probes.iter_mut().for_each(|probe| fleet.hear(0, probe, SECOND));
    fleet.now += 10 * SECOND;
    fleet.tick(0);
    assert_eq!(fleet.state(0), State::Closed, "a second is not above a second");
}

#[test]
fn each_probe_has_its_own_time() {
    let mut fleet = tripped(probing(2), 1, 8);
    let first = fleet.ask(0).unwrap();
    fleet.now += 9 * SECOND;
    let second = fleet.ask(0).unwrap();
    fleet.end(0, first, Outcome::Success);
    fleet.now += 9 * SECOND;
    fleet.tick(0);
    fleet.end(0, second, Outcome::Success);
    assert_eq!(fleet.state(0), State::Closed);
}

#[test]
fn an_answer_after_the_timeout_is_none_whoever_notices_first() {
    let mut fleet = tripped(probing(1), 2, 9);
    let late = fleet.ask(0).unwrap();
    fleet.now += 10 * SECOND;
    fleet.end(0, late, Outcome::Success);
    assert_eq!(fleet.state(1), State::Open);
    assert_eq!(fleet.last_reason(), TripReason::ProbeTimeout);
}

#[test]
fn a_worker_that_died_with_its_probes_does_not_hang_the_others() {
    let mut fleet = tripped(probing(2), 2, 10);
    let _ = fleet.ask(0).unwrap();
    let _ = fleet.ask(0).unwrap();
    let reborn = fleet.join();
    assert!(matches!(fleet.ask(reborn), Err(Denied::HalfOpen { .. })));
    fleet.now += 10 * SECOND;
    fleet.tick(1);
    assert_eq!(fleet.state(reborn), State::Open);
    fleet.wait_out(reborn);
    fleet.call(reborn, Outcome::Success);
    assert_eq!(fleet.call(1, Outcome::Success), State::Closed);
}

#[test]
fn outcomes_of_earlier_generations_change_nothing() {
    for window in [Window::Time(10 * SECOND), Window::Count(10)] {
        let mut fleet = Fleet::new(Settings { consecutive_failures: 2, probes: 2, ..half_of(4, window) }, 2);
        let closed: Vec<_> = (0..20).map(|i| (i % 2, fleet.ask(i % 2).unwrap())).collect();
        fleet.call(0, FAILURE);
        fleet.call(1, FAILURE);
        fleet.end(closed[0].0, closed[0].1, Outcome::Success);
        assert_eq!(fleet.state(0), State::Open);
        fleet.wait_out(0);

        let probes = [fleet.ask(0).unwrap(), fleet.ask(1).unwrap()];
        fleet.end(closed[1].0, closed[1].1, FAILURE);
        fleet.end(closed[2].0, closed[2].1, Outcome::Success);
        fleet.cancel(closed[3].0, closed[3].1);
        assert_eq!(fleet.state(1), State::HalfOpen);
        assert!(fleet.ask(0).is_err());

        fleet.end(0, probes[0], FAILURE);
        fleet.wait_out(1);
        let again = fleet.ask(1).unwrap();
        fleet.end(1, probes[1], FAILURE);
        fleet.cancel(1, probes[1]);
        assert_eq!(fleet.state(0), State::HalfOpen, "a probe of the round before is late, too");
        fleet.end(1, again, Outcome::Success);
        fleet.call(0, Outcome::Success);

        assert_eq!(fleet.state(0), State::Closed);
        for (worker, permit) in &closed[4..] {
            fleet.end(*worker, *permit, FAILURE);
        }
        fleet.end(0, probes[1], FAILURE);
        assert_eq!(fleet.state(0), State::Closed, "twenty late failures trip nothing");
        assert_eq!(fleet.call(0, FAILURE), State::Closed, "nor do they begin a run");
        assert_eq!(fleet.call(1, FAILURE), State::Open);
        assert_eq!(fleet.last().counts.calls, 2);
    }
}

#[test]
fn a_late_outcome_is_noticed_by_a_worker_that_heard_nothing_since() {
    for window in [Window::Time(10 * SECOND), Window::Count(10)] {
        // Open for so short a time that the window's bucket is still the same when it is over.
        let mut fleet = Fleet::new(Settings { open_duration: SECOND / 10, ..half_of(4, window) }, 2);
        fleet.call(1, Outcome::Success);
        let late: Vec<_> = (0..20).map(|_| fleet.ask(1).unwrap()).collect();
        for _ in 0..3 {
            fleet.call(0, FAILURE);
        }
        fleet.wait_out(0);
        fleet.call(0, Outcome::Success);
        fleet.call(0, Outcome::Success);
        for permit in late {
            fleet.end(1, permit, FAILURE);
        }
        for _ in 0..2 {
            assert_eq!(fleet.call(0, FAILURE), State::Closed);
        }
        assert_eq!(fleet.call(0, FAILURE), State::Open);
        assert_eq!(fleet.last().counts.calls, 4);
    }
}

#[test]
fn a_probe_of_the_round_before_is_late_even_at_the_same_moment() {
    let mut fleet = Fleet::new(Settings { open_duration: 0, open_duration_max: 0, ..probing(2) }, 1);
    let failing = fleet.ask(0).unwrap();
    fleet.end(0, failing, FAILURE);
    let before = [fleet.ask(0).unwrap(), fleet.ask(0).unwrap()];
    fleet.end(0, before[0], FAILURE);
    let after = [fleet.ask(0).unwrap(), fleet.ask(0).unwrap()];
    assert_eq!(after[0].generation(), before[0].generation() + 2);
    fleet.end(0, before[1], FAILURE);
    fleet.cancel(0, before[1]);
    assert!(fleet.ask(0).is_err());
    fleet.end(0, after[0], Outcome::Success);
    fleet.end(0, after[1], Outcome::Success);
    assert_eq!(fleet.state(0), State::Closed);
}

#[test]
fn a_request_makes_one_change_even_where_the_open_time_is_zero() {
    let mut fleet = Fleet::new(Settings { open_duration: 0, open_duration_max: 0, ..probing(1) }, 1);
    let failing = fleet.ask(0).unwrap();
    fleet.end(0, failing, FAILURE);
    let _lost = fleet.ask(0).unwrap();
    fleet.now += 10 * SECOND;
    assert!(matches!(fleet.ask(0), Err(Denied::Open { reason: TripReason::ProbeTimeout, retry_in: 0 })));
    assert!(fleet.ask(0).unwrap().is_probe());
    let states: Vec<_> = fleet.transitions.iter().map(|transition| transition.to).collect();
    assert_eq!(states, [State::Open, State::HalfOpen, State::Open, State::HalfOpen]);
}

#[test]
fn slow_probes_open_again_only_at_the_threshold_of_slow_calls() {
    for (slow, expected) in [(1, State::Closed), (2, State::Open)] {
        let settings = Settings { slow_call_duration: Some(SECOND), slow_call_rate_threshold: 5_000, ..probing(4) };
        let mut fleet = tripped(settings, 2, 11);
        for probe in 0..4 {
            let took = if probe < slow { 2 * SECOND } else { 0 };
            fleet.call_taking(probe % 2, Outcome::Success, took);
        }
        assert_eq!(fleet.state(0), expected, "{slow} of 4 slow");
    }
}

#[test]
fn a_breaker_without_a_slow_duration_closes_whatever_the_slow_threshold() {
    let mut fleet = tripped(Settings { slow_call_rate_threshold: 1, ..probing(1) }, 1, 12);
    assert_eq!(fleet.call_taking(0, Outcome::Success, 3_600 * SECOND), State::Closed);
}
