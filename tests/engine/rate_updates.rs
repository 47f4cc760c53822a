//! Rate limits over updates of the configuration: what is kept, and what happens when many settings are in use at once.

use tidegate::share::{LEASE, ROWS};

use super::workers::{Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ERRORS: &str = "tidegate_errors_total.kind.rate_limit";

/// A limit of two an hour. `marks` makes settings of their own: it has no key, so nothing else depends on `max_keys`.
fn limit(marks: usize) -> String {
    format!(
        r#"{{"policies": [{{"name": "p", "rate_limits": [{{"name": "r", "rate": "2/h", "max_keys": {}}}]}}]}}"#,
        1 + marks
    )
}

/// How many of ten requests at a worker are let through.
fn admitted(proxy: &mut Workers, worker: usize) -> usize {
    (0..10).filter(|_| proxy.serve(worker, &[], &Answer::status("200")) == "admitted").count()
}

#[test]
fn a_limit_keeps_its_balances_while_more_settings_than_there_is_room_for_come_and_go() {
    let mut proxy = Workers::new(2, &limit(0));
    assert_eq!(admitted(&mut proxy, 0), 2);
    // Listeners that drain, or others of the same name: all of them go on.
    for marks in 1..ROWS {
        proxy.reconfigure(&limit(marks));
        assert_eq!((admitted(&mut proxy, 0), admitted(&mut proxy, 1)), (2, 0), "{marks}");
    }
    assert_eq!(proxy.stat(ERRORS), 0);
    // It used to take the pages of the first, which from then on admitted everything.
    proxy.reconfigure(&limit(ROWS));
    assert_eq!((admitted(&mut proxy, 0), admitted(&mut proxy, 1)), (2, 2), "each worker by itself");
    assert_eq!(proxy.stat(ERRORS), 2, "once for each worker");
    proxy.advance(SECOND);
    proxy.tick();
    assert_eq!(proxy.stat(ERRORS), 4, "it looks again");
    // Another setting comes to its end, and the last has its place, once nobody has said that it is in use.
    proxy.free_places_of(1);
    assert_eq!(proxy.stat(ERRORS), 4);
    assert_eq!((admitted(&mut proxy, 0), admitted(&mut proxy, 1)), (2, 0), "one budget");
    for worker in 0..2 {
        (1..ROWS).for_each(|_| proxy.retire_newest(worker));
    }
    assert_eq!((admitted(&mut proxy, 0), admitted(&mut proxy, 1)), (0, 0), "the first has what it had");
}

#[test]
fn a_limit_that_lost_its_place_while_the_process_stood_still_limits_on() {
    let mut proxy = Workers::new(2, &limit(0));
    assert_eq!(admitted(&mut proxy, 0), 2);
    proxy.advance(LEASE);
    proxy.reconfigure(&limit(1));
    assert_eq!(admitted(&mut proxy, 0), 2);
    for worker in 0..2 {
        proxy.retire_newest(worker);
    }
    // It used to admit everything, for good.
    assert_eq!((admitted(&mut proxy, 0), admitted(&mut proxy, 1)), (2, 0));
    assert_eq!(proxy.stat(ERRORS), 0);
}

#[test]
fn pages_are_free_for_others_soon_after_the_last_engine_with_their_settings_is_gone() {
    let mut proxy = Workers::new(2, &limit(0));
    for marks in 1..10 * ROWS {
        proxy.reconfigure(&limit(marks));
        (0..2).for_each(|worker| proxy.retire_oldest(worker));
        assert_eq!((admitted(&mut proxy, 0), admitted(&mut proxy, 1)), (2, 0), "{marks}");
        proxy.advance(SECOND);
        proxy.tick();
    }
    assert_eq!(proxy.stat(ERRORS), 0, "an update each second needs no more than there is");
    // The control: without their end they are in use.
    for marks in 0..ROWS {
        proxy.reconfigure(&limit(1_000 + marks));
    }
    assert!(proxy.stat(ERRORS) > 0);
}

#[test]
fn what_one_worker_gives_up_stays_with_those_that_still_drain() {
    let mut proxy = Workers::new(2, &limit(0));
    assert_eq!(admitted(&mut proxy, 1), 2);
    proxy.reconfigure_one(0, &limit(1));
    proxy.retire_oldest(0);
    for marks in 2..10 {
        proxy.advance(SECOND);
        proxy.tick();
        proxy.reconfigure_one(0, &limit(marks));
        proxy.retire_oldest(0);
        assert_eq!(admitted(&mut proxy, 0), 2);
    }
    assert_eq!(admitted(&mut proxy, 1), 0, "the second worker still has the first settings");
}

#[test]
fn a_shadow_and_its_enforced_twin_charge_each_other_nothing() {
    let mode = |mode: &str| {
        format!(
            r#"{{"policies": [{{"name": "p", "mode": "{mode}", "rate_limits": [{{"name": "r", "rate": "2/h"}}]}}]}}"#
        )
    };
    let shadowed = |proxy: &Workers| proxy.stat("tidegate_requests_total.policy.p.decision.shadow_rate_limited");
    let mut proxy = Workers::new(2, &mode("shadow"));
    assert_eq!((admitted(&mut proxy, 0), shadowed(&proxy)), (2, 8));
    proxy.reconfigure(&mode("enforce"));
    // What the shadow counted used to be missing here.
    assert_eq!((admitted(&mut proxy, 0), admitted(&mut proxy, 1)), (2, 0));
    proxy.reconfigure(&mode("shadow"));
    assert_eq!((admitted(&mut proxy, 1), shadowed(&proxy)), (0, 18), "it has what it had");
}
