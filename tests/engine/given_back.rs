//! What a request was granted before another control rejected it is given back, as though it had never asked.

use super::workers::{Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const GOOD: &str = "admitted";
const STATE: &str = "tidegate_circuit_breaker_state.policy.p.key.t";
/// What the breaker judges.
const JUDGED: [(&str, &str); 1] = [("x-tenant", "t")];

fn ok() -> Answer {
    Answer::status("200")
}

#[test]
fn a_request_the_concurrency_limit_rejects_has_its_charges_given_back() {
    let mut proxy = Workers::new(
        2,
        r#"{"policies": [{"name": "p",
            "rate_limits": [{"name": "r", "rate": "3/h"}],
            "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1}}}]}"#,
    );
    let first = proxy.ask(0, &[]).expect("room for one");
    for worker in [0, 1, 0, 1] {
        assert_eq!(proxy.serve(worker, &[], &ok()), "overloaded;policy=p");
    }
    assert_eq!(proxy.stat("tidegate_inflight.policy.p"), 1);
    proxy.answer(first, &ok());
    assert_eq!(proxy.stat("tidegate_inflight.policy.p"), 0);
    let served = (0..5).filter(|worker| proxy.serve(worker % 2, &[], &ok()) == GOOD).count();
    assert_eq!(served, 2, "one of three was used");
}

/// Beside `more`, a breaker that wants one probe and has tripped; its open time is over.
fn about_to_probe(more: &str) -> Workers {
    let configuration = format!(
        r#"{{"policies": [{{"name": "p", {more}, "circuit_breaker": {{"key": [{{"header": "x-tenant"}}],
            "minimum_calls": 4, "open_duration": "1s", "half_open": {{"probes": 1, "timeout": "1h"}}}}}}]}}"#
    );
    let mut proxy = Workers::new(2, &configuration);
    for turn in 0..4 {
        assert_eq!(proxy.serve(turn % 2, &JUDGED, &Answer::status("500")), GOOD);
    }
    assert_eq!(proxy.stat(STATE), 1);
    proxy.advance(2 * SECOND);
    proxy
}

/// The only probe's place is free: the next request has it, and the one after that finds none.
fn probes_and_closes(mut proxy: Workers) {
    assert_eq!(proxy.stat(STATE), 2, "a request came after the open time");
    let probe = proxy.ask(1, &JUDGED).expect("the probe's place is free");
    assert!(proxy.ask(0, &JUDGED).expect_err("it is taken").1.starts_with("circuit_open;policy=p"));
    proxy.answer(probe, &ok());
    assert_eq!(proxy.stat(STATE), 0);
}

#[test]
fn a_request_that_a_rate_limit_rejects_has_its_probe_given_back() {
    let mut proxy = about_to_probe(r#""rate_limits": [{"name": "r", "rate": "1/h", "key": [{"header": "x-client"}]}]"#);
    let greedy = [("x-client", "greedy")];
    assert_eq!(proxy.serve(0, &greedy, &ok()), GOOD, "without a tenant it is no probe");
    let greedy = [JUDGED[0], greedy[0]];
    for worker in [0, 1, 0, 1] {
        assert_eq!(proxy.serve(worker, &greedy, &ok()), "rate_limited;policy=p;limit=r");
    }
    probes_and_closes(proxy);
}

#[test]
fn a_request_that_the_concurrency_limit_rejects_has_its_probe_given_back() {
    let mut proxy = about_to_probe(r#""load_shedding": {"limit": {"algorithm": "fixed", "limit": 1}}"#);
    let only = proxy.ask(0, &[]).expect("room for one");
    for worker in [0, 1, 0, 1] {
        assert_eq!(proxy.serve(worker, &JUDGED, &ok()), "overloaded;policy=p");
    }
    proxy.answer(only, &ok());
    probes_and_closes(proxy);
}

#[test]
fn a_request_that_waits_in_a_queue_holds_no_probe_and_one_that_finds_it_full_gives_its_own_back() {
    let mut proxy = about_to_probe(
        r#""load_shedding": {"limit": {"algorithm": "fixed", "limit": 1},
            "queue": {"order": "fifo", "max_wait": "1s", "max_length": 1}}"#,
    );
    let only = proxy.ask(0, &[]).expect("room for one");
    let mut waiting = vec![proxy.ask(0, &JUDGED).expect("room in the queue")];
    assert!(waiting[0].queued);
    for _ in 0..4 {
        assert_eq!(proxy.serve(0, &JUDGED, &ok()), "overloaded;policy=p");
    }
    // Nobody goes on in time.
    proxy.advance(2 * SECOND);
    let gone = proxy.wake(0, &mut waiting);
    let [(_, Err(line))] = &gone[..] else { panic!("{gone:?}") };
    assert_eq!(line, "queue_timeout;policy=p");
    proxy.answer(only, &ok());
    probes_and_closes(proxy);
}
