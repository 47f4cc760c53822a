//! Fixed concurrency limits: as many as allowed are in flight over all workers, never more, and the rest are told at once.

use serde_json::json;
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::Listener;
use tidegate_harness::ledger::Ledgers;
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, SOON, main_listener, until, volley, volley_beside};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(exactly_the_limit_is_in_flight_and_the_rest_are_rejected_at_once);

async fn exactly_the_limit_is_in_flight_and_the_rest_are_rejected_at_once(workers: u32) {
    let config = json!({"policies": [
        {"name": "ten", "load_shedding": {"limit": {"algorithm": "fixed", "limit": 10}}},
    ]});
    let rig = Rig::with(workers, [main_listener(&config), Listener::new("control")]).await;
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let labels = [("policy", "ten")];
    rig.wait_for_stat("tidegate_concurrency_limit", &labels, 10).await;
    let before = rig.envoy.stats().await.unwrap();

    let forty = volley_beside(rig.main(), 40, |_| Call::get("/"));
    // Ten are held upstream, and the other thirty have had their answer while they are.
    rig.upstream.wait_for_concurrent(10, SOON).await.unwrap();
    until(async || match rig.decisions("ten", "overloaded").await {
        30 => Ok(()),
        other => Err(format!("{other} rejected")),
    })
    .await;
    rig.wait_for_stat("tidegate_inflight", &labels, 10).await;
    let rejected = client::get(rig.main(), "/").await.unwrap();
    assert_eq!((rejected.status, rejected.header("x-tidegate-reason")), (503, Some("overloaded;policy=ten")));
    assert_eq!(rejected.header("retry-after"), None, "nobody knows when a place will be free");
    gate.open();
    let outcomes = forty.await.unwrap();
    rig.wait_for_idle("ten").await;
    let tally = outcomes.tally();
    assert_eq!((tally.admitted(), tally.rejected_by("ten", "overloaded")), (10, 30), "{tally}");
    Ledgers::of_clients([&outcomes]).check_upstream().unwrap_err();
    Ledgers::of_clients([&outcomes]).and_upstream(&rig.upstream).check_upstream().unwrap();
    let grown = rig.envoy.stats().await.unwrap().since(&before);
    assert_eq!(grown.count("tidegate_requests_total", &[("policy", "ten"), ("decision", "admitted")]), 10.0);

    // Over and over, as places come and go.
    let tally = volley(rig.main(), 300, |_| Call::get("/").header("x-upstream-delay-ms", "1")).await.tally();
    assert!(tally.admitted() >= 10, "{tally}");
    assert_eq!(tally.admitted() + tally.rejected_by("ten", "overloaded"), 300, "{tally}");
    assert_eq!(rig.upstream.max_concurrent(), 10);
    rig.wait_for_idle("ten").await;

    // The control: without Tidegate all forty are there.
    gate.close();
    let forty = volley_beside(rig.control(), 40, |_| Call::get("/"));
    rig.upstream.wait_for_concurrent(40, SOON).await.unwrap();
    gate.open();
    assert_eq!(forty.await.unwrap().tally().admitted(), 40);
}
