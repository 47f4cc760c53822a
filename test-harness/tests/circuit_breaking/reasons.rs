//! Why a breaker opened, as clients are told and as the log says.

use serde_json::json;
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call};
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, SOON, until};
use crate::{CLOSED, OPEN, crowd, wait_for_transitions, with_1_2_4_and_8_workers};

with_1_2_4_and_8_workers!(every_reason_is_told_in_the_log_and_to_those_who_are_rejected);

fn told(reason: &str) -> String {
    format!("circuit_open;policy=upstreams;trip={reason}")
}

/// Waits until it opened for this reason, and a rejection says why, and so does the log, whenever it is written.
async fn opened(rig: &Rig, from: &str, reason: &str) {
    until(async || match crate::trips(&rig.envoy, reason).await {
        1 => Ok(()),
        now => Err(format!("opened {now} times for {reason}")),
    })
    .await;
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    let rejected = client::get(rig.main(), "/").await.unwrap();
    assert_eq!((rejected.status, rejected.header("x-tidegate-reason")), (503, Some(told(reason).as_str())));
    let line = format!("circuit breaker upstreams/upstream: {from} to open ({reason}): ");
    rig.envoy.wait_for_log(&line, 1, SOON).await.unwrap();
}

/// Sends what is asked for until one is let through as a probe.
async fn probe(rig: &Rig, call: Call) {
    let before = rig.upstream.total();
    until(async || {
        client::send(rig.main(), call.clone()).await.unwrap();
        if rig.upstream.total() > before { Ok(()) } else { Err("no probe yet") }
    })
    .await;
}

async fn every_reason_is_told_in_the_log_and_to_those_who_are_rejected(workers: u32) {
    // Long enough to be asked within: a stats poll and one request lie between the trip and what a rejection says of it.
    let breaker = json!({
        "minimum_calls": 10, "consecutive_failures": 20, "open_duration": "3s", "open_duration_max": "3s",
        "half_open": {"probes": 1, "timeout": "3s"}, "recovery": {"ramp": "60s"}
    });
    let rig = crate::guarded(workers, &breaker).await;
    crate::trip(&rig).await;
    opened(&rig, "closed", "failure_rate").await;

    probe(&rig, Call::get("/").header("x-upstream-status", "500")).await;
    opened(&rig, "half_open", "probe_failed").await;

    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let mut held = Vec::new();
    until(async || {
        held.push(tokio::spawn(crowd(rig.main(), 1, 1, "/")));
        if rig.upstream.concurrent() == 1 { Ok(()) } else { Err("no probe yet") }
    })
    .await;
    // While it is out, the reason is that of the last time.
    let rejected = client::get(rig.main(), "/").await.unwrap();
    assert_eq!(rejected.header("x-tidegate-reason"), Some(told("probe_failed").as_str()));
    opened(&rig, "half_open", "probe_timeout").await;
    gate.open();
    rig.upstream.recover();

    probe(&rig, Call::get("/")).await;
    wait_for_transitions(&rig, "closed", 1).await;
    rig.wait_for_breaker("upstreams", "upstream", CLOSED).await;
    // Nine of ten are rejected now, and nobody says for how long: forty in a row pass once in 10^40 times.
    let outcomes = crowd(rig.main(), 40, 40, "/").await;
    let recovering =
        outcomes.all.iter().filter_map(|outcome| outcome.header("x-tidegate-reason").map(|reason| (outcome, reason)));
    let recovering: Vec<_> = recovering.collect();
    assert!(!recovering.is_empty());
    for (outcome, reason) in recovering {
        assert_eq!((reason, outcome.header("retry-after")), (told("recovering").as_str(), None));
    }
    // The control: each was told once, by the worker that made the change.
    let log = rig.envoy.log();
    for reason in ["failure_rate", "probe_failed", "probe_timeout"] {
        assert_eq!(log.matches(&format!("to open ({reason})")).count(), 1, "{reason}");
        assert_eq!(crate::trips(&rig.envoy, reason).await, 1, "{reason}");
    }
    for reason in ["slow_call_rate", "consecutive_failures"] {
        assert_eq!(crate::trips(&rig.envoy, reason).await, 0, "{reason}");
    }
}
