//! How long it stays open, and that it says so.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_harness::client::{self, Load, Schedule};
use tidegate_harness::upstream::Behaviour;

use crate::clock::{Begun, Change, SKEW, begun, changes, timed};
use crate::support::{main_listener, seed};
use crate::{config, transitions};

/// How long the breaker was open each time, in seconds, as it said itself. Requests come 40 times a second to an upstream that
/// always fails, and what Envoy's log and access log have of them is compared with what the breaker said.
async fn open_times(workers: u32, open_duration_max: &str, seed: u64) -> Vec<f64> {
    let breaker = json!({
        "minimum_calls": 5, "open_duration": "1s", "open_duration_max": open_duration_max,
        "half_open": {"probes": 1, "timeout": "60s"}
    });
    let rig = crate::clock::rig(workers, [timed(main_listener(&config(&breaker)))]).await;
    rig.upstream.always(Behaviour::respond(503));
    let load = Load::new(rig.main(), Schedule::constant(40.0, Duration::from_secs(12))).seed(seed);
    let requests = load.run().await.all.len();
    // The first of them is from closed.
    let failed_rounds = transitions(&rig.envoy, "open").await as usize - 1;
    let changes = changes(&rig, "upstreams", "half_open to open", failed_rounds).await;
    let begun = begun(&rig, "main", requests).await;
    let opened = || changes.iter().filter(|change| change.line.contains("to open"));
    for opened in opened() {
        let until = opened.at + opened.open_for();
        for request in begun.iter().filter(|request| request.at > opened.at + SKEW) {
            // What a rejection says is what happens, in whole seconds, rounded up.
            if request.at < until - SKEW {
                assert!(!request.admitted(), "{workers} workers: {request:?} passed before {until}");
                let (left, said) = (until - request.at, request.retry_after.unwrap());
                assert!((left - SKEW..left + 1.0 + SKEW).contains(&said), "{request:?} was told {said} s of {left} s");
            } else if request.at > until + SKEW {
                // The first to come is the probe, unless one that came within the skew was.
                let probed = |earlier: &Begun| (until - SKEW..=request.at).contains(&earlier.at) && earlier.admitted();
                assert!(begun.iter().any(probed), "{workers} workers: {request:?} after {until}");
                break;
            }
        }
    }
    let passed = begun.iter().filter(|request| request.admitted()).count();
    assert_eq!(passed, rig.upstream.total());
    opened().map(Change::open_for).collect()
}

/// As logged, in whole milliseconds.
fn within_jitter(time: f64, expected: f64) -> bool {
    (expected * 0.9 - 0.001..=expected * 1.1).contains(&time)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_times_double_from_one_second_within_their_jitter_and_are_kept() {
    let seed = seed();
    let (one, two, four, eight, control) = tokio::join!(
        open_times(1, "60s", seed),
        open_times(2, "60s", seed),
        open_times(4, "60s", seed),
        open_times(8, "60s", seed),
        open_times(2, "1s", seed)
    );
    // The fourth opens after 7.7 s at most, and is not over by the end of the load.
    for (workers, times) in [(1, one), (2, two), (4, four), (8, eight)] {
        println!("{workers} workers: open for {times:.3?} s");
        assert!(times.len() >= 4, "{times:?}");
        for (time, expected) in times.iter().zip([1.0, 2.0, 4.0, 8.0]) {
            assert!(within_jitter(*time, expected), "{workers} workers: {times:?}");
        }
    }
    // The control: with a maximum of a second none is longer.
    println!("at most 1 s: open for {control:.3?} s");
    assert!(control.len() >= 6 && control.iter().all(|time| (0.899..=1.0).contains(time)), "{control:?}");
}

/// What the first rejection says after failures with this `Retry-After`, of an upstream whose clock is off.
async fn told(breaker: Value, retry_after: &str) -> u64 {
    let rig = crate::guarded(2, &breaker).await;
    let answer = Behaviour::respond(503).header("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    rig.upstream.fail(answer.header("retry-after", retry_after));
    for _ in 0..10 {
        assert_eq!(client::get(rig.main(), "/").await.unwrap().status, 503);
    }
    rig.wait_for_breaker("upstreams", "upstream", crate::OPEN).await;
    let rejected = client::get(rig.main(), "/").await.unwrap();
    assert!(rejected.header("x-tidegate-reason").unwrap().ends_with(";trip=failure_rate"), "{rejected:?}");
    rejected.header("retry-after").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upstreams_retry_after_lengthens_it_within_the_maximum() {
    // Five seconds, in which to ask.
    let heeding = crate::breaker("5s", 1, "60s");
    let deaf = json!({"minimum_calls": 10, "open_duration": "5s", "honor_retry_after": false});
    let cases = [
        (&heeding, "30", 20..=30),
        (&heeding, "Sun, 06 Nov 1994 08:50:07 GMT", 20..=30),
        (&heeding, "Sunday, 06-Nov-94 08:50:07 GMT", 20..=30),
        (&heeding, "Sun Nov  6 08:50:07 1994", 20..=30),
        (&heeding, "3600", 50..=60),
        (&heeding, "Sun, 06 Nov 1994 08:40:00 GMT", 1..=6),
        (&heeding, "99999999999999999999", 1..=6),
        (&heeding, "soon", 1..=6),
        (&deaf, "30", 1..=6),
    ];
    for (breaker, retry_after, expected) in cases {
        let told = told(breaker.clone(), retry_after).await;
        assert!(expected.contains(&told), "{retry_after:?} made it {told} s");
    }
}
