//! What workers see of each other, which breaker a key has, what it costs, and what happens when sharing fails.

use tidegate::control::circuit_breaker::{
    CircuitBreakers, Denied, OVERFLOW_LABEL, Outcome, Settings, SlotId, State, Window,
};
use tidegate::share::{Memory, ShareError, SharedState};

use super::counting::Counting;
use super::fleet::{FAILURE, Fleet, KEY, SECOND, SplitMix, consecutive, half_of};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn one_trip_opens_every_worker_at_its_next_request() {
    for window in [Window::Time(10 * SECOND), Window::Count(20)] {
        for workers in [2, 4, 8] {
            let mut fleet = Fleet::new(half_of(20, window), workers);
            let in_flight: Vec<_> = (0..workers).map(|worker| fleet.ask(worker).unwrap()).collect();
            for _ in 0..20 {
                fleet.call(0, FAILURE);
            }
            for worker in 0..workers {
                assert!(matches!(fleet.ask(worker), Err(Denied::Open { .. })), "worker {worker}");
            }
            for (worker, permit) in in_flight.into_iter().enumerate() {
                fleet.end(worker, permit, Outcome::Success);
            }
            assert_eq!(fleet.transitions.len(), 1);
        }
    }
}

#[test]
fn a_worker_that_joins_late_or_lost_its_vm_stands_where_the_others_do() {
    let mut fleet = Fleet::new(Settings { probes: 2, ..consecutive(3) }, 1);
    fleet.call(0, FAILURE);
    let second = fleet.join();
    assert_eq!(fleet.call(second, FAILURE), State::Closed);
    let third = fleet.join();
    assert_eq!(fleet.call(third, FAILURE), State::Open, "the run went on");
    let fourth = fleet.join();
    assert_eq!(fleet.state(fourth), State::Open);
    fleet.wait_out(fourth);
    let _ = fleet.ask(0).unwrap();
    let fifth = fleet.join();
    assert!(fleet.ask(fifth).unwrap().is_probe());
    let sixth = fleet.join();
    assert!(matches!(fleet.ask(sixth), Err(Denied::HalfOpen { .. })));
}

#[test]
fn a_worker_that_lost_its_vm_keeps_the_window() {
    for window in [Window::Time(10 * SECOND), Window::Count(20)] {
        let mut fleet = Fleet::new(half_of(20, window), 1);
        for _ in 0..19 {
            fleet.call(0, FAILURE);
            fleet.now += SECOND / 4;
        }
        let reborn = fleet.join();
        assert_eq!(fleet.call(reborn, FAILURE), State::Open);
    }
}

#[test]
fn counters_that_other_lives_of_the_proxy_left_behind_trip_nothing() {
    let share = Memory::new();
    for what in ["ok", "failed", "slow", "changes"] {
        let cell = share.cell(&format!("policy.0.{what}")).unwrap();
        share.add(cell, 1_000_000);
    }
    let mut breakers = CircuitBreakers::new(half_of(5, Window::Time(10 * SECOND)), &share, "policy").unwrap();
    let slot = breakers.slot(&share, KEY, "upstream");
    let rng = &mut SplitMix(1);
    for call in 0..5 {
        assert_eq!(breakers.state(&share, slot), State::Closed, "call {call}");
        let permit = breakers.acquire(&share, slot, 5, rng).unwrap();
        breakers.settle(&share, permit, FAILURE, 0, 5, rng);
    }
    assert_eq!(breakers.state(&share, slot), State::Open);
}

#[test]
fn counters_that_are_reset_from_outside_begin_the_window_anew() {
    for (ok, failed) in [(1_000, 0), (1_000, 5), (0, 9)] {
        let mut fleet = Fleet::new(half_of(10, Window::Time(10 * SECOND)), 2);
        // Some calls before the window, so that it does not begin at zero, and one within.
        let cell = |what: &str| fleet.share.cell(&format!("policy.0.{what}")).unwrap();
        let cells = [cell("ok"), cell("failed")];
        fleet.share.add(cells[0], ok);
        fleet.share.add(cells[1], failed);
        fleet.call(0, Outcome::Success);
        for cell in cells {
            let value = fleet.share.read(cell);
            fleet.share.add(cell, -value);
        }
        for call in 0..300 {
            let outcome = if call % 3 == 0 { FAILURE } else { Outcome::Success };
            assert_eq!(fleet.call(call % 2, outcome), State::Closed, "{ok} {failed}, call {call}");
        }
        for call in 0..200 {
            let _ = fleet.ask(call % 2).map(|permit| fleet.end(call % 2, permit, FAILURE));
        }
        assert_eq!(fleet.state(1), State::Open, "the breaker is not blind afterwards");
    }
}

/// While fewer calls had failed than before the reset, no failure was judged.
#[test]
fn failures_after_a_reset_count_from_the_second_on() {
    let mut fleet = Fleet::new(half_of(10, Window::Time(10 * SECOND)), 2);
    let failed = fleet.share.cell("policy.0.failed").unwrap();
    fleet.share.add(failed, 1_000);
    fleet.call(0, Outcome::Success);
    fleet.share.add(failed, -1_000);
    // The first shows that the window is none; the next ten fill another.
    for call in 0..11 {
        assert_eq!(fleet.state(0), State::Closed, "call {call}");
        fleet.call(call % 2, FAILURE);
    }
    assert_eq!(fleet.state(0), State::Open);
}

/// A worker whose breaker has its window rolled, on shared state that counts what is asked of it.
fn counted(settings: Settings) -> (Counting, CircuitBreakers, SlotId) {
    let share = Counting::default();
    let mut breakers = CircuitBreakers::new(settings, &share, "policy").unwrap();
    let slot = breakers.slot(&share, KEY, "upstream");
    let permit = breakers.acquire(&share, slot, SECOND, &mut SplitMix(1)).unwrap();
    breakers.settle(&share, permit, Outcome::Success, 0, SECOND, &mut SplitMix(1));
    share.take_calls();
    (share, breakers, slot)
}

/// The cost that users read in `docs/circuit-breaking.md`: cell and page operations.
#[test]
fn a_request_costs_what_the_document_on_them_says() {
    let rng = &mut SplitMix(1);
    let (share, mut breakers, slot) = counted(Settings::default());
    assert_eq!(breakers.slot(&share, KEY, "upstream"), slot);
    assert_eq!(share.take_calls(), (0, 0), "a known key");
    let permits = [(); 3].map(|()| breakers.acquire(&share, slot, SECOND, rng).unwrap());
    assert_eq!(share.take_calls(), (3, 0), "three admissions by a closed breaker");
    breakers.settle(&share, permits[0], Outcome::Success, 0, SECOND, rng);
    assert_eq!(share.take_calls(), (3, 0), "a success while nothing in the window has failed");
    breakers.settle(&share, permits[1], FAILURE, 0, SECOND, rng);
    assert_eq!(share.take_calls(), (7, 0), "a failure");
    breakers.settle(&share, permits[2], Outcome::Success, 0, SECOND, rng);
    assert_eq!(share.take_calls(), (7, 0), "a success while something in the window has failed");

    let (share, mut breakers, slot) = counted(Settings { slow_call_duration: Some(1), ..Settings::default() });
    let permits = [(); 3].map(|()| breakers.acquire(&share, slot, SECOND, rng).unwrap());
    share.take_calls();
    for (permit, took, cells, what) in
        [(permits[0], 0, 4, "quick"), (permits[1], 2, 9, "slow"), (permits[2], 0, 8, "quick, after a slow one")]
    {
        breakers.settle(&share, permit, Outcome::Success, took, SECOND, rng);
        assert_eq!(share.take_calls(), (cells, 0), "{what}");
    }

    let (share, mut breakers, slot) = counted(consecutive(2));
    let permits = [(); 2].map(|()| breakers.acquire(&share, slot, SECOND, rng).unwrap());
    share.take_calls();
    breakers.settle(&share, permits[0], FAILURE, 0, SECOND, rng);
    assert_eq!(share.take_calls(), (8, 2), "a failure that may be one of a run");
    breakers.settle(&share, permits[1], FAILURE, 0, SECOND, rng);
    assert!(breakers.acquire(&share, slot, SECOND, rng).is_err());
    share.take_calls();
    assert!(breakers.acquire(&share, slot, SECOND, rng).is_err());
    assert_eq!(share.take_calls(), (1, 0), "a rejection by an open breaker");

    let later = 100 * SECOND;
    let _probe = breakers.acquire(&share, slot, later, rng).unwrap();
    assert!(breakers.acquire(&share, slot, later, rng).is_err());
    share.take_calls();
    assert!(breakers.acquire(&share, slot, later, rng).is_err());
    assert_eq!(share.take_calls(), (1, 0), "a rejection while all probes are out");
}

#[test]
fn a_call_in_a_count_window_costs_one_compare_and_set() {
    let rng = &mut SplitMix(1);
    let (share, mut breakers, slot) = counted(Settings { window: Window::Count(100), ..Settings::default() });
    let permit = breakers.acquire(&share, slot, SECOND, rng).unwrap();
    assert_eq!(share.take_calls(), (1, 0));
    breakers.settle(&share, permit, FAILURE, 0, SECOND, rng);
    assert_eq!(share.take_calls(), (0, 2));
}

#[test]
fn a_key_has_the_same_breaker_on_every_worker_in_any_order_of_sight() {
    let share = Memory::new();
    let settings = Settings { max_keys: 200, ..Settings::default() };
    let mut workers: Vec<_> =
        (0..4).map(|_| CircuitBreakers::new(settings.clone(), &share, "policy").unwrap()).collect();
    let mut slots = std::collections::HashMap::new();
    for round in 0..2 {
        for (number, worker) in workers.iter_mut().enumerate() {
            let mut rng = SplitMix(round * 4 + number as u64);
            let mut keys: Vec<u64> = (0..200).map(|key| key * key + 1).collect();
            rng.shuffle(&mut keys);
            for key in keys {
                let slot = worker.slot(&share, key, key);
                assert_eq!(*slots.entry(key).or_insert(slot), slot, "key {key}, worker {number}");
                assert_eq!(worker.label(slot), Some(key.to_string().as_str()));
            }
        }
    }
    let mut numbers: Vec<_> = slots.values().map(|slot| slot.0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>(), "no two keys share, none is beyond");
}

#[test]
fn keys_beyond_the_most_share_one_breaker_and_cost_nothing_to_find() {
    for max_keys in [0, 1, 63, 64, 65, 130] {
        let share = Counting::default();
        let settings = Settings { max_keys, ..Settings::default() };
        let mut first = CircuitBreakers::new(settings.clone(), &share, "policy").unwrap();
        for key in 1..=u64::from(max_keys) {
            assert_eq!(first.slot(&share, key, "own"), SlotId(key as u32 - 1));
        }
        let mut second = CircuitBreakers::new(settings, &share, "policy").unwrap();
        for workers in [&mut first, &mut second] {
            let shared = workers.slot(&share, 1_000, "crowd");
            assert_eq!((shared, workers.label(shared)), (SlotId(max_keys), Some(OVERFLOW_LABEL)));
            share.take_calls();
            assert_eq!(workers.slot(&share, 1_001, "crowd"), shared);
            assert_eq!(share.take_calls(), (0, 0));
        }
    }
}

#[test]
fn a_worker_that_joins_late_finds_its_key_among_thousands() {
    let share = Memory::new();
    let settings = Settings { max_keys: 6_400, window: Window::Count(1), ..Settings::default() };
    let mut first = CircuitBreakers::new(settings.clone(), &share, "policy").unwrap();
    for key in 1..=6_400 {
        first.slot(&share, key, "");
    }
    let mut second = CircuitBreakers::new(settings, &share, "policy").unwrap();
    assert_eq!(second.slot(&share, 6_400, ""), SlotId(6_399));
    assert_eq!(second.take_errors(), 0);
}

#[test]
fn breakers_of_different_keys_and_policies_do_not_touch() {
    let share = Memory::new();
    let rng = &mut SplitMix(1);
    let mut one = CircuitBreakers::new(consecutive(1), &share, "one").unwrap();
    let mut two = CircuitBreakers::new(consecutive(1), &share, "two").unwrap();
    let (a, b) = (one.slot(&share, 1, "a"), one.slot(&share, 2, "b"));
    let other = two.slot(&share, 1, "a");
    let permit = one.acquire(&share, a, 0, rng).unwrap();
    one.settle(&share, permit, FAILURE, 0, 0, rng);
    assert_eq!(one.state(&share, a), State::Open);
    assert_eq!(one.state(&share, b), State::Closed);
    assert_eq!(two.state(&share, other), State::Closed);
}

#[test]
fn requests_pass_and_errors_are_counted_while_shared_state_is_out_of_reach() {
    for answer in [ShareError::Unavailable, ShareError::Conflict] {
        let share = Counting::default();
        let rng = &mut SplitMix(1);
        let mut breakers = CircuitBreakers::new(consecutive(1), &share, "policy").unwrap();
        let slot = breakers.slot(&share, KEY, "upstream");
        let permit = breakers.acquire(&share, slot, 0, rng).unwrap();
        breakers.settle(&share, permit, FAILURE, 0, 0, rng);
        assert_eq!(breakers.take_errors(), 0);

        share.fail_store.set(Some(answer));
        // Where nobody ever wins, reading goes on.
        share.fail_load.set(Some(answer).filter(|answer| *answer == ShareError::Unavailable));
        let unknown = breakers.slot(&share, KEY + 1, "new");
        assert_eq!(breakers.label(unknown), None, "a key whose breaker cannot be found burdens no other");
        for slot in [slot, unknown] {
            let permit = breakers.acquire(&share, slot, 100 * SECOND, rng).unwrap();
            assert!(!permit.is_probe());
            breakers.settle(&share, permit, FAILURE, 0, 100 * SECOND, rng);
            breakers.cancel(&share, permit, 100 * SECOND, rng);
        }
        assert_eq!(breakers.state(&share, unknown), State::Closed);
        assert!(breakers.take_errors() >= 3);
        assert_eq!(breakers.take_errors(), 0);

        share.fail_store.set(None);
        share.fail_load.set(None);
        assert!(breakers.acquire(&share, slot, 100 * SECOND, rng).unwrap().is_probe(), "back at work");
        let known = breakers.slot(&share, KEY + 1, "new");
        assert_eq!(breakers.label(known), Some("new"));
        assert_eq!(breakers.take_errors(), 0);
    }
}

#[test]
fn breakers_cannot_be_opened_where_their_pages_have_another_length() {
    let share = Memory::new();
    let _first = CircuitBreakers::new(half_of(5, Window::Count(100)), &share, "policy").unwrap();
    let mut second = CircuitBreakers::new(half_of(5, Window::Count(9_000)), &share, "policy").unwrap();
    let slot = second.slot(&share, KEY, "upstream");
    let permit = second.acquire(&share, slot, 0, &mut SplitMix(1)).unwrap();
    assert!(!permit.is_probe());
    assert!(second.take_errors() > 0, "different settings under one name are noticed");
}
