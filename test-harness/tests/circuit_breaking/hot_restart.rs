//! A hot restart: two processes, of which the new one shows the sum of both, and goes by its own.

use std::time::Duration;

use serde_json::json;
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Builder, Cluster, Envoy};
use tidegate_harness::upstream::{Behaviour, Upstream};

use crate::support::{Rig, SOON, main_listener, until};
use crate::{CLOSED, OPEN, config};

/// How long the old process stays, from when the new one is ready.
const TOGETHER: Duration = Duration::from_secs(15);

/// Waits until this is what people see of the breaker. Envoy does not list a gauge that only the old process had set.
async fn shows(envoy: &Envoy, state: u32) {
    let labels = [("policy", "upstreams"), ("key", "upstream")];
    let waited = envoy.wait_for_stats(SOON, |stats| match stats.count("tidegate_circuit_breaker_state", &labels) {
        shown if shown == f64::from(state) => Ok(()),
        shown => Err(format!("{shown} is shown, not {state}")),
    });
    waited.await.unwrap();
}

/// Waits until this is how many people see in flight.
async fn in_flight(envoy: &Envoy, number: u32) {
    let waited = envoy.wait_for_stats(SOON, |stats| match stats.count("tidegate_inflight", &[("policy", "places")]) {
        shown if shown == f64::from(number) => Ok(()),
        shown => Err(format!("{shown} are shown, not {number}")),
    });
    waited.await.unwrap();
}

/// Which of four requests a limit of three admits.
async fn limited(envoy: &Envoy) -> Vec<bool> {
    let mut admitted = Vec::new();
    for _ in 0..4 {
        admitted.push(client::get(envoy.address("main"), "/limited").await.unwrap().reason().is_none());
    }
    admitted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_process_begins_anew_and_shows_the_old_ones_states_too() {
    let mut both = config(&json!({
        "window": {"type": "time", "duration": "10m"}, "minimum_calls": 10, "failure_rate_threshold": 100,
        "open_duration": "60s"
    }));
    both["policies"][0]["match"] = json!({"path": "/"});
    let rates = json!([{"name": "few", "rate": "3/h"}]);
    let rates = json!({"name": "rates", "match": {"path": "/limited"}, "rate_limits": rates});
    let places = json!({"limit": {"algorithm": "fixed", "limit": 2}});
    let places = json!({"name": "places", "match": {"path": "/held"}, "load_shedding": places});
    both["policies"].as_array_mut().unwrap().extend([rates, places]);
    let build = |builder: Builder, upstream: &Upstream| {
        builder.concurrency(2).cluster(Cluster::new("upstream", upstream.address())).listener(main_listener(&both))
    };
    let mut old = Rig::built(2, |builder, upstream| build(builder, upstream).restartable()).await;
    assert_eq!(limited(&old.envoy).await, [true, true, true, false]);
    crate::trip(&old).await;
    let gate = Gate::new();
    let hold_two = || old.upstream.enqueue([(); 2].map(|()| Behaviour::respond(200).hold(&gate)));
    let held = |envoy: &Envoy| tokio::spawn(client::get(envoy.address("main"), "/held"));
    hold_two();
    let of_the_old = [held(&old.envoy), held(&old.envoy)];
    old.upstream.wait_for_concurrent(2, SOON).await.unwrap();

    let new = build(Envoy::builder(), &old.upstream).succeeds(&old.envoy, TOGETHER).unwrap().start().await.unwrap();
    assert_eq!(limited(&new).await, [true, true, true, false], "what the old one has spent is spent for the new one");
    // Both places of the old one are taken. The new one has two of its own, and shows all four.
    hold_two();
    let of_the_new = [held(&new), held(&new)];
    old.upstream.wait_for_concurrent(4, SOON).await.unwrap();
    in_flight(&new, 4).await;
    let beyond = client::get(new.address("main"), "/held").await.unwrap();
    assert_eq!(beyond.reason().unwrap().decision, "overloaded");
    gate.open();
    for held in of_the_old.into_iter().chain(of_the_new) {
        assert_eq!(held.await.unwrap().unwrap().status, 200);
    }
    in_flight(&new, 0).await;
    // Ten failures trip. The old one's ten are none of the new one's.
    let fail = || client::send(new.address("main"), Call::get("/").header("x-upstream-status", "500"));
    for number in 1..10 {
        let response = fail().await.unwrap();
        assert_eq!((response.status, response.reason()), (500, None), "{number}");
    }
    // What is open is the old one's.
    shows(&new, OPEN).await;
    assert_eq!(old.envoy.exited().unwrap(), None, "the old process was gone before the two were compared");
    until(async || match old.envoy.exited().unwrap() {
        None => Err("the old process is there"),
        Some(_) => Ok(()),
    })
    .await;
    shows(&new, CLOSED).await;
    // The control, and that the new one's nine went nowhere with the old one: the tenth trips.
    assert_eq!(fail().await.unwrap().reason(), None);
    shows(&new, OPEN).await;
    assert_eq!(fail().await.unwrap().reason().unwrap().decision, "circuit_open");
}
