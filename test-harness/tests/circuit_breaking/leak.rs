//! One trip opens every worker at its next request.

use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{Load, Schedule};
use tidegate_harness::envoy::{Cluster, Listener};
use tidegate_harness::ledger::Ledgers;
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, SOON, main_listener};
use crate::{config, with_1_2_4_and_8_workers};

with_1_2_4_and_8_workers!(after_a_trip_at_most_one_request_of_each_other_worker_passes);

/// Envoy's log and its access log show the same clock: so it is known which requests began after the trip.
async fn after_a_trip_at_most_one_request_of_each_other_worker_passes(workers: u32) {
    const REQUESTS: usize = 800;
    let breaker = json!({"minimum_calls": 100, "open_duration": "60s"});
    let main = main_listener(&config(&breaker)).access_log("%START_TIME(%s.%6f)% %FILTER_STATE(wasm.tidegate:PLAIN)%");
    let rig = Rig::built(workers, |builder, upstream| {
        builder
            .argument("--log-format")
            .argument("%E.%f %v")
            .cluster(Cluster::new("upstream", upstream.address()))
            .listener(main)
            .listener(Listener::new("control"))
    })
    .await;
    rig.upstream.always(Behaviour::respond(503));
    let load = |at| Load::new(at, Schedule::constant(800.0, Duration::from_secs(1)).poisson()).http2(32);
    let outcomes = load(rig.main()).run().await;
    Ledgers::of_clients([&outcomes]).and_upstream(&rig.upstream).check_upstream().unwrap();

    let log = rig.envoy.wait_for_log("closed to open", 1, SOON).await.unwrap();
    let line = log.lines().find(|line| line.contains("closed to open")).unwrap();
    let tripped: f64 = line.split(' ').next().unwrap().parse().unwrap();
    let sent = outcomes.all.len();
    let lines = rig.envoy.wait_for_access_log("main", sent, SOON).await.unwrap();
    let begun: Vec<(f64, &str)> = lines
        .iter()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(began, decision)| (began.parse().unwrap(), decision))
        .collect();
    let admitted = begun.iter().filter(|(_, decision)| *decision == "admitted").count();
    let leaked = begun.iter().filter(|(began, decision)| *began > tripped && *decision == "admitted").count();
    let rejected = begun.iter().filter(|(_, decision)| decision.starts_with("circuit_open")).count();
    println!("{workers} workers: {admitted} of {sent} admitted, {leaked} of them begun after the trip");
    assert!(leaked < workers as usize, "{leaked} requests began after the trip and passed");
    assert_eq!((admitted + rejected, rig.upstream.total()), (sent, admitted));
    // Enough of them came after the trip to tell. How many came before is the machine's doing: while it stalls, answers
    // are out and nothing is known of them yet.
    assert!(rejected > REQUESTS / 10, "{rejected} of {sent} rejected");

    // The control: without Tidegate all of them go to an upstream that fails each.
    let tally = load(rig.control()).name("control").run().await.tally();
    assert_eq!((tally.answered.get(&503), tally.admitted()), (Some(&tally.sent), tally.sent), "{tally}");
}
