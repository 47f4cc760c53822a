//! Circuit breakers at work on requests: what counts, what a silent upstream comes to, and how the way back is.

use super::workers::{Admitted, Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const GOOD: &str = "admitted";
const OPEN: &str = "circuit_open;policy=p;trip=failure_rate";
const STATE: &str = "tidegate_circuit_breaker_state.policy.p.key.backend";
const GRPC: [(&str, &str); 1] = [("content-type", "application/grpc")];

/// Envoy's flags: a time-out of the upstream's, one of its stream, a client that left.
const TIMEOUT: u64 = 1 << 2;
const MAX_DURATION: u64 = 1 << 19;
const LEFT: u64 = 1 << 14;

fn ok() -> Answer {
    Answer::status("200")
}

fn bad() -> Answer {
    Answer::status("500")
}

/// Trips at four failures of four; two probes, each with five seconds.
fn breaker(more: &str) -> String {
    format!(
        r#"{{"policies": [{{"name": "p", "circuit_breaker": {{
            "minimum_calls": 4, "open_duration": "1s", "half_open": {{"probes": 2, "timeout": "5s"}}{more}}}}}]}}"#
    )
}

/// Tripped, and the open time is over.
fn tripped(workers: usize, more: &str) -> Workers {
    tripped_with(workers, &breaker(more))
}

fn tripped_with(workers: usize, configuration: &str) -> Workers {
    let mut proxy = Workers::new(workers, configuration);
    for turn in 0..4 {
        assert_eq!(proxy.serve(turn % workers, &[], &bad()), GOOD);
    }
    assert_eq!(proxy.stat(STATE), 1);
    proxy.advance(2 * SECOND);
    proxy
}

fn trips(proxy: &Workers, reason: &str) -> i64 {
    proxy.stat(&format!("tidegate_circuit_breaker_trips_total.policy.p.reason.{reason}"))
}

/// A probe that is let through now and ends so, after so many seconds.
fn probe(proxy: &mut Workers, worker: usize, seconds: u64, ending: &Answer) {
    let probe = proxy.ask(worker, &[]).expect("a probe");
    proxy.advance(seconds * SECOND);
    proxy.answer(probe, ending);
}

/// The headers of an answer after the timeout made a good probe of it where its body was still to come.
#[test]
fn a_probe_whose_headers_come_after_its_time_has_timed_out_although_its_body_goes_on() {
    for (after, shown) in [(4, 2), (5, 1)] {
        let mut proxy = tripped(2, "");
        let mut late = proxy.ask(0, &[]).expect("a probe");
        proxy.advance(after * SECOND);
        // No timer has gone off meanwhile.
        proxy.start_answer(&mut late, &ok());
        assert_eq!((proxy.stat(STATE), trips(&proxy, "probe_timeout")), (shown, shown % 2), "after {after} s");
        proxy.answer(late, &ok());
        assert_eq!(proxy.stat(STATE), shown);
    }
}

/// Each client left before the timeout, each gave its place to the next, and so the round never ended.
#[test]
fn an_upstream_that_hangs_reopens_although_every_client_leaves_before_the_timeout() {
    let left = || Answer::none(LEFT);
    let gave_up = || Answer::status("504").local();
    let timed_out = || Answer::status("504").flags(TIMEOUT);
    let cases: [(&str, &str, &dyn Fn() -> Answer); 3] = [
        ("clients leave", "", &left),
        ("another filter answers in its place", "", &gave_up),
        (
            "the route's time-out is no failure",
            r#", "failure_when": {"status": ["5xx"], "timeout": false}"#,
            &timed_out,
        ),
    ];
    for (name, more, ending) in cases {
        let mut proxy = tripped(2, more);
        for turn in 0..4 {
            probe(&mut proxy, turn % 2, 1, &ending());
            assert_eq!(proxy.stat(STATE), 2, "{name}: {turn}");
        }
        probe(&mut proxy, 0, 1, &ending());
        assert_eq!((proxy.stat(STATE), trips(&proxy, "probe_timeout")), (1, 1), "{name}");
    }
    // The controls: an upstream that answers what is to be ignored is not silent, and neither is one with good headers.
    let mut proxy = tripped(2, r#", "ignore_when": {"status": [404]}"#);
    for turn in 0..20 {
        probe(&mut proxy, turn % 2, 1, &Answer::status("404"));
        assert_eq!(proxy.stat(STATE), 2, "{turn}");
    }
    let mut proxy = tripped(2, "");
    for (turn, shown) in [2, 0].into_iter().enumerate() {
        let mut streams = proxy.ask(turn % 2, &[]).expect("a probe");
        proxy.advance(4 * SECOND);
        proxy.start_answer(&mut streams, &ok());
        proxy.answer(streams, &left());
        assert_eq!(proxy.stat(STATE), shown, "{turn}");
    }
}

/// The time until somebody else answered was taken for the upstream's silence, and somebody else's good answer for its own.
#[test]
fn what_others_answer_says_nothing_about_the_upstream_that_a_probe_is_for() {
    let states = |mut proxy: Workers, end: &dyn Fn(&mut Workers, Admitted)| {
        let states = (0..12).map(|turn| {
            let Ok(probe) = proxy.ask(turn % 2, &[]) else { return 1 };
            end(&mut proxy, probe);
            proxy.stat(STATE)
        });
        states.collect::<Vec<_>>()
    };
    let half_open = vec![2; 12];
    // Another filter denies, after a second each.
    let denied = |proxy: &mut Workers, probe| {
        proxy.advance(SECOND);
        proxy.answer(probe, &Answer::status("403").local());
    };
    assert_eq!(states(tripped(2, ""), &denied), half_open);
    // Another filter, or a cache, has something good to say, which takes longer than a probe may.
    let answered = |proxy: &mut Workers, mut probe| {
        proxy.start_answer(&mut probe, &ok().local());
        proxy.advance(6 * SECOND);
        proxy.tick();
        proxy.answer(probe, &ok().local());
    };
    assert_eq!(states(tripped(2, ""), &answered), half_open);
    // Tidegate itself rejects a body as it comes.
    let cut_off = |proxy: &mut Workers, mut probe| {
        proxy.advance(2 * SECOND);
        assert!(proxy.receive(&mut probe, 11).is_err());
    };
    let bounded = breaker("").replace(r#""name": "p","#, r#""name": "p", "request_limits": {"max_body_bytes": 10},"#);
    assert_eq!(states(tripped_with(2, &bounded), &cut_off), half_open);
    // The controls: the upstream's own.
    let good = |proxy: &mut Workers, probe| {
        proxy.advance(SECOND);
        proxy.answer(probe, &ok());
    };
    assert_eq!(states(tripped(2, ""), &good)[..2], [2, 0]);
    let silent = |proxy: &mut Workers, probe| {
        proxy.advance(SECOND);
        proxy.answer(probe, &Answer::none(LEFT));
    };
    assert_eq!(states(tripped(2, ""), &silent)[..6], [2, 2, 2, 2, 1, 1]);
}

#[test]
fn a_limit_that_the_upstream_answers_with_is_what_the_settings_call_it() {
    /// A request's headers, its answer, and the settings' words for that.
    type Limited<'a> = (&'a [(&'a str, &'a str)], &'a dyn Fn() -> Answer, &'a str);
    let http = || Answer::status("429");
    let grpc = || ok().header("grpc-status", "8");
    let in_trailers = || ok().trailer("grpc-status", "8");
    let answers: [Limited<'_>; 3] = [
        (&[], &http, r#""status": [429]"#),
        (&GRPC, &grpc, r#""grpc_status": [8]"#),
        (&GRPC, &in_trailers, r#""grpc_status": ["resource_exhausted"]"#),
    ];
    for (headers, answer, named) in answers {
        let serve = |more: &str, times: usize| {
            let mut proxy = Workers::new(2, &breaker(&format!(r#", "consecutive_failures": 3{more}"#)));
            (0..times).for_each(|turn| drop(proxy.serve(turn % 2, headers, &answer())));
            (trips(&proxy, "consecutive_failures"), trips(&proxy, "failure_rate"))
        };
        // Unnamed it lowers the rate of good calls, and is no failure in a row.
        assert_eq!((serve("", 3), serve("", 4)), ((0, 0), (0, 1)), "{named}");
        let failure = format!(r#", "failure_when": {{{named}}}"#);
        assert_eq!((serve(&failure, 2), serve(&failure, 3)), ((0, 0), (1, 0)), "{named}");
        let ignored = format!(r#", "ignore_when": {{{named}}}"#);
        assert_eq!(serve(&ignored, 40), (0, 0), "{named}");
        assert_eq!(serve(&format!("{failure}{ignored}"), 40), (0, 0), "what is ignored is no failure: {named}");
    }
}

#[test]
fn trailers_only_answers_are_judged_by_their_grpc_status_whatever_their_http_status() {
    let state = |status: &'static str, code: &'static str| {
        let mut proxy = Workers::new(2, &breaker(""));
        for turn in 0..4 {
            proxy.serve(turn % 2, &GRPC, &Answer::status(status).header("grpc-status", code));
        }
        proxy.stat(STATE)
    };
    for status in ["200", "404", "500", "503"] {
        assert_eq!((state(status, "0"), state(status, "5"), state(status, "14")), (0, 0, 1), "HTTP {status}");
    }
    // The control: the same answers to a request that is no gRPC.
    let mut proxy = Workers::new(2, &breaker(""));
    (0..4).for_each(|turn| drop(proxy.serve(turn % 2, &[], &bad().header("grpc-status", "0"))));
    assert_eq!(proxy.stat(STATE), 1);
}

#[test]
fn a_time_out_after_good_headers_is_a_failure_unless_the_settings_say_otherwise() {
    let state = |more: &str, headers: &[(&str, &str)], flags: u64| {
        let mut proxy = Workers::new(2, &breaker(more));
        for turn in 0..4 {
            let mut cut = proxy.ask(turn % 2, headers).expect("closed");
            proxy.start_answer(&mut cut, &ok());
            proxy.answer(cut, &Answer::none(flags));
        }
        proxy.stat(STATE)
    };
    for headers in [&[][..], &GRPC] {
        for flags in [TIMEOUT, MAX_DURATION] {
            assert_eq!(state("", headers, flags), 1, "{flags:x}");
            assert_eq!(state(r#", "failure_when": {"timeout": false}"#, headers, flags), 0, "{flags:x}");
            assert_eq!(state(r#", "ignore_when": {"timeout": true}"#, headers, flags), 0, "{flags:x}");
        }
        assert_eq!(state("", headers, LEFT), 0, "the control: a client that leaves");
    }
}

#[test]
fn rejections_tell_why_the_breaker_opened_last() {
    let told = |proxy: &mut Workers| proxy.ask(1, &[]).expect_err("not closed").1;
    let mut proxy = tripped(2, r#", "recovery": {"ramp": "10s"}"#);
    let waiting: Vec<_> = (0..2).map(|_| proxy.ask(0, &[]).expect("a probe")).collect();
    assert_eq!(told(&mut proxy), OPEN);
    proxy.advance(5 * SECOND);
    proxy.tick();
    assert_eq!(told(&mut proxy), "circuit_open;policy=p;trip=probe_timeout");
    proxy.advance(3 * SECOND);
    probe(&mut proxy, 0, 0, &bad());
    assert_eq!(told(&mut proxy), "circuit_open;policy=p;trip=probe_failed");
    proxy.advance(5 * SECOND);
    probe(&mut proxy, 0, 0, &ok());
    probe(&mut proxy, 1, 0, &ok());
    assert_eq!(proxy.stat(STATE), 0);
    let first = (0..1_000).find_map(|_| proxy.ask(1, &[]).err());
    assert_eq!(first.expect("nine of ten").1, "circuit_open;policy=p;trip=recovering");
    waiting.into_iter().for_each(|late| drop(proxy.answer(late, &ok())));
}

/// How many of `asked` requests pass in the middle of each tenth of ten seconds after the breaker closed.
fn admitted_by_tenths(workers: usize, more: &str, asked: usize) -> [usize; 10] {
    let mut proxy = tripped(workers, more);
    (0..2).for_each(|turn| probe(&mut proxy, turn % workers, 0, &ok()));
    assert_eq!(proxy.stat(STATE), 0);
    proxy.advance(SECOND / 2);
    let admitted = std::array::from_fn(|_| {
        let passed = (0..asked).filter(|turn| proxy.serve(turn % workers, &[], &ok()) == GOOD).count();
        proxy.advance(SECOND);
        passed
    });
    assert!((0..100).all(|turn| proxy.serve(turn % workers, &[], &ok()) == GOOD), "the ramp is over");
    admitted
}

#[test]
fn the_recovery_ramp_readmits_linearly_from_a_tenth_to_all() {
    const ASKED: usize = 4_000;
    for workers in [1, 2, 4, 8] {
        println!("seeds 0 to {}, a worker's each", workers - 1);
        let admitted = admitted_by_tenths(workers, r#", "recovery": {"ramp": "10s"}"#, ASKED);
        for (tenth, admitted) in admitted.into_iter().enumerate() {
            let share = 0.1 + 0.9 * (tenth as f64 + 0.5) / 10.0;
            let expected = share * ASKED as f64;
            // Five standard deviations: once in a million tenths.
            let bound = 5.0 * (expected * (1.0 - share)).sqrt();
            assert!(
                (admitted as f64 - expected).abs() <= bound,
                "tenth {tenth}: {admitted}, not {expected} +- {bound}"
            );
        }
        assert_eq!(admitted_by_tenths(workers, "", ASKED), [ASKED; 10], "the control: no ramp");
    }
}

/// A request without the breaker's key was let through before anybody asked what the settings say.
#[test]
fn a_breaker_held_open_rejects_also_what_has_no_key() {
    const FORCED: &str = "circuit_open;policy=p;trip=forced_open";
    let proxy =
        |state: &str| Workers::new(2, &breaker(&format!(r#", "key": [{{"header": "x-tenant"}}], "state": "{state}""#)));
    let mut forced = proxy("forced_open");
    for worker in [0, 1] {
        assert_eq!(forced.serve(worker, &[], &ok()), FORCED);
        assert_eq!(forced.serve(worker, &[("x-tenant", "a")], &ok()), FORCED);
    }
    assert_eq!(forced.errors(), 0);
    // The controls: otherwise what has no key is let through, whatever comes of it.
    for state in ["auto", "disabled"] {
        let mut proxy = proxy(state);
        assert!((0..20).all(|turn| proxy.serve(turn % 2, &[], &bad()) == GOOD), "{state}");
    }
}

/// Calls are slow above two seconds.
const SLOW: &str = r#", "slow_call_duration": "2s""#;
const SERVICE_TIME: &str = "x-envoy-upstream-service-time";

/// The time that clients took to send their requests was charged to the upstream.
#[test]
fn slow_uploads_to_a_quick_upstream_do_not_make_it_slow() {
    let slow = |seconds: u64, answer: &dyn Fn() -> Answer| {
        let mut proxy = Workers::new(2, &breaker(SLOW));
        (0..4).for_each(|turn| probe(&mut proxy, turn % 2, seconds, &answer()));
        trips(&proxy, "slow_call_rate")
    };
    // Rounded down: 1999 is up to, and 2000 from two seconds on.
    for (noted, trips) in [("0", 0), ("10", 0), ("1999", 0), ("2000", 1), ("3000", 1)] {
        assert_eq!(slow(3, &|| ok().header(SERVICE_TIME, noted)), trips, "{noted} ms");
    }
    // The controls: nothing noted, what is no number, what no time can be, and what was noted before it was stored.
    assert_eq!(slow(3, &ok), 1);
    for absurd in ["", "soon", "-1", "288230376151711743", "18446744073709551615", "18446744073709551616"] {
        assert_eq!(slow(3, &|| ok().header(SERVICE_TIME, absurd)), 1, "{absurd:?}");
    }
    assert_eq!(slow(3, &|| ok().header(SERVICE_TIME, "10").header("age", "0")), 1);
    // Nobody took longer than the whole request.
    assert_eq!(slow(1, &|| ok().header(SERVICE_TIME, "5000")), 0);
}

#[test]
fn probes_with_slow_uploads_to_a_quick_upstream_close() {
    let quick = || ok().header(SERVICE_TIME, "10");
    for (answer, shown) in [(&quick as &dyn Fn() -> Answer, 0), (&ok, 1)] {
        let mut proxy = tripped(2, SLOW);
        (0..2).for_each(|turn| probe(&mut proxy, turn, 3, &answer()));
        assert_eq!((proxy.stat(STATE), trips(&proxy, "probe_failed")), (shown, shown));
        // The same where the body goes on.
        let mut proxy = tripped(2, SLOW);
        let mut streams: Vec<_> = (0..2).map(|worker| proxy.ask(worker, &[]).expect("a probe")).collect();
        proxy.advance(3 * SECOND);
        streams.iter_mut().for_each(|stream| proxy.start_answer(stream, &answer()));
        proxy.advance(3 * SECOND);
        proxy.tick();
        assert_eq!((proxy.stat(STATE), trips(&proxy, "probe_failed")), (shown, shown));
    }
}

/// A worker that found its breakers begun anew forgot them without a word, and their gauges stayed as they were.
#[test]
fn breakers_that_another_worker_has_begun_anew_are_shown_closed() {
    let configuration = breaker("");
    let shown = |silence: u64| {
        let mut proxy = tripped(2, "");
        // As when the machine sleeps. The worker that comes then is the first to say that it is there.
        proxy.advance(silence);
        proxy.kill(1, &configuration);
        proxy.tick();
        proxy.stat(STATE)
    };
    assert_eq!((shown(0), shown(86_400 * SECOND)), (1, 0));
}

#[test]
fn a_key_has_its_breaker_whichever_key_was_asked_for_before() {
    let by_tenant = breaker(r#", "key": [{"header": "x-tenant"}]"#);
    let mut proxy = Workers::new(1, &by_tenant);
    let (bad_one, good_one) = ([("x-tenant", "a")], [("x-tenant", "b")]);
    for _ in 0..4 {
        assert_eq!(proxy.serve(0, &bad_one, &bad()), GOOD);
        assert_eq!(proxy.serve(0, &good_one, &ok()), GOOD);
    }
    for _ in 0..2 {
        assert_eq!(proxy.serve(0, &bad_one, &ok()), OPEN);
        assert_eq!(proxy.serve(0, &good_one, &ok()), GOOD);
    }
}
