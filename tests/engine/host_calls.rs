//! What a breaker asks the host about a response: each question is a call that may return bytes, the dear kind.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::workers::{Answer, Workers};

const BREAKER: &str = r#"{"policies": [{"name": "p", "circuit_breaker": {}}]}"#;
const GRPC: [(&str, &str); 1] = [("content-type", "application/grpc")];

fn asked(headers: &[(&str, &str)], answer: &Answer) -> u32 {
    let mut proxy = Workers::new(1, BREAKER);
    proxy.serve(0, headers, answer);
    proxy.asked
}

/// Of the upstream, as the proxy notes.
fn noted(status: &'static str) -> Answer {
    Answer::status(status).header("x-envoy-upstream-service-time", "3")
}

#[test]
fn an_answer_that_ends_with_its_headers_and_is_the_upstreams_is_asked_for_these_only() {
    assert_eq!(asked(&[], &noted("200")), 1);
    assert_eq!(asked(&[], &noted("503")), 1);
    assert_eq!(asked(&[], &noted("503").header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")), 1);
    assert_eq!(asked(&GRPC, &noted("200").header("grpc-status", "0")), 1);
    assert_eq!(asked(&GRPC, &noted("200").trailer("grpc-status", "0")), 2, "and its trailers");
    // The control: a cache keeps the note, so that it says nothing of who answers now.
    assert_eq!(asked(&[], &noted("200").header("age", "7")), 2);
}

#[test]
fn any_other_answer_is_asked_who_had_the_last_word() {
    assert_eq!(asked(&[], &Answer::status("200")), 2);
    assert_eq!(asked(&GRPC, &Answer::status("200").header("grpc-status", "0")), 2);
    assert_eq!(asked(&GRPC, &Answer::status("200").trailer("grpc-status", "0")), 3);
    assert_eq!(asked(&[], &Answer::status("503").header("retry-after", "5")), 2);
    assert_eq!(asked(&[], &Answer::status("503").local()), 4, "again at the end, and the flags tell what became of it");
    assert_eq!(asked(&[], &Answer::none(1 << 14)), 2, "who had the last word, and the flags");
}

#[test]
fn without_a_breaker_nothing_is_asked() {
    let mut proxy = Workers::new(1, r#"{"policies": [{"name": "p", "rate_limits": [{"name": "r", "rate": "9/s"}]}]}"#);
    proxy.serve(0, &[], &Answer::status("503"));
    assert_eq!(proxy.asked, 0);
}

#[test]
fn a_fixed_limit_asks_nothing_and_one_that_learns_what_a_breaker_asks() {
    let shedding = |limit: &str, answer: &Answer| {
        let config = format!(r#"{{"policies": [{{"name": "p", "load_shedding": {{"limit": {limit}}}}}]}}"#);
        let mut proxy = Workers::new(1, &config);
        proxy.serve(0, &[], answer);
        proxy.asked
    };
    assert_eq!(shedding(r#"{"algorithm": "fixed", "limit": 5}"#, &Answer::status("503")), 0);
    assert_eq!(shedding("{}", &Answer::status("200")), 2);
}

#[test]
fn what_was_only_charged_is_done_with_the_answers_headers_and_its_end_asks_for_nothing() {
    let holds = |more: &str| {
        let limit = r#""rate_limits": [{"name": "r", "rate": "9/s", "charge_response": {"header": "x-cost"}}]"#;
        let mut proxy = Workers::new(1, &format!(r#"{{"policies": [{{"name": "p", {limit}{more}}}]}}"#));
        let mut admitted = proxy.ask(0, &[]).expect("the first of nine");
        assert!(admitted.holds_anything());
        proxy.start_answer(&mut admitted, &Answer::status("200").header("x-cost", "3"));
        let holds = admitted.holds_anything();
        let refused = (0..9).find(|_| proxy.ask(0, &[]).is_err());
        assert_eq!(refused, Some(5), "and what it cost stays charged");
        holds
    };
    assert!(!holds(""));
    // The controls: a place is held to the end, and a body that is still counted may cost the request its admission.
    assert!(holds(r#", "load_shedding": {"limit": {"algorithm": "fixed", "limit": 99}}"#));
    assert!(holds(r#", "request_limits": {"max_body_bytes": 100}"#));
}
