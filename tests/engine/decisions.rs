//! One request's life over all policies, on several simulated workers.

use super::workers::{Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const GOOD: &str = "admitted";

fn ok() -> Answer {
    Answer::status("200")
}

fn bad() -> Answer {
    Answer::status("500")
}

fn client(name: &str) -> [(&str, &str); 1] {
    [("x-client", name)]
}

const TWO_LIMITS: &str = r#"{"policies": [{"name": "p", "rate_limits": [
    {"name": "all", "rate": "10/h"},
    {"name": "each", "rate": "2/h", "key": [{"header": "x-client"}]}
]}]}"#;

#[test]
fn a_request_its_own_limit_rejects_leaves_the_shared_limit_untouched() {
    let mut proxy = Workers::new(2, TWO_LIMITS);
    for turn in 0..50 {
        let line = proxy.serve(turn % 2, &client("greedy"), &ok());
        assert_eq!(line, if turn < 2 { GOOD } else { "rate_limited;policy=p;limit=each" });
    }
    let admitted = (0..50).filter(|turn| proxy.serve(turn % 2, &client(&turn.to_string()), &ok()) == GOOD).count();
    assert_eq!(admitted, 8, "of ten, the greedy client's two and no more are gone");
}

#[test]
fn of_several_refusing_limits_the_one_with_the_longest_wait_speaks() {
    let configuration = |first: &str, second: &str| {
        format!(
            r#"{{"policies": [
                {{"name": "one", "rate_limits": [{{"name": "a", "rate": "{first}", "burst": 1}}]}},
                {{"name": "two", "rate_limits": [{{"name": "b", "rate": "{second}", "burst": 1}}]}}]}}"#
        )
    };
    for (first, second, line, wait) in [
        ("1/m", "1/h", "rate_limited;policy=two;limit=b", "3600"),
        ("1/h", "1/m", "rate_limited;policy=one;limit=a", "3600"),
    ] {
        let mut proxy = Workers::new(1, &configuration(first, second));
        assert_eq!(proxy.serve(0, &[], &ok()), GOOD);
        let (reply, spoken) = proxy.ask(0, &[]).expect_err("both limits are used up");
        assert_eq!(spoken, line);
        assert!(reply.headers.contains(&("retry-after".to_owned(), wait.to_owned())), "{reply:?}");
    }
}

#[test]
fn a_rate_limit_rejects_before_a_concurrency_limit_and_takes_up_no_place() {
    let mut proxy = Workers::new(
        2,
        r#"{"policies": [
            {"name": "places", "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1}}},
            {"name": "rates", "rate_limits": [{"name": "r", "rate": "1/h"}]}]}"#,
    );
    let first = proxy.ask(0, &[]).expect("room for one");
    for worker in [0, 1] {
        assert_eq!(proxy.serve(worker, &[], &ok()), "rate_limited;policy=rates;limit=r");
    }
    proxy.answer(first, &ok());
    assert_eq!(proxy.serve(1, &[], &ok()), "rate_limited;policy=rates;limit=r");
    assert_eq!(proxy.stat("tidegate_inflight.policy.places"), 0);
}

const BREAKER: &str = r#"{"policies": [{"name": "p", "circuit_breaker": {
    "minimum_calls": 4, "open_duration": "1s", "half_open": {"probes": 2, "timeout": "5s"}}}]}"#;

fn trip(proxy: &mut Workers) {
    for worker in [0, 1, 0, 1] {
        assert_eq!(proxy.serve(worker, &[], &bad()), GOOD);
    }
}

const OPEN: &str = "circuit_open;policy=p;trip=failure_rate";

#[test]
fn one_trip_opens_every_worker_and_is_told_once() {
    let mut proxy = Workers::new(4, BREAKER);
    trip(&mut proxy);
    for worker in 0..4 {
        assert_eq!(proxy.serve(worker, &[], &ok()), OPEN);
    }
    assert_eq!(proxy.stat("tidegate_circuit_breaker_transitions_total.policy.p.to.open"), 1);
    assert_eq!(proxy.stat("tidegate_circuit_breaker_state.policy.p.key.backend"), 1);
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.circuit_open"), 4);
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.admitted"), 4);
}

#[test]
fn probes_are_counted_over_workers_and_good_ones_close() {
    let mut proxy = Workers::new(4, BREAKER);
    trip(&mut proxy);
    proxy.advance(2 * SECOND);
    let probes: Vec<_> = (0..100).filter_map(|turn| proxy.ask(turn % 4, &[]).ok()).collect();
    assert_eq!(probes.len(), 2);
    for probe in probes {
        proxy.answer(probe, &ok());
    }
    assert_eq!(proxy.stat("tidegate_circuit_breaker_state.policy.p.key.backend"), 0);
    assert_eq!(proxy.serve(3, &[], &ok()), GOOD);
}

#[test]
fn probes_that_nobody_answers_are_given_up_by_the_timer() {
    let mut proxy = Workers::new(2, BREAKER);
    trip(&mut proxy);
    proxy.advance(2 * SECOND);
    let _lost: Vec<_> = (0..2).filter_map(|worker| proxy.ask(worker, &[]).ok()).collect();
    assert_eq!(proxy.stat("tidegate_circuit_breaker_state.policy.p.key.backend"), 2);
    proxy.advance(4 * SECOND);
    proxy.tick();
    assert_eq!(proxy.stat("tidegate_circuit_breaker_state.policy.p.key.backend"), 2, "they have a second left");
    proxy.advance(2 * SECOND);
    proxy.tick();
    assert_eq!(proxy.stat("tidegate_circuit_breaker_state.policy.p.key.backend"), 1);
    assert_eq!(proxy.stat("tidegate_circuit_breaker_transitions_total.policy.p.to.open"), 2);
}

#[test]
fn what_is_not_the_upstreams_doing_does_not_trip() {
    let left = || Answer::none(1 << 14);
    for answer in [bad().local(), left(), Answer::status("503").header("x-tidegate-reason", "overloaded")] {
        let mut proxy = Workers::new(1, BREAKER);
        for _ in 0..20 {
            assert_eq!(proxy.serve(0, &[], &answer), GOOD);
        }
    }
    // The control: the same twenty as the upstream's own.
    let mut proxy = Workers::new(1, BREAKER);
    assert!((0..20).any(|_| proxy.serve(0, &[], &Answer::status("503")) == OPEN));
}

const STATE: &str = "tidegate_circuit_breaker_state.policy.p.key.backend";

fn tripped(workers: usize, configuration: &str, answer: &Answer) -> Workers {
    let mut proxy = Workers::new(workers, configuration);
    for turn in 0..4 {
        assert_eq!(proxy.serve(turn % workers, &[], answer), GOOD);
    }
    assert_eq!(proxy.stat(STATE), 1);
    proxy
}

fn wait_told(proxy: &mut Workers) -> Option<u64> {
    let (reply, _) = proxy.ask(0, &[]).expect_err("it is open");
    reply.headers.iter().find(|(name, _)| name == "retry-after").map(|(_, wait)| wait.parse().unwrap())
}

#[test]
fn retry_after_lengthens_the_open_time_as_seconds_and_as_a_date() {
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let seconds = bad().header("retry-after", "30");
    assert_eq!(wait_told(&mut tripped(1, BREAKER, &seconds)), Some(30));
    let date = bad().header("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT").header("date", DATE);
    assert_eq!(wait_told(&mut tripped(1, BREAKER, &date)), Some(30));
    let long = bad().header("retry-after", "3600");
    assert_eq!(wait_told(&mut tripped(1, BREAKER, &long)), Some(60), "never beyond the maximum");
    for absurd in ["Sun, 06 Nov 1994 08:40:00 GMT", "-30", "soon", "1764000000"] {
        let answer = bad().header("retry-after", absurd).header("date", DATE);
        let wait = wait_told(&mut tripped(1, BREAKER, &answer)).unwrap();
        assert!(wait <= 2, "{absurd}: {wait}");
    }
    let deaf = BREAKER.replace(r#""minimum_calls""#, r#""honor_retry_after": false, "minimum_calls""#);
    assert!(wait_told(&mut tripped(1, &deaf, &seconds)).unwrap() <= 2);
}

#[test]
fn a_grpc_failure_in_its_headers_may_ask_to_be_left_alone_too() {
    let mut proxy = Workers::new(1, BREAKER);
    let grpc = [("content-type", "application/grpc")];
    for _ in 0..4 {
        proxy.serve(0, &grpc, &ok().header("grpc-status", "14").header("retry-after", "30"));
    }
    assert_eq!(wait_told(&mut proxy), Some(30));
}

#[test]
fn a_grpc_rejection_of_a_tidegate_further_down_is_no_failure() {
    let grpc = [("content-type", "application/grpc")];
    let refused = || ok().header("grpc-status", "14");
    let mut proxy = Workers::new(1, BREAKER);
    for _ in 0..20 {
        let answer = refused().header("x-tidegate-reason", "overloaded;policy=inner");
        assert_eq!(proxy.serve(0, &grpc, &answer), GOOD);
    }
    // The control: the same without the header.
    assert!((0..20).any(|_| proxy.serve(0, &grpc, &refused()) == OPEN));
}

#[test]
fn a_grpc_answer_without_a_status_is_a_failure_only_when_it_was_whole() {
    let grpc = [("content-type", "application/grpc")];
    let mut proxy = Workers::new(1, BREAKER);
    for _ in 0..20 {
        let mut left = proxy.ask(0, &grpc).expect("the client's leaving trips nothing");
        proxy.start_answer(&mut left, &ok());
        proxy.answer(left, &Answer::none(1 << 28));
    }
    assert!((0..20).any(|_| proxy.serve(0, &grpc, &ok()) == OPEN), "answered, and no status");
}

#[test]
fn a_client_that_leaves_during_a_bad_answer_does_not_hide_it() {
    let run = |answer: &dyn Fn() -> Answer| {
        let mut proxy = Workers::new(1, BREAKER);
        for _ in 0..4 {
            let mut left = proxy.ask(0, &[]).expect("closed");
            proxy.start_answer(&mut left, &answer());
            proxy.answer(left, &Answer::none(1 << 14));
        }
        proxy.stat(STATE)
    };
    assert_eq!(run(&bad), 1);
    assert_eq!(run(&|| bad().local()), 0, "another filter's answer");
    assert_eq!(run(&ok), 0);
}

#[test]
fn a_tunnel_is_answered_when_it_stands_and_its_end_says_nothing() {
    let reset = || Answer::none(1 << 6);
    for (headers, status) in [([(":method", "CONNECT")], "200"), ([("upgrade", "websocket")], "101")] {
        let mut proxy = tripped(2, BREAKER, &bad());
        proxy.advance(2 * SECOND);
        let tunnels: Vec<_> = (0..2)
            .map(|worker| {
                let mut tunnel = proxy.ask(worker, &headers).expect("a probe");
                proxy.start_answer(&mut tunnel, &Answer::status(status));
                tunnel
            })
            .collect();
        assert_eq!(proxy.stat(STATE), 0, "{status}: both probes are answered");
        for tunnel in tunnels {
            proxy.answer(tunnel, &reset());
        }
        assert_eq!(proxy.serve(0, &[], &ok()), GOOD);
    }
    // The control: a response that is no tunnel, cut off.
    let mut proxy = Workers::new(1, BREAKER);
    for _ in 0..4 {
        let mut cut = proxy.ask(0, &[]).expect("closed");
        proxy.start_answer(&mut cut, &ok());
        proxy.answer(cut, &reset());
    }
    assert_eq!(proxy.stat(STATE), 1);
}

#[test]
fn probes_whose_answers_stream_on_close_when_their_time_is_over() {
    // A 404 with a long body was taken for no answer.
    for status in ["200", "404"] {
        let mut proxy = tripped(2, BREAKER, &bad());
        proxy.advance(2 * SECOND);
        let mut streams: Vec<_> = (0..2).filter_map(|worker| proxy.ask(worker, &[]).ok()).collect();
        for stream in &mut streams {
            proxy.start_answer(stream, &Answer::status(status));
        }
        proxy.advance(4 * SECOND);
        proxy.tick();
        assert_eq!(proxy.stat(STATE), 2, "they have a second left to turn out bad");
        proxy.advance(2 * SECOND);
        proxy.tick();
        assert_eq!(proxy.stat(STATE), 0, "{status}");
        // What becomes of them later is another generation's.
        for stream in streams {
            proxy.answer(stream, &Answer::none(1 << 4));
        }
        assert_eq!(proxy.serve(0, &[], &ok()), GOOD);
    }
    // The control: a status that is a failure.
    let mut proxy = tripped(2, BREAKER, &bad());
    proxy.advance(2 * SECOND);
    let mut stream = proxy.ask(0, &[]).expect("a probe");
    proxy.start_answer(&mut stream, &bad());
    proxy.advance(6 * SECOND);
    proxy.tick();
    assert_eq!(proxy.stat(STATE), 1);
}

#[test]
fn a_probe_that_breaks_off_in_its_body_within_its_time_is_a_failure() {
    let mut proxy = tripped(2, BREAKER, &bad());
    proxy.advance(2 * SECOND);
    let mut stream = proxy.ask(0, &[]).expect("a probe");
    proxy.start_answer(&mut stream, &ok());
    proxy.advance(SECOND);
    proxy.answer(stream, &Answer::none(1 << 4));
    assert_eq!(proxy.stat(STATE), 1);
    assert_eq!(proxy.stat("tidegate_circuit_breaker_trips_total.policy.p.reason.probe_failed"), 1);
    assert_eq!(proxy.stat("tidegate_circuit_breaker_trips_total.policy.p.reason.failure_rate"), 1);
}

#[test]
fn grpc_is_judged_by_its_trailers_and_answered_in_its_own_words() {
    let mut proxy = Workers::new(1, BREAKER);
    let grpc = [("content-type", "application/grpc")];
    for _ in 0..4 {
        let answer = ok().trailer("grpc-status", "14");
        assert_eq!(proxy.serve(0, &grpc, &answer), GOOD);
    }
    let (reply, line) = proxy.ask(0, &grpc).expect_err("four of four failed");
    assert_eq!(line, OPEN);
    assert_eq!(reply.grpc_status, Some(14));
    assert!(!reply.body.contains('{'), "a message, not a document: {}", reply.body);
}

#[test]
fn a_policy_in_shadow_counts_what_it_would_have_rejected_and_rejects_nothing() {
    let configuration = |mode: &str| TWO_LIMITS.replace(r#""name": "p""#, &format!(r#""name": "p", "mode": "{mode}""#));
    let (mut enforce, mut shadow) =
        (Workers::new(2, &configuration("enforce")), Workers::new(2, &configuration("shadow")));
    for turn in 0..60 {
        let name = (turn % 7).to_string();
        enforce.serve(turn % 2, &client(&name), &ok());
        let line = shadow.serve(turn % 2, &client(&name), &ok());
        assert!(line == GOOD || line.starts_with("shadow_rate_limited;policy=p;limit="), "{line}");
    }
    let rejected = enforce.stat("tidegate_requests_total.policy.p.decision.rate_limited");
    assert_eq!(rejected, 50, "ten of sixty are within the limits");
    assert_eq!(shadow.stat("tidegate_requests_total.policy.p.decision.shadow_rate_limited"), rejected);
    assert_eq!(shadow.stat("tidegate_requests_total.policy.p.decision.shadow_admitted"), 10);
    assert_eq!(shadow.stat("tidegate_requests_total.policy.p.decision.rate_limited"), 0);
}

#[test]
fn a_breaker_in_shadow_judges_only_what_it_would_have_let_through() {
    let mut proxy = Workers::new(1, &BREAKER.replace(r#""name": "p""#, r#""name": "p", "mode": "shadow""#));
    for _ in 0..4 {
        assert_eq!(proxy.serve(0, &[], &bad()), GOOD);
    }
    for _ in 0..10 {
        assert_eq!(proxy.serve(0, &[], &bad()), "shadow_circuit_open;policy=p;trip=failure_rate");
    }
    proxy.advance(2 * SECOND);
    // Two probes are let through; the rest go on as shadows and their failures say nothing.
    assert_eq!(proxy.serve(0, &[], &ok()), GOOD);
    let second = proxy.ask(0, &[]).expect("the second probe");
    assert_eq!(proxy.serve(0, &[], &bad()), "shadow_circuit_open;policy=p;trip=failure_rate");
    proxy.answer(second, &ok());
    assert_eq!(proxy.stat("tidegate_circuit_breaker_state.policy.p.key.backend"), 0);
}

#[test]
fn a_shadow_policy_that_refuses_drops_out_and_the_others_decide() {
    let mut proxy = Workers::new(
        1,
        r#"{"policies": [
            {"name": "dry", "mode": "shadow", "rate_limits": [{"name": "a", "rate": "1/h"}]},
            {"name": "wet", "rate_limits": [{"name": "b", "rate": "2/h"}]}]}"#,
    );
    assert_eq!(proxy.serve(0, &[], &ok()), GOOD);
    assert_eq!(proxy.serve(0, &[], &ok()), "shadow_rate_limited;policy=dry;limit=a");
    assert_eq!(proxy.serve(0, &[], &ok()), "rate_limited;policy=wet;limit=b");
    assert_eq!(proxy.stat("tidegate_requests_total.policy.wet.decision.admitted"), 2);
    assert_eq!(proxy.stat("tidegate_requests_total.policy.dry.decision.shadow_rate_limited"), 1);
}

#[test]
fn the_enforced_share_of_refusals_is_carried_out_and_the_rest_counted() {
    let run = |percent: u32| {
        let mut proxy = Workers::new(
            1,
            &format!(
                r#"{{"policies": [{{"name": "p", "enforce_percent": {percent},
                    "rate_limits": [{{"name": "r", "rate": "1/d"}}]}}]}}"#
            ),
        );
        for _ in 0..1001 {
            proxy.serve(0, &[], &ok());
        }
        let stat = |decision: &str| proxy.stat(&format!("tidegate_requests_total.policy.p.decision.{decision}"));
        (stat("rate_limited"), stat("shadow_rate_limited"))
    };
    assert_eq!(run(0), (0, 1000));
    assert_eq!(run(100), (1000, 0));
    let (enforced, spared) = run(25);
    assert_eq!(enforced + spared, 1000);
    // Seed 0: the draw is fixed; 250 expected, standard deviation 13.7.
    assert!((200..300).contains(&enforced), "{enforced}");
}

#[test]
fn off_means_that_nothing_is_decided_or_counted() {
    let mut proxy = Workers::new(1, &TWO_LIMITS.replace(r#"{"policies""#, r#"{"mode": "off", "policies""#));
    for _ in 0..20 {
        assert_eq!(proxy.serve(0, &client("a"), &ok()), GOOD);
    }
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.admitted"), 0);
}

#[test]
fn an_update_keeps_what_did_not_change_and_starts_anew_what_did() {
    let configuration = |other: &str, rate: &str| {
        format!(
            r#"{{"policies": [
            {{"name": "other", "match": {{"path": "{other}"}}}},
            {{"name": "p", "rate_limits": [{{"name": "r", "rate": "{rate}"}}],
              "circuit_breaker": {{"minimum_calls": 4, "key": [{{"header": "x-up"}}]}}}}]}}"#
        )
    };
    let mut proxy = Workers::new(2, &configuration("/a", "4/h"));
    let up = [("x-up", "1")];
    for turn in 0..4 {
        assert_eq!(proxy.serve(turn % 2, &up, &bad()), GOOD);
    }
    proxy.reconfigure(&configuration("/b", "4/h"));
    assert_eq!(proxy.serve(1, &up, &ok()), OPEN, "the breaker is still open");
    assert_eq!(proxy.serve(1, &[], &ok()), "rate_limited;policy=p;limit=r", "the bucket is still empty");
    proxy.reconfigure(&configuration("/b", "5/h"));
    assert_eq!(proxy.serve(0, &[], &ok()), GOOD, "another rate is another bucket");
}

#[test]
fn a_breaker_that_an_update_ends_is_not_shown_as_open_any_more() {
    let other = |minimum: u32| BREAKER.replace(r#""minimum_calls": 4"#, &format!(r#""minimum_calls": {minimum}"#));
    for (next, shown) in [(other(4), 1), (other(5), 0), (r#"{"policies": []}"#.to_owned(), 0)] {
        let mut proxy = tripped(2, BREAKER, &bad());
        proxy.reconfigure(&next);
        assert_eq!(proxy.stat(STATE), shown, "{next}");
    }
}

#[test]
fn oversized_requests_get_the_status_that_says_so() {
    let mut proxy = Workers::new(
        1,
        r#"{"policies": [{"name": "p", "request_limits":
            {"max_path_bytes": 10, "max_headers": 2, "max_header_bytes": 40}}]}"#,
    );
    let status = |proxy: &mut Workers, headers: &[(&str, &str)]| {
        proxy.ask(0, headers).err().map(|(reply, line)| {
            assert_eq!(line, "invalid_request;policy=p");
            reply.status
        })
    };
    assert_eq!(status(&mut proxy, &[(":path", "/123456789")]), None);
    assert_eq!(status(&mut proxy, &[(":path", "/1234567890")]), Some(414));
    assert_eq!(status(&mut proxy, &[("a", ""), ("b", "")]), None);
    assert_eq!(status(&mut proxy, &[("a", ""), ("b", ""), ("c", "")]), Some(431));
    assert_eq!(status(&mut proxy, &[("a", &"v".repeat(39))]), None);
    assert_eq!(status(&mut proxy, &[("a", &"v".repeat(40))]), Some(431));
}

#[test]
fn admitted_responses_tell_what_is_left_and_rejections_how_long_to_wait() {
    let mut proxy = Workers::new(1, TWO_LIMITS);
    let admitted = proxy.ask(0, &client("a")).expect("room for two");
    let headers = proxy.answer(admitted, &ok());
    assert_eq!(
        headers,
        [
            r#"ratelimit-policy: "all";q=10;w=3600, "each";q=2;w=3600"#,
            r#"ratelimit: "all";r=9;t=360, "each";r=1;t=1800"#
        ]
    );
    proxy.serve(0, &client("a"), &ok());
    let (reply, _) = proxy.ask(0, &client("a")).expect_err("two are used");
    let lines: Vec<_> = reply.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(
        lines,
        [
            "retry-after: 1800",
            "x-tidegate-reason: rate_limited;policy=p;limit=each",
            r#"ratelimit-policy: "all";q=10;w=3600, "each";q=2;w=3600"#,
            r#"ratelimit: "all";r=8;t=360, "each";r=0;t=1800"#,
            "content-type: application/problem+json",
        ]
    );
    assert_eq!(reply.status, 429);
    assert_eq!(
        reply.body,
        concat!(
            r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Rate limit exceeded","#,
            r#""status":429,"policy":"p","violated-policies":["each"],"retry-after":1800}"#
        )
    );
}

#[test]
fn a_missing_key_is_skipped_shared_or_rejected_as_configured() {
    let run = |on_missing: &str| {
        let mut proxy = Workers::new(
            1,
            &format!(
                r#"{{"policies": [{{"name": "p", "rate_limits": [{{"name": "r", "rate": "1/h",
                    "key": [{{"header": "x-client"}}], "on_missing_key": "{on_missing}"}}]}}]}}"#
            ),
        );
        (0..3).filter(|_| proxy.serve(0, &[], &ok()) == GOOD).count()
    };
    assert_eq!(run("skip"), 3);
    assert_eq!(run("share"), 1);
    assert_eq!(run("reject"), 0);
}

#[test]
fn configured_responses_replace_status_headers_and_body() {
    let mut proxy = Workers::new(
        1,
        r#"{"policies": [{"name": "p", "rate_limits": [{"name": "r", "rate": "1/h"}],
            "headers": {"ratelimit": "off", "reason": false},
            "responses": {"rate_limited": {"status": 503, "body": "later", "content_type": "text/x", 
                "headers": {"retry-after": "7", "x-own": "1"}}}}]}"#,
    );
    proxy.serve(0, &[], &ok());
    let (reply, _) = proxy.ask(0, &[]).expect_err("one is used");
    assert_eq!((reply.status, reply.body.as_str()), (503, "later"));
    let lines: Vec<_> = reply.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(lines, ["content-type: text/x", "retry-after: 7", "x-own: 1"]);
}
