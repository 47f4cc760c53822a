//! Beside Envoy's retries and its outlier detection: what the breaker sees of the upstream, and what it does not.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call, Load, Schedule, Tally};
use tidegate_harness::envoy::{Cluster, Listener, Route};
use tidegate_harness::upstream::{Behaviour, Upstream};

use crate::support::{Rig, main_listener, until, volley};
use crate::{OPEN, config, transitions, trips};

fn ejecting() -> Value {
    json!({
        "outlier_detection": {
            "consecutive_5xx": 5, "interval": "0.2s", "base_ejection_time": "60s", "max_ejection_percent": 100,
            "enforcing_success_rate": 0, "enforcing_failure_percentage": 0
        },
        // Workers hear of an ejection when it counts as one: otherwise one that follows another is kept back for a second.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"}
    })
}

/// Two endpoints, of which the first fails always. Listener `control` leads there without a filter.
async fn half_failing(cluster: impl FnOnce(Cluster) -> Cluster, route: impl FnOnce(Route) -> Route) -> (Rig, Upstream) {
    let bad = Upstream::start().await.unwrap();
    bad.always(Behaviour::respond(503));
    let breaker = json!({"minimum_calls": 20, "failure_rate_threshold": 40, "open_duration": "0.5s"});
    let listener = main_listener(&config(&breaker)).route(route(Route::prefix("/", "upstream")));
    let rig = Rig::built(2, |builder, good| {
        let builder = builder.cluster(cluster(Cluster::new("upstream", good.address()).endpoint(bad.address())));
        builder.listener(listener).listener(Listener::new("control"))
    })
    .await;
    (rig, bad)
}

/// Waits until Envoy has ejected so many endpoints.
async fn wait_for_ejections(rig: &Rig, ejected: u32) {
    rig.wait_for_stat("envoy_cluster_outlier_detection_ejections_active", &[], ejected).await;
}

async fn load(rig: &Rig) -> Tally {
    Load::new(rig.main(), Schedule::constant(200.0, Duration::from_secs(1))).run().await.tally()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_hide_a_bad_endpoint_from_the_breaker() {
    let (rig, bad) = half_failing(|cluster| cluster, |route| route.retry("5xx", 3)).await;
    let tally = load(&rig).await;
    assert_eq!(transitions(&rig.envoy, "open").await, 0, "{tally}");
    assert!(bad.total() > 50, "{} tries failed unseen", bad.total());
    // The control: without retries half of all requests fail, and the good endpoint is cut off with the bad.
    let (rig, _bad) = half_failing(|cluster| cluster, |route| route).await;
    let tally = load(&rig).await;
    assert!(transitions(&rig.envoy, "open").await > 0 && tally.rejections() > 50, "{tally}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlier_detection_takes_a_bad_endpoint_away_before_the_breaker_trips() {
    let (rig, bad) = half_failing(|cluster| cluster.raw(ejecting()), |route| route).await;
    // Up to its fifth failure, which ejects it: some ten calls, fewer than the breaker judges.
    until(async || {
        client::get(rig.main(), "/").await.map_err(|error| error.to_string())?;
        if bad.total() == 5 { Ok(()) } else { Err(format!("{} requests at the bad endpoint", bad.total())) }
    })
    .await;
    wait_for_ejections(&rig, 1).await;
    let tally = volley(rig.main(), 60, |_| Call::get("/")).await.tally();
    assert_eq!(tally.answered.get(&200), Some(&60), "{tally}");
    assert_eq!((transitions(&rig.envoy, "open").await, bad.total()), (0, 5));
    // The control: without ejection as many requests trip.
    let (rig, _bad) = half_failing(|cluster| cluster, |route| route).await;
    for _ in 0..70 {
        client::get(rig.main(), "/").await.unwrap();
    }
    assert!(transitions(&rig.envoy, "open").await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_endpoint_ejected_the_probes_fail_until_one_is_let_back() {
    let (rig, bad) = half_failing(|cluster| cluster.raw(ejecting()), |route| route).await;
    rig.upstream.always(Behaviour::respond(503));
    volley(rig.control(), 40, |_| Call::get("/")).await;
    wait_for_ejections(&rig, 2).await;
    // Both endpoints are well again, but ejected: to the breaker an upstream without hosts is one that fails.
    let seen = rig.upstream.total() + bad.total();
    rig.upstream.always(Behaviour::respond(200));
    bad.always(Behaviour::respond(200));
    let tally = volley(rig.main(), 20, |_| Call::get("/")).await.tally();
    assert_eq!(tally.local.get(&503), Some(&20), "{tally}");
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    until(async || {
        volley(rig.main(), 1, |_| Call::get("/")).await;
        match trips(&rig.envoy, "probe_failed").await {
            0 | 1 => Err("fewer than two rounds of probes have failed"),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(rig.upstream.total() + bad.total(), seen, "no request reached an endpoint");
    // The control: the same recovery without ejection ends with a closed breaker.
    let (rig, bad) = half_failing(|cluster| cluster, |route| route).await;
    rig.upstream.always(Behaviour::respond(503));
    volley(rig.main(), 20, |_| Call::get("/")).await;
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    rig.upstream.always(Behaviour::respond(200));
    bad.always(Behaviour::respond(200));
    until(async || {
        volley(rig.main(), 8, |_| Call::get("/")).await;
        match transitions(&rig.envoy, "closed").await {
            0 => Err("not closed"),
            _ => Ok(()),
        }
    })
    .await;
}
