//! Gauges of limits and throttles over updates: the newest configuration that has them tells them.

use super::workers::{Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const LIMIT: &str = "tidegate_concurrency_limit.policy.p";
const REJECTS: &str = "tidegate_throttle_rejection_percent.policy.p";

fn fixed(limit: u32, more: &str) -> String {
    format!(
        r#"{{"policies": [{{"name": "p", "load_shedding": {{
            "limit": {{"algorithm": "fixed", "limit": {limit}}}{more}}}}}]}}"#
    )
}

fn throttled(limit: u32, minimum_calls: u32) -> String {
    fixed(limit, &format!(r#", "throttle": {{"minimum_calls": {minimum_calls}}}"#))
}

const NOTHING: &str = r#"{"policies": []}"#;

fn retire_oldest(proxy: &mut Workers) {
    (0..2).for_each(|worker| proxy.retire_oldest(worker));
}

/// An upstream that fails, until the throttle of the present configuration rejects four in five.
fn fail(proxy: &mut Workers) {
    for turn in 0..1000 {
        proxy.advance(SECOND / 100);
        proxy.serve(turn % 2, &[], &Answer::status("500"));
    }
    proxy.tick();
    assert_eq!(proxy.stat(REJECTS), 80);
}

/// An update set it to 0 until time was looked at next.
#[test]
fn what_a_throttle_rejects_is_told_over_updates_that_leave_it_alone() {
    let mut proxy = Workers::new(2, &throttled(1000, 20));
    fail(&mut proxy);
    proxy.reconfigure(&throttled(2000, 20));
    assert_eq!(proxy.stat(REJECTS), 80);
    // The control: other settings begin anew.
    proxy.reconfigure(&throttled(2000, 30));
    assert_eq!(proxy.stat(REJECTS), 0);
}

/// An engine whose last requests drain told what its own throttle makes of them.
#[test]
fn what_drains_tells_nothing_beside_what_has_replaced_it() {
    for replaced in [true, false] {
        let mut proxy = Workers::new(2, &throttled(1000, 20));
        let in_flight: Vec<_> = (0..50).map(|turn| proxy.ask(turn % 2, &[]).unwrap()).collect();
        if replaced {
            proxy.reconfigure(&throttled(2000, 30));
        }
        for request in in_flight {
            proxy.advance(SECOND / 100);
            proxy.answer(request, &Answer::status("500"));
        }
        proxy.tick();
        // The control: where it has not been replaced it does.
        let expected = if replaced { (0, 2000) } else { (80, 1000) };
        assert_eq!((proxy.stat(REJECTS), proxy.stat(LIMIT)), expected);
    }
}

/// They stood still at what they showed last.
#[test]
fn gauges_of_what_is_gone_are_zero_and_show_again_what_comes_back() {
    let mut proxy = Workers::new(2, &throttled(1000, 20));
    fail(&mut proxy);
    proxy.reconfigure(NOTHING);
    // Its last requests count under it still.
    assert_eq!((proxy.stat(REJECTS), proxy.stat(LIMIT)), (80, 1000));
    retire_oldest(&mut proxy);
    assert_eq!((proxy.stat(REJECTS), proxy.stat(LIMIT)), (0, 0));

    let mut proxy = Workers::new(1, &fixed(10, ""));
    proxy.reconfigure(&fixed(20, ""));
    assert_eq!(proxy.stat(LIMIT), 20);
    // Hosts that still have the first use it again, and tell nobody.
    proxy.retire_newest(0);
    assert_eq!(proxy.stat(LIMIT), 10);
    // A configuration of another listener says nothing of this policy.
    proxy.reconfigure(NOTHING);
    proxy.retire_newest(0);
    proxy.tick();
    assert_eq!(proxy.stat(LIMIT), 10);
}

/// Each left its page behind in the host, for as long as the proxy ran.
#[test]
fn throttles_whose_settings_change_need_no_more_places_than_there_are() {
    const ERRORS: &str = "tidegate_errors_total.kind.load_shedding";
    let mut proxy = Workers::new(2, &throttled(1000, 20));
    for change in 1..=40 {
        proxy.reconfigure(&throttled(1000, 20 + change));
        retire_oldest(&mut proxy);
        proxy.advance(SECOND);
        proxy.tick();
    }
    assert_eq!(proxy.stat(ERRORS), 0, "an update each second needs no more than there is");
    fail(&mut proxy);
    // The control: without their end all of them are in use, and the last count on each worker by itself.
    for change in 41..=60 {
        proxy.reconfigure(&throttled(1000, 20 + change));
    }
    assert!(proxy.stat(ERRORS) > 0);
}
