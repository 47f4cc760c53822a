//! Rate limits as the engine applies them: requests that are held, and costs that only the response tells.

use super::workers::{Admitted, Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MS: u64 = 1_000_000;

fn ok() -> Answer {
    Answer::status("200")
}

fn bad() -> Answer {
    Answer::status("500")
}

/// 10 per second, one at a time, held for up to 300 ms; beside it whatever `more` adds to the policy.
fn paced(more: &str) -> String {
    format!(
        r#"{{"policies": [{{"name": "p", "rate_limits": [
            {{"name": "r", "rate": "10/s", "burst": 1, "pace": {{"max_wait": "300ms"}}}}]{more}}}]}}"#
    )
}

/// So many requests at once, over all workers: how long each is held, in milliseconds.
fn waits(proxy: &mut Workers, count: usize, workers: usize) -> (Vec<Admitted>, Vec<u64>) {
    let (mut held, mut waits) = (Vec::new(), Vec::new());
    for turn in 0..count {
        let request = proxy.ask(turn % workers, &[]).expect("held at most");
        waits.push(request.until.map_or(0, |until| (until - proxy.now) / MS));
        held.push(request);
    }
    (held, waits)
}

#[test]
fn requests_above_the_rate_are_held_in_order_over_all_workers_and_rejected_beyond_the_longest_wait() {
    let mut proxy = Workers::new(4, &paced(""));
    let (held, waits) = waits(&mut proxy, 4, 4);
    assert_eq!(waits, [0, 100, 200, 300]);
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 3);
    let (reply, line) = proxy.ask(0, &[]).expect_err("it would have to wait 400 ms");
    assert_eq!(line, "rate_limited;policy=p;limit=r");
    assert!(reply.headers.contains(&("retry-after".to_owned(), "1".to_owned())), "{reply:?}");
    for request in held {
        proxy.now = proxy.now.max(request.until.unwrap_or(0));
        let request = if request.until.is_some() { proxy.resume(request).unwrap() } else { request };
        assert_eq!(request.until, None, "its time has come");
        proxy.answer(request, &ok());
    }
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.admitted"), 4);
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.rate_limited"), 1);
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 0);
    assert_eq!(proxy.stat("tidegate_queue_wait_ms"), 300, "the last sample");
}

#[test]
fn without_room_for_waiting_requests_a_limit_that_paces_rejects() {
    let mut proxy = Workers::new(1, &paced(""));
    proxy.may_wait = false;
    proxy.serve(0, &[], &ok());
    let (reply, _) = proxy.ask(0, &[]).expect_err("nobody can wait");
    assert!(reply.headers.contains(&("retry-after".to_owned(), "1".to_owned())), "{reply:?}");
}

#[test]
fn a_held_request_whose_client_leaves_gives_its_place_back_where_nobody_stands_behind_it() {
    let mut proxy = Workers::new(2, &paced(""));
    let (mut held, waits) = waits(&mut proxy, 4, 2);
    assert_eq!(waits, [0, 100, 200, 300]);
    let left = || Answer::none(1 << 14);
    // The last in line: its place is free again.
    proxy.answer(held.pop().unwrap(), &left());
    let again = proxy.ask(0, &[]).unwrap();
    assert_eq!(again.until, Some(proxy.now + 300 * MS));
    // One in the middle: those behind it keep their times, and its place stays empty.
    proxy.answer(held.remove(1), &left());
    assert!(proxy.ask(0, &[]).is_err());
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 2);
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.admitted"), 1, "who left was never admitted");
}

#[test]
fn a_request_that_the_proxy_answers_while_it_is_held_is_told_nothing_and_charged_nothing() {
    let mut proxy = Workers::new(1, &paced(""));
    let (mut held, _) = waits(&mut proxy, 2, 1);
    let told = proxy.answer(held.pop().unwrap(), &Answer::status("408").local());
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(proxy.ask(0, &[]).unwrap().until, Some(proxy.now + 100 * MS));
}

#[test]
fn a_held_request_takes_up_no_place_until_it_goes_on() {
    let mut proxy = Workers::new(1, &paced(r#", "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1}}"#));
    let (mut requests, _) = waits(&mut proxy, 3, 1);
    assert_eq!(proxy.stat("tidegate_inflight.policy.p"), 1);
    let (third, second, first) = (requests.pop().unwrap(), requests.pop().unwrap(), requests.pop().unwrap());
    proxy.advance(100 * MS);
    // The first is still there, so the second finds no place and is rejected.
    let (reply, line) = proxy.resume(second).expect_err("one place, and it is taken");
    assert_eq!((line.as_str(), reply.status), ("overloaded;policy=p", 503));
    proxy.answer(first, &ok());
    proxy.advance(100 * MS);
    let third = proxy.resume(third).expect("the place is free");
    assert_eq!(proxy.stat("tidegate_inflight.policy.p"), 1);
    proxy.answer(third, &ok());
    assert_eq!(proxy.stat("tidegate_inflight.policy.p"), 0);
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 0);
}

const WITH_BREAKER: &str = r#", "circuit_breaker": {"minimum_calls": 2, "open_duration": "1s",
    "slow_call_duration": "50ms", "half_open": {"probes": 1, "timeout": "5s"}}"#;

#[test]
fn a_breaker_that_opens_meanwhile_rejects_a_held_request_and_an_open_one_lets_nobody_wait() {
    let mut proxy = Workers::new(1, &paced(WITH_BREAKER));
    let (mut requests, _) = waits(&mut proxy, 3, 1);
    let (third, second, first) = (requests.pop().unwrap(), requests.pop().unwrap(), requests.pop().unwrap());
    proxy.answer(first, &bad());
    proxy.advance(100 * MS);
    let second = proxy.resume(second).unwrap();
    proxy.answer(second, &bad());
    proxy.advance(100 * MS);
    let open = "circuit_open;policy=p;trip=failure_rate";
    assert_eq!(proxy.resume(third).expect_err("the breaker is open").1, open);
    for _ in 0..3 {
        assert_eq!(proxy.ask(0, &[]).expect_err("at once").1, open);
    }
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 0);
}

#[test]
fn a_held_request_keeps_no_probe_from_others_and_its_wait_makes_no_call_slow() {
    let mut proxy = Workers::new(1, &paced(WITH_BREAKER));
    for _ in 0..2 {
        let admitted = proxy.ask(0, &[]).unwrap();
        proxy.answer(admitted, &bad());
        proxy.advance(200 * MS);
    }
    proxy.advance(2 * SECOND);
    // Half-open: the only probe is given to the first, which needs not wait.
    let probe = proxy.ask(0, &[]).expect("the probe");
    assert!(proxy.ask(0, &[]).is_err(), "no second probe");
    proxy.answer(probe, &ok());
    // Closed. Requests that waited longer than a call may take are not slow for it.
    for _ in 0..10 {
        let held = proxy.ask(0, &[]).unwrap();
        assert!(held.until.unwrap() - proxy.now > 50 * MS);
        proxy.now = held.until.unwrap();
        let admitted = proxy.resume(held).expect("a quick upstream trips nothing");
        proxy.advance(10 * MS);
        proxy.answer(admitted, &ok());
    }
}

#[test]
fn a_held_request_that_cannot_be_read_again_goes_on_and_has_used_its_place_in_the_line() {
    let mut proxy = Workers::new(2, &paced(r#", "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1}}"#));
    let (mut requests, _) = waits(&mut proxy, 3, 2);
    let (third, second, first) = (requests.pop().unwrap(), requests.pop().unwrap(), requests.pop().unwrap());
    proxy.advance(100 * MS);
    let second = proxy.resume_unread(second).expect("not reading it is no reason to reject it");
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 1);
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.admitted"), 2);
    assert_eq!(proxy.stat("tidegate_inflight.policy.p"), 1, "the first; of which key the other is, nobody knows");
    let told = proxy.answer(second, &ok());
    assert_eq!(told[1], r#"ratelimit: "r";r=0;t=1"#, "it is told of a charge like any other");
    // Nothing was given back: the next in line is behind the third.
    let fourth = proxy.ask(0, &[]).unwrap();
    assert_eq!(fourth.until, Some(proxy.now + 200 * MS));
    proxy.answer(first, &ok());
    for (request, after) in [(third, 100 * MS), (fourth, 100 * MS)] {
        proxy.advance(after);
        let request = proxy.resume(request).unwrap();
        proxy.answer(request, &ok());
    }
    assert_eq!(proxy.stat("tidegate_inflight.policy.p"), 0);
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 0);
}

#[test]
fn a_policy_in_shadow_holds_nobody_and_counts_what_it_would_have_rejected() {
    let mut proxy = Workers::new(1, &paced(r#", "mode": "shadow""#));
    for turn in 0..6 {
        let request = proxy.ask(0, &[]).unwrap();
        assert_eq!((request.until, request.shadow.is_some()), (None, turn >= 4));
        proxy.answer(request, &ok());
    }
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.shadow_admitted"), 4);
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.shadow_rate_limited"), 2);
}

#[test]
fn a_request_that_one_limit_holds_is_still_rejected_by_another_and_costs_neither() {
    let mut proxy = Workers::new(
        1,
        r#"{"policies": [{"name": "p", "rate_limits": [
            {"name": "paced", "rate": "10/s", "burst": 1, "pace": {"max_wait": "1s"}},
            {"name": "each", "rate": "2/h", "key": [{"header": "x-client"}]}]}]}"#,
    );
    let client = |name: &'static str| [("x-client", name)];
    let _held: Vec<_> = (0..2).map(|_| proxy.ask(0, &client("a")).unwrap()).collect();
    for _ in 0..20 {
        assert_eq!(proxy.ask(0, &client("a")).unwrap_err().1, "rate_limited;policy=p;limit=each");
    }
    let other = proxy.ask(0, &client("b")).unwrap();
    assert_eq!(other.until, Some(proxy.now + 200 * MS), "the twenty have no place in the line");
    // Who leaves the line gets both charges back.
    proxy.answer(other, &Answer::none(1 << 14));
    for place in [200, 300] {
        assert_eq!(proxy.ask(0, &client("b")).unwrap().until, Some(proxy.now + place * MS));
    }
    assert_eq!(proxy.ask(0, &client("b")).unwrap_err().1, "rate_limited;policy=p;limit=each");
}

#[test]
fn what_a_held_request_is_told_counts_from_when_it_is_answered() {
    let mut proxy = Workers::new(
        1,
        r#"{"policies": [{"name": "p", "rate_limits": [
            {"name": "r", "rate": "1/s", "burst": 1, "pace": {"max_wait": "10s"}}]}]}"#,
    );
    let (mut requests, waits) = waits(&mut proxy, 4, 1);
    assert_eq!(waits, [0, 1000, 2000, 3000]);
    proxy.advance(3 * SECOND);
    let last = proxy.resume(requests.pop().unwrap()).unwrap();
    assert_eq!(proxy.answer(last, &ok())[1], r#"ratelimit: "r";r=0;t=1"#);
}

const TOKENS: &str = r#"{"policies": [{"name": "p", "rate_limits": [{"name": "r", "rate": "10/m", "burst": 10,
    "key": [{"header": "x-client"}], "charge_response": {"header": "x-tokens-used"}}]}]}"#;

fn used(value: &'static str) -> Answer {
    ok().header("x-tokens-used", value)
}

#[test]
fn a_cost_told_by_the_response_is_charged_below_zero_and_refills_before_the_next_request() {
    let mut proxy = Workers::new(2, TOKENS);
    let a = [("x-client", "a")];
    let admitted = proxy.ask(0, &a).unwrap();
    let told = proxy.answer(admitted, &used("20"));
    // 21 of 10 are used: 12 have to come back, at one every six seconds.
    assert_eq!(told[1], r#"ratelimit: "r";r=0;t=72"#);
    proxy.advance(72 * SECOND - 1);
    let (reply, _) = proxy.ask(1, &a).expect_err("not yet");
    assert!(reply.headers.contains(&("retry-after".to_owned(), "1".to_owned())));
    proxy.advance(1);
    assert!(proxy.ask(1, &a).is_ok());
    assert!(proxy.ask(1, &[("x-client", "b")]).is_ok());
}

#[test]
fn only_whole_numbers_are_charged_and_the_largest_have_a_bound() {
    let remaining_after = |value: &'static str| {
        let mut proxy = Workers::new(1, TOKENS);
        let admitted = proxy.ask(0, &[("x-client", "a")]).unwrap();
        let told = proxy.answer(admitted, &used(value));
        told[1].split(";r=").nth(1).unwrap().split(';').next().unwrap().parse::<u64>().unwrap()
    };
    for nothing in ["", " ", "-5", "+5", "1.5", "0x5", "5 5", "5,5", "five", "NaN", "1e3", "\u{666}"] {
        assert_eq!(remaining_after(nothing), 9, "{nothing:?}");
    }
    assert_eq!(remaining_after("0"), 9);
    assert_eq!(remaining_after(" 5\t"), 4);
    assert_eq!(remaining_after("0005"), 4);
    for large in ["1000000000", "1000000001", "18446744073709551615", "99999999999999999999999999"] {
        let mut proxy = Workers::new(1, TOKENS);
        let admitted = proxy.ask(0, &[("x-client", "a")]).unwrap();
        proxy.answer(admitted, &used(large));
        let (reply, _) = proxy.ask(0, &[("x-client", "a")]).unwrap_err();
        let wait = "5999999952".to_owned();
        assert!(reply.headers.contains(&("retry-after".to_owned(), wait)), "{large}: {reply:?}");
    }
}

#[test]
fn a_cost_in_the_request_is_clamped_however_it_is_written() {
    let cost = |value: &str| {
        let mut proxy = Workers::new(
            1,
            r#"{"policies": [{"name": "p", "rate_limits": [{"name": "r", "rate": "100/h",
                "cost": {"header": "x-cost", "default": 3, "max": 20}}]}]}"#,
        );
        let admitted = proxy.ask(0, &[("x-cost", value)]).unwrap();
        let told = proxy.answer(admitted, &ok());
        100 - told[1].split(";r=").nth(1).unwrap().split(';').next().unwrap().parse::<u64>().unwrap()
    };
    for (value, expected) in [("7", 7), (" 7 ", 7), ("0", 1), ("20", 20), ("21", 20), ("", 3), ("-7", 3), ("+7", 3)] {
        assert_eq!(cost(value), expected, "{value:?}");
    }
    // Written too large for 64 bits it is still a large number, and not none.
    for value in ["18446744073709551615", "18446744073709551616", "99999999999999999999999999999999999999999"] {
        assert_eq!(cost(value), 20, "{value}");
    }
}

#[test]
fn decisions_by_the_overflow_budget_are_counted_whether_they_admit_or_reject() {
    let mut proxy = Workers::new(
        1,
        r#"{"policies": [{"name": "p", "rate_limits": [{"name": "r", "rate": "2/h", "max_keys": 1,
            "key": [{"header": "x-client"}]}]}]}"#,
    );
    for client in ["a", "b", "c", "d", "e"] {
        proxy.serve(0, &[("x-client", client)], &ok());
    }
    assert_eq!(proxy.stat("tidegate_rate_limit_overflow_total.policy.p.limit.r"), 4);
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.rate_limited"), 2);
}

#[test]
fn a_cost_told_for_a_key_that_lost_its_place_is_charged_to_nobody_and_counted() {
    let mut proxy = Workers::new(
        1,
        r#"{"policies": [{"name": "p", "rate_limits": [{"name": "r", "rate": "5/s", "max_keys": 1,
            "key": [{"header": "x-client"}], "charge_response": {"header": "x-tokens-used"}}]}]}"#,
    );
    let uncharged = "tidegate_rate_limit_uncharged_total.policy.p.limit.r";
    let slow = proxy.ask(0, &[("x-client", "slow")]).unwrap();
    proxy.advance(10 * SECOND);
    let next = proxy.ask(0, &[("x-client", "next")]).unwrap();
    proxy.answer(slow, &used("1000000"));
    assert_eq!(proxy.stat(uncharged), 1);
    let other = proxy.ask(0, &[("x-client", "other")]).expect("the overflow budget is whole");
    // The control: whoever has a place, or was served by the overflow budget, is charged there.
    proxy.answer(next, &used("1000000"));
    proxy.answer(other, &used("1000000"));
    assert!(proxy.ask(0, &[("x-client", "next")]).is_err());
    assert!(proxy.ask(0, &[("x-client", "other")]).is_err());
    assert_eq!(proxy.stat(uncharged), 1);
    assert_eq!(proxy.stat("tidegate_errors_total.kind.rate_limit"), 0);
}

#[test]
fn of_a_policy_that_is_enforced_by_half_one_request_in_two_is_held_however_many_of_its_limits_pace() {
    let limit =
        |name: &str| format!(r#"{{"name": "{name}", "rate": "1000/s", "burst": 1, "pace": {{"max_wait": "10s"}}}}"#);
    let held = |limits: &[&str]| {
        let limits: Vec<_> = limits.iter().map(|name| limit(name)).collect();
        let config = format!(
            r#"{{"policies": [{{"name": "p", "enforce_percent": 50, "rate_limits": [{}]}}]}}"#,
            limits.join(", ")
        );
        let mut proxy = Workers::new(1, &config);
        (0..1_000).filter(|_| proxy.ask(0, &[]).unwrap().until.is_some()).count()
    };
    for limits in [&["a"][..], &["a", "b"], &["a", "b", "c"]] {
        assert!((430..570).contains(&held(limits)), "{} with {limits:?}", held(limits));
    }
}

#[test]
fn where_a_clients_budget_is_depends_on_the_key_of_the_hash() {
    let config = r#"{"policies": [{"name": "p", "rate_limits": [
        {"name": "r", "rate": "1/h", "key": [{"header": "x-client"}]}]}]}"#;
    let mut proxy = Workers::new(1, config);
    let mut admitted = |hash_key| {
        proxy.hash_key = hash_key;
        proxy.serve(0, &[("x-client", "a")], &Answer::status("200")) == "admitted"
    };
    assert!(admitted((1, 2)) && !admitted((1, 2)));
    // Nobody who does not know the key knows the place: either half of it changes that.
    assert!(admitted((3, 2)) && admitted((1, 3)));
    assert!(!admitted((1, 2)), "the control: it is where it was");
}
