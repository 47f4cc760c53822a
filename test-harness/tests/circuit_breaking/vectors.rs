//! The sequences that resilience4j and linkerd document, call by call, on whichever worker each comes to.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call};

use crate::support::Rig;
use crate::with_1_2_4_and_8_workers;

with_1_2_4_and_8_workers!(documented_sequences_trip_at_their_last_call_and_not_before);

/// An answer of the upstream.
#[derive(Clone, Copy)]
enum Step {
    Good,
    Bad,
    /// 429.
    Limited,
    /// Good, or bad, and longer than `slow_call_duration`.
    SlowGood,
    SlowBad,
    /// Longer than the window.
    Pause,
}
use Step::{Bad, Good, Limited, Pause, SlowBad, SlowGood};

struct Case {
    name: &'static str,
    breaker: Value,
    steps: &'static [Step],
    /// The reason for which it is open after the last step; none while it must be closed.
    trip: Option<&'static str>,
}

fn cases() -> Vec<Case> {
    let case = |name, breaker: &Value, steps, trip| Case { name, breaker: breaker.clone(), steps, trip };
    let time = json!({"minimum_calls": 5, "open_duration": "60s"});
    let count = json!({"minimum_calls": 5, "window": {"type": "count", "calls": 5}, "open_duration": "60s"});
    let slow = json!({
        "minimum_calls": 5, "failure_rate_threshold": 60, "slow_call_duration": "1.5s", "slow_call_rate_threshold": 50,
        "open_duration": "60s"
    });
    let short = json!({"minimum_calls": 5, "window": {"type": "time", "duration": "2s"}, "open_duration": "60s"});
    let unified = json!({"minimum_calls": 7, "consecutive_failures": 3, "open_duration": "60s"});
    let rate = Some("failure_rate");
    vec![
        // resilience4j, CircuitBreakerStateMachineTest: shouldOpenAfterFailureRateThresholdExceeded.
        case("rate-time", &time, &[Bad, Bad, Bad, Good, Good], rate),
        case("rate-count", &count, &[Bad, Bad, Bad, Good, Good], rate),
        case("rate-below", &time, &[Bad, Bad, Good, Good, Good], None),
        case("rate-rolls", &count, &[Bad, Bad, Good, Good, Good, Good, Bad, Bad], None),
        case("rate-rolled", &count, &[Bad, Bad, Good, Good, Good, Good, Bad, Bad, Bad], rate),
        // resilience4j: shouldOpenAfterSlowCallRateThresholdExceeded.
        case("slow", &slow, &[SlowBad, SlowGood, Bad, Good, SlowGood], Some("slow_call_rate")),
        case("slow-below", &slow, &[SlowBad, SlowGood, Bad, Good, Good], None),
        // linkerd, success_rate.rs: cold_start_holds_until_min_requests, failure_burst_trips_independent_of_rate.
        case("cold", &time, &[Bad, Bad, Bad, Bad], None),
        case("burst", &time, &[Bad, Bad, Bad, Bad, Bad], rate),
        // linkerd, success_rate.rs: samples_age_out_after_window.
        case("aged", &short, &[Bad, Bad, Bad, Bad, Pause, Bad, Bad, Bad, Bad], None),
        case("aged-not", &time, &[Bad, Bad, Bad, Bad, Pause, Bad], rate),
        // linkerd, unified.rs: failures in a row are checked first and need no minimum; 429 only lowers the rate.
        case("row", &unified, &[Bad, Bad, Bad], Some("consecutive_failures")),
        case("row-broken", &unified, &[Bad, Bad, Good, Bad, Bad], None),
        case("row-limited", &unified, &[Bad, Bad, Limited, Bad, Bad, Limited], None),
        case("limited", &unified, &[Bad, Bad, Limited, Bad, Bad, Limited, Limited], rate),
    ]
}

async fn run(rig: &Rig, Case { name, steps, trip, .. }: Case) {
    let path = format!("/{name}");
    for (number, step) in steps.iter().enumerate() {
        let (status, delay) = match step {
            Good => (200, "0"),
            Bad => (503, "0"),
            Limited => (429, "0"),
            SlowGood => (200, "1600"),
            SlowBad => (503, "1600"),
            Pause => {
                // The sequence's own time, not a wait for anything.
                tokio::time::sleep(Duration::from_millis(2_100)).await;
                continue;
            }
        };
        let call = Call::get(path.as_str()).header("x-upstream-status", status.to_string());
        let response = client::send(rig.main(), call.header("x-upstream-delay-ms", delay)).await.unwrap();
        assert_eq!((response.status, response.reason()), (status, None), "{name}, step {number}");
        // One is judged before the next is sent.
        rig.wait_for_idle(name).await;
    }
    let next = client::get(rig.main(), &path).await.unwrap();
    let expected = trip.map(|reason| format!("circuit_open;policy={name};trip={reason}"));
    assert_eq!(next.header("x-tidegate-reason"), expected.as_deref(), "{name}");
}

async fn documented_sequences_trip_at_their_last_call_and_not_before(workers: u32) {
    let policies: Vec<_> = cases()
        .iter()
        .map(|Case { name, breaker, .. }| {
            let shedding = json!({"limit": {"algorithm": "fixed", "limit": 1000}});
            let path = format!("/{name}");
            json!({"name": name, "match": {"path": path}, "circuit_breaker": breaker, "load_shedding": shedding})
        })
        .collect();
    let rig = Rig::new(workers, &json!({"policies": policies})).await;
    for case in cases() {
        run(&rig, case).await;
    }
}
