//! Several Tidegates on a request's way.

use serde_json::json;
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Listener, Tidegate};
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, SOON, main_listener, volley, volley_beside};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(rejections_further_down_are_no_failures, filters_of_different_names_share_nothing,);

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
        // Once the first have been judged, the second would meet an open circuit.
        for _ in 0..2 {
            let tally = volley(rig.main(), 20, move |_| Call::get(path)).await.tally();
            let of = tally.rejected.iter().filter(|(reason, _)| reason.decision == decision);
            assert!(of.map(|(_, number)| number).sum::<usize>() >= 19, "{path}: {tally}");
            rig.wait_for_idle("outer").await;
        }
    }
    assert_eq!(rig.decisions("outer", "admitted").await, 80);
    assert_eq!(rig.decisions("outer", "circuit_open").await, 0);
    // The control: the same statuses from the upstream itself.
    for _ in 0..10 {
        client::get(rig.main(), "/failing").await.unwrap();
    }
    rig.wait_for_breaker("outer", "/failing", OPEN).await;
}

async fn filters_of_different_names_share_nothing(workers: u32) {
    let config = json!({"policies": [
        {"name": "same", "match": {"path": "/rates"}, "rate_limits": [{"name": "all", "rate": "1/h", "burst": 10}]},
        {"name": "places", "match": {"path": "/places"}, "load_shedding": {"limit": {"algorithm": "fixed", "limit": 4}}},
    ]});
    let tidegate = |name: &str| Tidegate::new(&config).unwrap().name(name);
    let chain = Listener::new("chain").filter(tidegate("first")).filter(tidegate("second"));
    let rig = Rig::with(workers, [main_listener(&config), chain]).await;
    // Two filters that each have room for four let four through, and count eight between them.
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let held = volley_beside(rig.envoy.address("chain"), 8, |_| Call::get("/places"));
    rig.upstream.wait_for_concurrent(4, SOON).await.unwrap();
    rig.wait_for_decisions("places", "overloaded", 4).await;
    rig.wait_for_stat("tidegate_inflight", &[("policy", "places")], 8).await;
    gate.open();
    let tally = held.await.unwrap().tally();
    assert_eq!((tally.admitted(), tally.rejections()), (4, 4), "{tally}");
    rig.wait_for_idle("places").await;
    // A request does not pay twice out of one purse.
    let tally = volley(rig.envoy.address("chain"), 40, |_| Call::get("/rates")).await.tally();
    assert_eq!(tally.admitted(), 10, "{tally}");
    let tally = volley(rig.main(), 40, |_| Call::get("/rates")).await.tally();
    assert_eq!(tally.admitted(), 10, "a filter of yet another name has not been charged: {tally}");
    // Each filter was configured once, as far as anybody is told.
    let stats = rig.envoy.stats().await.unwrap();
    assert_eq!(stats.stat("tidegate_config_updates_total", &[("result", "accepted")]), Some(3.0));
    // The control: filters of the same name share what their policies have in common.
    let again = Listener::new("again").filter(tidegate("first"));
    let rig = Rig::with(workers, [Listener::new("main").filter(tidegate("first")), again]).await;
    let tally = volley(rig.main(), 40, |_| Call::get("/rates")).await.tally();
    assert_eq!(tally.admitted(), 10, "{tally}");
    let tally = volley(rig.envoy.address("again"), 40, |_| Call::get("/rates")).await.tally();
    assert_eq!(tally.admitted(), 0, "{tally}");
}
