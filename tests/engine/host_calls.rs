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

#[test]
fn a_good_answer_is_asked_for_its_status_and_who_had_the_last_word() {
    assert_eq!(asked(&[], &Answer::status("200")), 2);
    assert_eq!(asked(&GRPC, &Answer::status("200").header("grpc-status", "0")), 3);
    assert_eq!(asked(&GRPC, &Answer::status("200").trailer("grpc-status", "0")), 3);
}

#[test]
fn a_bad_answer_is_asked_for_its_reasons_too() {
    let bad = || Answer::status("503");
    assert_eq!(asked(&[], &bad()), 5);
    assert_eq!(asked(&[], &bad().header("retry-after", "5")), 5);
    assert_eq!(asked(&[], &bad().header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")), 6);
    assert_eq!(asked(&[], &bad().local()), 6, "the flags tell what became of it");
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
