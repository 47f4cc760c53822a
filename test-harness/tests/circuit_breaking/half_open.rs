//! The sequences that resilience4j documents of its half-open state, on whichever worker each probe comes to.

use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{Call, Cancel, Connection, Ended};

use crate::support::{Rig, until};
use crate::{CLOSED, HALF_OPEN, OPEN, with_1_2_4_and_8_workers};

with_1_2_4_and_8_workers!(documented_rounds_of_four_probes_end_as_they_must);

/// How a probe ends.
#[derive(Debug, Clone, Copy)]
enum Probe {
    Good,
    Bad,
    /// Good, and longer than `slow_call_duration`.
    Slow,
    /// Its client leaves.
    Left,
}
use Probe::{Bad, Good, Left, Slow};

fn call(name: &str, probe: Probe) -> Call {
    let call = Call::get("/").header("x-case", name);
    match probe {
        Good => call.header("x-upstream-status", "200"),
        Bad => call.header("x-upstream-status", "500"),
        Slow => call.header("x-upstream-delay-ms", "1600"),
        Left => call.header("x-upstream-fault", "never").cancel(Cancel::After(Duration::from_millis(40))),
    }
}

/// Sends a request; whether it was let through.
async fn passes(rig: &Rig, name: &str, probe: Probe) -> bool {
    match Connection::open(rig.main(), false).await.unwrap().run(call(name, probe)).await.unwrap() {
        Ended::Answered(response) => response.reason().is_none(),
        // Before it could have been turned away, maybe: then it has left no more behind than a probe that left.
        Ended::Cancelled(_) => true,
    }
}

async fn state(rig: &Rig, name: &str) -> u32 {
    let stats = rig.envoy.stats().await.unwrap();
    stats.count("tidegate_circuit_breaker_state", &[("policy", "upstreams"), ("key", name)]) as u32
}

async fn run(rig: &Rig, name: &str, probes: &[Probe], ends: u32) {
    for _ in 0..10 {
        assert!(passes(rig, name, Bad).await, "{name} is closed");
    }
    rig.wait_for_breaker("upstreams", name, OPEN).await;
    for (number, probe) in probes.iter().enumerate() {
        if number == 0 {
            until(async || if passes(rig, name, *probe).await { Ok(()) } else { Err("still open") }).await;
        } else {
            assert_eq!(state(rig, name).await, HALF_OPEN, "{name}: {number} of {probes:?}");
            assert!(passes(rig, name, *probe).await, "{name}: {number} of {probes:?} took all places");
        }
        // One is judged before the next is sent.
        rig.wait_for_idle("upstreams").await;
    }
    assert_eq!(state(rig, name).await, ends, "{name}: {probes:?}");
}

async fn documented_rounds_of_four_probes_end_as_they_must(workers: u32) {
    let breaker = json!({
        "key": [{"header": "x-case"}], "minimum_calls": 10, "open_duration": "0.5s",
        "half_open": {"probes": 4, "timeout": "60s"}, "slow_call_duration": "1.5s", "slow_call_rate_threshold": 50
    });
    let rig = crate::guarded(workers, &breaker).await;
    let cases: [(&str, &[Probe], u32); 9] = [
        // CircuitBreakerStateMachineTest.shouldCloseAfterFailureRateIsBelowThreshold: with the fourth answer, not before.
        ("closes", &[Good, Good, Good, Good], CLOSED),
        ("not-before", &[Good, Good, Good], HALF_OPEN),
        // .shouldIncreaseCounterOnReleasePermission: who leaves frees a place.
        ("left", &[Good, Left, Good, Left, Left, Left, Good, Good], CLOSED),
        // .shouldOpenAfterFailureRateThresholdExceeded2, where here one failure is enough and nobody waits for the others.
        ("first-bad", &[Bad], OPEN),
        ("second-bad", &[Good, Bad], OPEN),
        ("last-bad", &[Good, Good, Good, Bad], OPEN),
        // .shouldOpenAfterSlowCallRateThresholdExceeded: half of four, and one less.
        ("slow", &[Slow, Good, Good, Slow], OPEN),
        ("slow-below", &[Good, Slow, Good, Good], CLOSED),
        // A round decides once all have been answered.
        ("slow-not-before", &[Slow, Slow, Good], HALF_OPEN),
    ];
    for (name, probes, ends) in cases {
        run(&rig, name, probes, ends).await;
    }
}
