//! One trip opens every worker at its next request.

use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{Load, Schedule};
use tidegate_harness::envoy::Listener;
use tidegate_harness::ledger::Ledgers;
use tidegate_harness::upstream::Behaviour;

use crate::clock::{Begun, begun, changes, timed};
use crate::support::main_listener;
use crate::{CONNECTIONS, all_took_part, config, with_1_2_4_and_8_workers};

with_1_2_4_and_8_workers!(after_a_trip_at_most_one_request_of_each_other_worker_passes);

async fn after_a_trip_at_most_one_request_of_each_other_worker_passes(workers: u32) {
    const REQUESTS: usize = 800;
    let breaker = json!({"minimum_calls": 100, "open_duration": "60s"});
    let rig = crate::clock::rig(workers, [timed(main_listener(&config(&breaker))), Listener::new("control")]).await;
    rig.upstream.always(Behaviour::respond(503));
    let load = |at| Load::new(at, Schedule::constant(800.0, Duration::from_secs(1)).poisson()).http2(CONNECTIONS);
    let outcomes = load(rig.main()).run().await;
    Ledgers::of_clients([&outcomes]).and_upstream(&rig.upstream).check_upstream().unwrap();
    all_took_part(&rig, workers).await;

    let tripped = changes(&rig, "upstreams", "closed to open", 1).await[0].at;
    let sent = outcomes.all.len();
    let begun = begun(&rig, "main", sent).await;
    let admitted = begun.iter().filter(|request| request.admitted()).count();
    let leaked = begun.iter().filter(|request| request.at > tripped && request.admitted()).count();
    let rejected = |request: &&Begun| request.decision.starts_with("circuit_open");
    let rejected = begun.iter().filter(rejected).count();
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
