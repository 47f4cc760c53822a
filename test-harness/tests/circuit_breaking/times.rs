//! How long it stays open, and that it says so.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_harness::client::{self, Ending, Load, Outcome, Schedule};
use tidegate_harness::upstream::Behaviour;

use crate::support::seed;

/// What timers, the machine and the distance between two requests may add.
const SLACK: f64 = 0.3;

/// Requests come 40 times a second to an upstream that always fails: the gaps between those that pass, in seconds, from the
/// trip on.
async fn gaps(workers: u32, open_duration_max: &str, seed: u64) -> Vec<f64> {
    let breaker = json!({
        "minimum_calls": 5, "open_duration": "1s", "open_duration_max": open_duration_max,
        "half_open": {"probes": 1, "timeout": "60s"}
    });
    let rig = crate::guarded(workers, &breaker).await;
    rig.upstream.always(Behaviour::respond(503));
    let outcomes = Load::new(rig.main(), Schedule::constant(40.0, Duration::from_millis(8500))).seed(seed).run().await;
    let passed: Vec<&Outcome> =
        outcomes.all.iter().filter(|outcome| matches!(outcome.ending, Ending::Answered(503))).collect();
    // What a rejection says is what happens: the next request that passes comes when the wait is over, which is rounded up.
    for rejected in &outcomes.all {
        let Some(wait) = rejected.header("retry-after") else { continue };
        let Some(next) = passed.iter().find(|next| next.sent > rejected.sent) else { continue };
        let (said, was) = (wait.parse::<f64>().unwrap(), (next.sent - rejected.sent).as_secs_f64());
        assert!(said - 1.0 - SLACK < was && was < said + SLACK, "said {said} s, was {was} s");
    }
    let rejected = outcomes.tally().rejected_by("upstreams", "circuit_open");
    assert_eq!(rejected + passed.len(), outcomes.all.len());
    let gaps =
        passed.windows(2).map(|pair| pair[1].sent.as_secs_f64() - (pair[0].intended + pair[0].latency).as_secs_f64());
    gaps.filter(|gap| *gap > 0.5).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_double_from_one_second_within_their_jitter() {
    let seed = seed();
    let (one, two, four, eight, control) = tokio::join!(
        gaps(1, "60s", seed),
        gaps(2, "60s", seed),
        gaps(4, "60s", seed),
        gaps(8, "60s", seed),
        gaps(2, "1s", seed)
    );
    for (workers, gaps) in [(1, one), (2, two), (4, four), (8, eight)] {
        println!("{workers} workers: gaps of {gaps:.3?} s");
        assert!(gaps.len() >= 3, "{gaps:?}");
        for (gap, expected) in gaps.iter().zip([1.0, 2.0, 4.0]) {
            assert!((expected * 0.9..expected * 1.1 + SLACK).contains(gap), "{workers} workers: {gaps:?}");
        }
    }
    // The control: with a maximum of a second none is longer.
    println!("at most 1 s: gaps of {control:.3?} s");
    assert!(control.len() >= 6 && control.iter().all(|gap| (0.9..1.0 + SLACK).contains(gap)), "{control:?}");
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
    let heeding = crate::breaker("1s", 1, "60s");
    let deaf = json!({"minimum_calls": 10, "open_duration": "1s", "honor_retry_after": false});
    let cases = [
        (&heeding, "30", 25..=30),
        (&heeding, "Sun, 06 Nov 1994 08:50:07 GMT", 25..=30),
        (&heeding, "Sunday, 06-Nov-94 08:50:07 GMT", 25..=30),
        (&heeding, "Sun Nov  6 08:50:07 1994", 25..=30),
        (&heeding, "3600", 55..=60),
        (&heeding, "Sun, 06 Nov 1994 08:40:00 GMT", 1..=2),
        (&heeding, "99999999999999999999", 1..=2),
        (&heeding, "soon", 1..=2),
        (&deaf, "30", 1..=2),
    ];
    for (breaker, retry_after, expected) in cases {
        let told = told(breaker.clone(), retry_after).await;
        assert!(expected.contains(&told), "{retry_after:?} made it {told} s");
    }
}
