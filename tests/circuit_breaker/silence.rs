//! Half-open, and the upstream says nothing, or says it too late.

use tidegate::control::Nanos;
use tidegate::control::circuit_breaker::{Outcome, Permit, State, TripReason};

use super::fleet::{FAILURE, Fleet, SECOND};
use super::probes::{probing, tripped};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TIMEOUT: Nanos = 10 * SECOND;

/// A probe of this worker.
fn probe(fleet: &mut Fleet, worker: usize) -> Permit {
    let permit = fleet.ask(worker).unwrap();
    assert!(permit.is_probe());
    permit
}

fn leaves_after(fleet: &mut Fleet, worker: usize, waited: Nanos) {
    let permit = probe(fleet, worker);
    fleet.now += waited;
    fleet.cancel(worker, permit);
}

fn timed_out(fleet: &mut Fleet) -> bool {
    match fleet.state(1) {
        State::Open => {
            assert_eq!((fleet.last_reason(), fleet.transitions.len()), (TripReason::ProbeTimeout, 2));
            let wait = fleet.wait(1);
            assert!((1_800_000_000..=2_200_000_000).contains(&wait), "a failed round doubles the wait: {wait}");
            true
        }
        State::HalfOpen => false,
        State::Closed => panic!("closed"),
    }
}

/// The headers of an answer after the timeout made a good probe of it where its body was still to come.
#[test]
fn good_headers_after_the_timeout_are_no_answer_although_a_body_follows() {
    for (after, expected) in [(TIMEOUT - 1, false), (TIMEOUT, true), (2 * TIMEOUT, true)] {
        let mut fleet = tripped(probing(2), 2, 20);
        let mut late = probe(&mut fleet, 0);
        fleet.now += after;
        fleet.hear(0, &mut late, after);
        assert_eq!(timed_out(&mut fleet), expected, "heard after {after}");
        fleet.end(0, late, Outcome::Success);
        assert_eq!(timed_out(&mut fleet), expected, "ended after {after}");
    }
}

/// A cancelled probe gave its place back however long it had waited, so that nobody noticed that its time was over.
#[test]
fn a_client_that_leaves_after_the_timeout_finds_that_it_is_over() {
    for (after, expected) in [(TIMEOUT - 1, false), (TIMEOUT, true)] {
        for ignored in [false, true] {
            let mut fleet = tripped(probing(2), 2, 21);
            let late = probe(&mut fleet, 0);
            fleet.now += after;
            if ignored {
                fleet.ignore(0, late)
            } else {
                fleet.cancel(0, late)
            }
            assert_eq!(timed_out(&mut fleet), expected, "left after {after}");
        }
    }
}

/// Each client left before the timeout, each gave its place to the next, and so the round never ended.
#[test]
fn an_upstream_that_hangs_fails_the_round_although_every_client_leaves_before_the_timeout() {
    for (waits, cancels) in [(4 * SECOND, 3), (SECOND, 10), (SECOND / 10, 100)] {
        let mut fleet = tripped(probing(2), 2, 22);
        for turn in 1..cancels {
            leaves_after(&mut fleet, turn % 2, waits);
            // Time in which nobody waits proves nothing.
            fleet.now += 3 * TIMEOUT;
            fleet.tick(turn % 2);
            assert!(!timed_out(&mut fleet), "{turn} of {cancels}");
        }
        leaves_after(&mut fleet, cancels % 2, waits);
        assert!(timed_out(&mut fleet));
    }
}

#[test]
fn time_in_which_several_wait_counts_once() {
    let mut fleet = tripped(probing(3), 2, 23);
    let first = probe(&mut fleet, 0);
    fleet.now += 2 * SECOND;
    let second = probe(&mut fleet, 1);
    let third = probe(&mut fleet, 0);
    // From 0 to 9.999 s somebody waited; each for himself that is 2, 7 and 7.999 seconds more.
    fleet.now += 5 * SECOND;
    fleet.cancel(1, second);
    fleet.now += 3 * SECOND - 1;
    fleet.cancel(0, first);
    fleet.cancel(0, third);
    assert!(!timed_out(&mut fleet));
    leaves_after(&mut fleet, 1, 1);
    assert!(timed_out(&mut fleet), "one nanosecond was missing");
}

#[test]
fn any_sign_of_life_ends_the_silence() {
    type Sign = fn(&mut Fleet, Permit);
    let signs: [(&str, Sign); 3] = [
        ("an answer that is ignored", |fleet, permit| fleet.ignore(0, permit)),
        ("a good answer", |fleet, permit| fleet.end(0, permit, Outcome::Success)),
        ("good headers", |fleet, mut permit| fleet.hear(0, &mut permit, 0)),
    ];
    for (name, sign) in signs {
        let mut fleet = tripped(probing(3), 2, 24);
        leaves_after(&mut fleet, 1, 9 * SECOND);
        let permit = probe(&mut fleet, 0);
        sign(&mut fleet, permit);
        leaves_after(&mut fleet, 1, 9 * SECOND);
        assert!(!timed_out(&mut fleet), "{name}");
        leaves_after(&mut fleet, 1, SECOND);
        assert!(timed_out(&mut fleet), "{name}");
    }
    // The control: a probe that is never sent is none.
    let mut fleet = tripped(probing(3), 2, 24);
    leaves_after(&mut fleet, 1, 9 * SECOND);
    leaves_after(&mut fleet, 0, 0);
    leaves_after(&mut fleet, 1, SECOND);
    assert!(timed_out(&mut fleet));
}

#[test]
fn a_probe_has_all_its_time_whatever_became_of_those_before() {
    let mut fleet = tripped(probing(1), 2, 25);
    leaves_after(&mut fleet, 0, 9 * SECOND);
    let patient = probe(&mut fleet, 1);
    fleet.now += 9 * SECOND;
    fleet.tick(0);
    assert!(!timed_out(&mut fleet));
    fleet.end(1, patient, Outcome::Success);
    assert_eq!(fleet.state(0), State::Closed);
}

#[test]
fn the_silence_of_one_round_is_not_held_against_the_next() {
    let mut fleet = tripped(probing(1), 2, 26);
    leaves_after(&mut fleet, 0, 9 * SECOND);
    let failing = probe(&mut fleet, 0);
    fleet.end(0, failing, FAILURE);
    fleet.wait_out(0);
    leaves_after(&mut fleet, 0, 9 * SECOND);
    assert_eq!(fleet.state(1), State::HalfOpen);
}
