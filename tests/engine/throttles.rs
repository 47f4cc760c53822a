//! The throttle as the engine applies it: what counts as an outcome, whom it rejects, and what that costs.

use super::workers::{Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MS: u64 = SECOND / 1000;
const INFLIGHT: &str = "tidegate_inflight.policy.p";
const REJECTS: &str = "tidegate_throttle_rejection_percent.policy.p";
const THROTTLED: &str = "overloaded;policy=p;cause=throttle";

fn ok() -> Answer {
    Answer::status("200")
}

fn bad() -> Answer {
    Answer::status("500")
}

/// A policy with a throttle, and whatever `more` adds to it.
fn throttled(more: &str) -> String {
    format!(
        r#"{{"policies": [{{"name": "p", "load_shedding": {{
            "limit": {{"algorithm": "fixed", "limit": 1000}}, "throttle": {{}}}}{more}}}]}}"#
    )
}

/// So many requests, a hundred a second over all workers: how many were not admitted.
fn rejected(proxy: &mut Workers, workers: usize, requests: usize, answer: &Answer) -> usize {
    let mut rejected = 0;
    for turn in 0..requests {
        proxy.advance(10 * MS);
        let line = proxy.serve(turn % workers, &[], answer);
        assert!(line == "admitted" || line == THROTTLED, "{line}");
        rejected += usize::from(line != "admitted");
    }
    proxy.tick();
    rejected
}

#[test]
fn what_an_upstream_that_fails_would_be_sent_in_vain_is_not_sent_by_and_by_over_all_workers() {
    for workers in [1, 4] {
        let mut proxy = Workers::new(workers, &throttled(""));
        assert_eq!(rejected(&mut proxy, workers, 19, &bad()), 0, "so few calls say nothing");
        assert_eq!(proxy.stat(REJECTS), 0);
        let most = rejected(&mut proxy, workers, 2000, &bad());
        assert!((1500..1700).contains(&most), "{most} of 2000 with {workers} workers");
        assert_eq!(proxy.stat(REJECTS), 80);
        assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.overloaded"), most as i64);
        // It has recovered: by and by all pass.
        rejected(&mut proxy, workers, 6000, &ok());
        assert_eq!((rejected(&mut proxy, workers, 1000, &ok()), proxy.stat(REJECTS)), (0, 0));
        assert_eq!(proxy.stat(INFLIGHT), 0);
    }
    // The control.
    let mut proxy = Workers::new(1, &throttled("").replace(r#", "throttle": {}"#, ""));
    assert_eq!(rejected(&mut proxy, 1, 2000, &bad()), 0);
}

#[test]
fn half_of_the_answers_good_is_half_of_the_requests_and_nineteen_of_twenty_is_all() {
    for (good_of_20, low, high) in [(10, 430, 620), (19, 0, 0)] {
        let mut proxy = Workers::new(2, &throttled(""));
        let (mut late, mut answered) = (0, 0);
        for turn in 0..4000 {
            proxy.advance(10 * MS);
            match proxy.ask(turn % 2, &[]) {
                Ok(admitted) => {
                    let answer = if answered % 20 < good_of_20 { ok() } else { bad() };
                    proxy.answer(admitted, &answer);
                    answered += 1;
                }
                Err(_) if turn >= 3000 => late += 1,
                Err(_) => {}
            }
        }
        assert!((low..=high).contains(&late), "{late} of the last 1000 with {good_of_20} of 20 good");
    }
}

#[test]
fn what_says_nothing_of_the_upstream_is_not_counted() {
    const CLIENT_LEFT: u64 = 1 << 14;
    let rejects_after = |answer: &Answer| {
        let mut proxy = Workers::new(1, &throttled(""));
        rejected(&mut proxy, 1, 200, answer);
        proxy.stat(REJECTS)
    };
    let of_another = bad().header("x-tidegate-reason", "overloaded;policy=q");
    for nothing in [Answer::none(CLIENT_LEFT), bad().local(), of_another, Answer::status("404")] {
        assert_eq!(rejects_after(&nothing), 0);
    }
    for failure in [bad(), Answer::status("503"), Answer::status("429"), Answer::none(1 << 2), Answer::none(1 << 6)] {
        assert_eq!(rejects_after(&failure), 80);
    }
}

#[test]
fn who_is_rejected_by_it_costs_nobody_anything_and_is_told_no_wait() {
    let more = r#", "rate_limits": [{"name": "r", "rate": "1000/d"}]"#;
    let mut proxy = Workers::new(1, &throttled(more));
    let (mut admitted, mut refused) = (0, 0);
    for _ in 0..500 {
        proxy.advance(MS);
        match proxy.ask(0, &[]) {
            Ok(request) => {
                admitted += 1;
                let told = proxy.answer(request, &bad());
                assert!(told[1].contains(&format!(";r={};", 1000 - admitted)), "{told:?}");
            }
            Err((reply, line)) => {
                refused += 1;
                assert_eq!((reply.status, line.as_str(), reply.details), (503, THROTTLED, "tidegate_overloaded"));
                assert!(reply.headers.iter().all(|(name, _)| name != "retry-after"), "{reply:?}");
                assert_eq!(proxy.stat(INFLIGHT), 0);
            }
        }
    }
    assert!(refused > 300, "{refused}");
}

#[test]
fn in_shadow_it_counts_what_it_would_reject_and_what_it_would_have_admitted() {
    let mut proxy = Workers::new(2, &throttled(r#", "mode": "shadow""#));
    for turn in 0..1000 {
        proxy.advance(10 * MS);
        let admitted = proxy.ask(turn % 2, &[]).expect("nobody is rejected in shadow");
        assert!(admitted.shadow.as_deref().is_none_or(|line| line == "shadow_overloaded;policy=p;cause=throttle"));
        proxy.answer(admitted, &bad());
    }
    let would = proxy.stat("tidegate_requests_total.policy.p.decision.shadow_overloaded");
    assert!((700..850).contains(&would), "{would}");
}

#[test]
fn who_waits_in_a_queue_has_passed_it_once_and_for_all() {
    let configuration =
        throttled("").replace(r#""limit": 1000}"#, r#""limit": 1}, "queue": {"max_wait": "10s", "order": "fifo"}"#);
    let mut proxy = Workers::new(1, &configuration);
    let mut first = Some(proxy.ask(0, &[]).unwrap());
    let mut waiting: Vec<_> = (0..60).map(|_| proxy.ask(0, &[]).unwrap()).collect();
    let mut served = 0;
    while let Some(request) = first.take() {
        // Long after 20 calls have failed nobody of those who wait is rejected.
        proxy.advance(20 * MS);
        proxy.answer(request, &bad());
        for (_, next) in proxy.wake(0, &mut waiting) {
            served += 1;
            first = Some(next.expect("it has passed"));
        }
    }
    assert_eq!(served, 60);
    proxy.tick();
    assert_eq!(proxy.stat(REJECTS), 80, "and all of them have counted");
    assert_eq!(proxy.stat(INFLIGHT), 0);
}
