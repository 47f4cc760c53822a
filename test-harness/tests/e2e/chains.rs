//! Several Tidegates on a request's way.

use serde_json::json;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Listener, Tidegate};
use tidegate_harness::upstream::Behaviour;
use tidegate_harness::Gate;

use crate::support::{Rig, SOON, main_listener, volley, volley_beside};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(
    rejections_further_down_are_no_failures,
    filters_of_different_names_share_nothing,
);

const OPEN: u32 = 1;

async fn rejections_further_down_are_no_failures(workers: u32) {
    let outer = json!({"policies": [{
        "name": "outer",
        "circuit_breaker": {"key": [{"attribute": "path"}], "minimum_calls": 10, "open_duration": "60s"},
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1000}}
    }]});
    let inner = json!({"policies": [{
        "name": "inner", "match": {"path": "/inner"},
        "rate_limits": [{"name": "none", "rate": "1/h"}], "responses": {"rate_limited": {"status": 503}}
    }]});
    let chain = Listener::new("main")
        .filter(Tidegate::new(&outer).unwrap().name("outer"))
        .filter(Tidegate::new(&inner).unwrap().name("inner").vm_id("inner"));
    let rig = Rig::with(workers, [chain]).await;
    rig.upstream.script(|asked| match asked.path {
        "/failing" => Behaviour::respond(503),
        // As another proxy with Tidegate would answer.
        "/proxied" => Behaviour::respond(503).header("x-tidegate-reason", "overloaded;policy=theirs"),
        _ => Behaviour::respond(200),
    });
    for (path, decision) in [("/inner", "rate_limited"), ("/proxied", "overloaded")] {
        let tally = volley(rig.main(), 40, move |_| Call::get(path)).await.tally();
        let reasons: usize = tally.rejected.iter().filter(|(reason, _)| reason.decision == decision).map(|(_, n)| n).sum();
        assert!(reasons >= 39, "{path}: {tally}");
    }
    rig.wait_for_idle("outer").await;
    assert_eq!(rig.decisions("outer", "admitted").await, 80);
    assert_eq!(rig.decisions("outer", "circuit_open").await, 0);
    // The control: the same statuses from the upstream itself.
    for _ in 0..10 {
        client::get(rig.main(), "/failing").await.unwrap();
    }
    rig.wait_for_breaker("outer", "/failing", OPEN).await;
}

async fn filters_of_different_names_share_nothing(workers: u32) {
    let config = json!({"policies": [{
        "name": "same",
        "rate_limits": [{"name": "all", "rate": "1/h", "burst": 10}],
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 4}}
    }]});
    let tidegate = |name: &str| Tidegate::new(&config).unwrap().name(name);
    let chain = Listener::new("chain").filter(tidegate("first")).filter(tidegate("second"));
    let rig = Rig::with(workers, [main_listener(&config), chain]).await;
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    // Two filters that each have room for four let four through, and not two.
    let held = volley_beside(rig.envoy.address("chain"), 8, |_| Call::get("/"));
    rig.upstream.wait_for_concurrent(4, SOON).await.unwrap();
    gate.open();
    let tally = held.await.unwrap().tally();
    assert_eq!((tally.admitted(), tally.rejections()), (4, 4), "{tally}");
    rig.wait_for_idle("same").await;
    // Nor does a request pay twice out of one purse: six of ten are left.
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(client::get(rig.envoy.address("chain"), "/").await.unwrap().status);
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 429]);
    // The control: a filter of yet another name has not been charged at all.
    assert_eq!(client::get(rig.main(), "/").await.unwrap().status, 200);
}
