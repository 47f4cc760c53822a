//! A healthy upstream under any load it can carry sees no rejection.

use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};
use tidegate_harness::client::{Call, Cancel, Load, Schedule};
use tidegate_harness::ledger::Ledgers;

use crate::support::seed;
use crate::transitions;

/// Random arrivals, latencies and statuses, a tenth of them failures; clients that leave; pauses.
async fn rejections(workers: u32, window: Value, failures_percent: u32, seed: u64) -> usize {
    let breaker =
        json!({"window": window, "minimum_calls": 20, "consecutive_failures": 12, "slow_call_duration": "2s"});
    let rig = crate::guarded(workers, &breaker).await;
    let second = Duration::from_secs(1);
    let schedule = Schedule::constant(20.0, 2 * second)
        .then_ramp(250.0, 4 * second)
        .then_burst(50)
        .then(0.0, second)
        .then_burst(50)
        .then(120.0, 4 * second);
    let load = Load::new(rig.main(), schedule.poisson()).seed(seed).calls(move |_, random| {
        let status = match random.random_range(0..100) {
            bad if bad < failures_percent => 503,
            90..95 => 404,
            _ => 200,
        };
        let call = Call::get("/").header("x-upstream-status", status.to_string());
        let call = call.header("x-upstream-delay-ms", random.random_range(0..40_u32).to_string());
        match random.random_range(0..20) {
            0 => call.cancel(Cancel::After(Duration::from_millis(random.random_range(0..40)))),
            1 => call.cancel(Cancel::AtHeaders),
            _ => call,
        }
    });
    let outcomes = load.run().await;
    Ledgers::of_clients([&outcomes]).and_upstream(&rig.upstream).check_upstream().unwrap();
    let rejected = outcomes.tally().rejections();
    println!(
        "{workers} workers, {window}, {failures_percent} % failures: {rejected} of {} rejected",
        outcomes.all.len()
    );
    assert_eq!(rejected > 0, transitions(&rig.envoy, "open").await > 0);
    rejected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_upstream_never_trips_over_a_long_random_run() {
    let seed = seed();
    for window in [json!({"type": "time", "duration": "10s"}), json!({"type": "count", "calls": 50})] {
        let healthy = |workers: u32| rejections(workers, window.clone(), 10, seed + u64::from(workers));
        let (one, two, four, eight) = tokio::join!(healthy(1), healthy(2), healthy(4), healthy(8));
        assert_eq!([one, two, four, eight], [0; 4]);
        // The control: the same load on an upstream that is not.
        assert!(rejections(4, window, 70, seed).await > 100);
    }
}
