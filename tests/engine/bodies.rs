//! Bounds on a request's body, said beforehand and counted.

use super::workers::{Answer, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const INFLIGHT: &str = "tidegate_inflight.policy.p";
const TOO_LONG: &str = "invalid_request;policy=p";

/// A policy with this bound, and whatever `more` adds to it.
fn bounded(most: u64, more: &str) -> String {
    format!(r#"{{"policies": [{{"name": "p", "request_limits": {{"max_body_bytes": {most}}}{more}}}]}}"#)
}

fn ok() -> Answer {
    Answer::status("200")
}

/// Decisions of a policy so far.
fn decided(proxy: &Workers, decision: &str) -> i64 {
    proxy.stat(&format!("tidegate_requests_total.policy.p.decision.{decision}"))
}

#[test]
fn a_body_that_says_it_is_too_long_is_refused_before_any_of_it_is_read() {
    for (length, good) in
        [("0", true), ("100", true), (" 100 ", true), ("101", false), ("99999999999999999999999", false)]
    {
        let mut proxy = Workers::new(1, &bounded(100, ""));
        match proxy.ask(0, &[("content-length", length)]) {
            Ok(mut admitted) => {
                assert!(good, "{length}");
                // The proxy takes it at its word, and so do we.
                assert_eq!(proxy.receive(&mut admitted, 1000), Ok(None));
                proxy.answer(admitted, &ok());
            }
            Err((reply, line)) => {
                assert!(!good, "{length}");
                assert_eq!((reply.status, line.as_str()), (413, TOO_LONG));
                assert!(reply.body.contains("Request body too large"), "{reply:?}");
            }
        }
    }
}

#[test]
fn a_body_that_does_not_say_is_counted_and_cut_off_at_the_byte_beyond() {
    for length in [None, Some("100, 100"), Some("many"), Some("-1")] {
        let mut proxy = Workers::new(1, &bounded(100, ""));
        let headers: Vec<_> = length.map(|length| ("content-length", length)).into_iter().collect();
        let mut admitted = proxy.ask(0, &headers).expect("nothing of it is known yet");
        for _ in 0..10 {
            assert_eq!(proxy.receive(&mut admitted, 10), Ok(None), "{length:?}");
        }
        let (reply, line) = proxy.receive(&mut admitted, 1).expect_err("one more than may be");
        assert_eq!((reply.status, line.as_str(), reply.details), (413, TOO_LONG, "tidegate_invalid_request"));
        // What of it is still on its way is nobody's concern.
        assert_eq!(proxy.receive(&mut admitted, 1000), Ok(None));
        proxy.answer(admitted, &Answer::status("413").local());
        assert_eq!((decided(&proxy, "admitted"), decided(&proxy, "invalid_request")), (0, 1));
    }
}

/// It used to count twice when its body proved too long.
#[test]
fn a_request_with_a_counted_body_counts_as_admitted_when_that_has_ended() {
    let mut proxy = Workers::new(1, &bounded(100, ""));
    let mut whole = proxy.ask(0, &[]).unwrap();
    assert_eq!(proxy.receive(&mut whole, 100), Ok(None));
    assert_eq!(decided(&proxy, "admitted"), 0);
    proxy.end_body(&mut whole);
    assert_eq!(decided(&proxy, "admitted"), 1);
    proxy.answer(whole, &ok());
    assert_eq!(decided(&proxy, "admitted"), 1);
    // One that breaks off, and a tunnel.
    let broken = proxy.ask(0, &[]).unwrap();
    proxy.answer(broken, &Answer::none(1 << 14));
    assert_eq!(decided(&proxy, "admitted"), 2);
    let mut tunnel = proxy.ask(0, &[("upgrade", "websocket"), ("connection", "upgrade")]).unwrap();
    proxy.start_answer(&mut tunnel, &Answer::status("101"));
    assert_eq!(decided(&proxy, "admitted"), 3);
    proxy.answer(tunnel, &Answer::default());
    // The control: a length is known at once.
    let said = proxy.ask(0, &[("content-length", "100")]).unwrap();
    assert_eq!(decided(&proxy, "admitted"), 4);
    proxy.answer(said, &ok());
    assert_eq!(decided(&proxy, "admitted"), 4);
}

#[test]
fn all_of_a_large_body_at_once_is_too_long_too_and_none_at_all_never() {
    let mut proxy = Workers::new(1, &bounded(0, ""));
    let mut empty = proxy.ask(0, &[]).unwrap();
    assert_eq!(proxy.receive(&mut empty, 0), Ok(None));
    proxy.answer(empty, &ok());
    let mut full = proxy.ask(0, &[]).unwrap();
    assert!(proxy.receive(&mut full, usize::MAX).is_err());
    proxy.answer(full, &Answer::status("413").local());
}

#[test]
fn who_is_cut_off_has_cost_nothing_holds_nothing_any_more_and_tells_nothing_of_the_upstream() {
    let more = r#", "rate_limits": [{"name": "r", "rate": "10/h"}],
        "circuit_breaker": {"minimum_calls": 1, "consecutive_failures": 1},
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1}}"#;
    let mut proxy = Workers::new(2, &bounded(100, more));
    for (answer, begun) in [(Answer::status("413").local(), false), (Answer::none(1 << 3), true)] {
        let mut admitted = proxy.ask(0, &[]).unwrap();
        assert_eq!(proxy.ask(1, &[]).unwrap_err().1, "overloaded;policy=p");
        if begun {
            proxy.start_answer(&mut admitted, &ok());
        }
        assert!(proxy.receive(&mut admitted, 101).is_err());
        assert_eq!(proxy.stat(INFLIGHT), 0, "before its stream has ended");
        let next = proxy.ask(1, &[]).expect("a place");
        proxy.answer(admitted, &answer);
        let told = proxy.answer(next, &ok());
        let used = if begun { 2 } else { 1 };
        assert_eq!(told[1], format!(r#"ratelimit: "r";r={};t=360"#, 10 - used));
    }
    assert_eq!(proxy.stat("tidegate_circuit_breaker_transitions_total.policy.p.to.open"), 0);
    // The control: the same reset as the upstream's own doing.
    let admitted = proxy.ask(0, &[]).unwrap();
    proxy.answer(admitted, &Answer::none(1 << 3));
    assert_eq!(proxy.stat("tidegate_circuit_breaker_transitions_total.policy.p.to.open"), 1);
}

#[test]
fn a_bound_in_shadow_only_counts_and_the_others_hold_all_the_same() {
    let configuration = r#"{"policies": [
        {"name": "p", "mode": "shadow", "request_limits": {"max_body_bytes": 10}},
        {"name": "spared", "enforce_percent": 0, "request_limits": {"max_body_bytes": 20}},
        {"name": "held", "request_limits": {"max_body_bytes": 30}}]}"#;
    let mut proxy = Workers::new(1, configuration);
    let mut admitted = proxy.ask(0, &[]).unwrap();
    assert_eq!(proxy.receive(&mut admitted, 15), Ok(Some("shadow_invalid_request;policy=p".to_owned())));
    assert_eq!(proxy.receive(&mut admitted, 10), Ok(Some("shadow_invalid_request;policy=spared".to_owned())));
    assert_eq!(proxy.receive(&mut admitted, 5), Ok(None));
    assert_eq!(proxy.receive(&mut admitted, 1).unwrap_err().1, "invalid_request;policy=held");
    proxy.answer(admitted, &Answer::status("413").local());
    assert_eq!((decided(&proxy, "shadow_invalid_request"), decided(&proxy, "admitted")), (1, 0));
    let said = proxy.ask(0, &[("content-length", "25")]).unwrap();
    assert_eq!(said.shadow.as_deref(), Some("shadow_invalid_request;policy=p"));
    proxy.answer(said, &ok());
}

/// It kept its place until its end, though the policy had dropped out.
#[test]
fn a_policy_in_shadow_whose_bound_is_passed_gives_back_what_it_granted() {
    let shadow = bounded(10, r#", "mode": "shadow", "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1}}"#);
    let mut proxy = Workers::new(1, &shadow);
    let mut long = proxy.ask(0, &[]).unwrap();
    assert_eq!(proxy.stat(INFLIGHT), 1);
    assert!(proxy.receive(&mut long, 11).unwrap().is_some());
    assert_eq!(proxy.stat(INFLIGHT), 0);
    let next = proxy.ask(0, &[]).unwrap();
    assert_eq!((next.shadow.as_deref(), proxy.stat(INFLIGHT)), (None, 1));
    proxy.answer(long, &ok());
    proxy.answer(next, &ok());
    assert_eq!(proxy.stat(INFLIGHT), 0);
}

#[test]
fn a_body_that_grows_too_long_while_its_request_waits_costs_its_place_in_the_queue() {
    let more = r#", "rate_limits": [{"name": "r", "rate": "10/h"}],
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1}, "queue": {"order": "fifo", "max_wait": "1m"}}"#;
    let mut proxy = Workers::new(1, &bounded(100, more));
    let first = proxy.ask(0, &[]).unwrap();
    let mut second = proxy.ask(0, &[]).unwrap();
    assert!(second.queued);
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 1);
    assert_eq!(proxy.receive(&mut second, 101).unwrap_err().1, TOO_LONG);
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 0);
    proxy.answer(second, &Answer::status("413").local());
    // The first alone has been charged.
    assert_eq!(proxy.answer(first, &ok())[1], r#"ratelimit: "r";r=9;t=360"#);
    assert_eq!((decided(&proxy, "admitted"), decided(&proxy, "invalid_request")), (1, 1));
}

#[test]
fn what_follows_the_headers_of_a_tunnel_is_no_body() {
    let mut proxy = Workers::new(1, &bounded(100, ""));
    let mut tunnel = proxy.ask(0, &[("upgrade", "websocket"), ("connection", "upgrade")]).unwrap();
    proxy.start_answer(&mut tunnel, &Answer::status("101"));
    assert_eq!(proxy.receive(&mut tunnel, 1_000_000), Ok(None));
    proxy.answer(tunnel, &Answer::default());
    // The control: a body goes on after the answer has begun.
    let mut body = proxy.ask(0, &[]).unwrap();
    proxy.start_answer(&mut body, &ok());
    assert!(proxy.receive(&mut body, 1_000_000).is_err());
    proxy.answer(body, &Answer::none(1 << 3));
}

#[test]
fn a_grpc_stream_is_told_in_its_own_way() {
    let mut proxy = Workers::new(1, &bounded(100, ""));
    let mut call = proxy.ask(0, &[("content-type", "application/grpc")]).unwrap();
    // The messages of a stream count together.
    assert_eq!(proxy.receive(&mut call, 60), Ok(None));
    let (reply, _) = proxy.receive(&mut call, 60).unwrap_err();
    assert_eq!((reply.status, reply.grpc_status), (413, Some(14)));
    proxy.answer(call, &Answer::status("200").local());
}
