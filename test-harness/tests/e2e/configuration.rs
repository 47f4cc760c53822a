//! Configuration: refused with everything that is wrong, taken in either form, updated without forgetting.

use serde_json::{Value, json};
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Builder, Cluster, Envoy, Listener, Tidegate};
use tidegate_harness::upstream::{Behaviour, Upstream};

use crate::support::{Rig, SOON, main_listener, volley, volley_beside};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(
    a_bad_configuration_keeps_envoy_from_starting_and_names_every_error,
    a_configuration_is_read_as_text_and_as_a_struct,
    an_update_keeps_the_state_of_what_did_not_change,
    a_bad_update_leaves_the_last_good_one_serving,
    requests_in_flight_outlive_an_update,
);

const OPEN: u32 = 1;

async fn a_bad_configuration_keeps_envoy_from_starting_and_names_every_error(workers: u32) {
    let bad = json!({"mode": "enforced", "policies": [
        {"name": "Bad Name", "rate_limits": [{"name": "a", "rate": "fast"}, {"name": "b", "rate": "1/s", "burts": 3}]},
        {"name": "twice"},
        {"name": "twice", "circuit_breaker": {"minimum_calls": -1}},
    ]});
    let upstream = Upstream::start().await.unwrap();
    for tidegate in [Tidegate::new(&bad).unwrap(), Tidegate::new(&bad).unwrap().structure(bad.clone())] {
        let builder = Envoy::builder().concurrency(workers).cluster(Cluster::new("upstream", upstream.address()));
        let refused = builder.listener(Listener::new("main").filter(tidegate)).start().await.unwrap_err();
        assert!(refused.exit.is_some(), "{refused}");
        for wrong in [
            "$.mode: ",
            "$.policies[0].name: ",
            r#"$.policies[0].rate_limits[0].rate: expected a rate such as "100/s", got "fast""#,
            "$.policies[0].rate_limits[1].burts: ",
            "\"burst\"",
            "$.policies[2].name: ",
            "$.policies[2].circuit_breaker.minimum_calls: ",
        ] {
            assert!(refused.log.contains(wrong), "{wrong} is not in\n{}", refused.log);
        }
        let line = r#"rate: expected a rate such as "100/s""#;
        assert_eq!(refused.log.matches(line).count(), 1, "said once:\n{}", refused.log);
    }
    // The control: with the errors mended it starts.
    let builder = Envoy::builder().concurrency(workers).cluster(Cluster::new("upstream", upstream.address()));
    builder.listener(main_listener(&json!({"policies": [{"name": "good"}]}))).start().await.unwrap();
}

async fn a_configuration_is_read_as_text_and_as_a_struct(workers: u32) {
    let config = json!({"version": 1, "policies": [
        {"name": "rates", "rate_limits": [{"name": "all", "rate": "1/h", "burst": 3}], "enforce_percent": 100},
    ]});
    let text = Tidegate::new(&config).unwrap().name("text");
    let structure = Tidegate::new(&config).unwrap().name("structure").structure(config.clone());
    let rig = Rig::with(
        workers,
        [Listener::new("text").filter(text), Listener::new("structure").filter(structure), Listener::new("control")],
    )
    .await;
    for (listener, admitted) in [("text", 3), ("structure", 3), ("control", 20)] {
        let tally = volley(rig.envoy.address(listener), 20, |_| Call::get("/")).await.tally();
        assert_eq!(tally.admitted(), admitted, "{listener}: {tally}");
    }
}

/// Limits whose state is to be kept, and one whose rate is a parameter.
fn config(other: &str) -> Value {
    json!({"policies": [
        {"name": "kept", "match": {"path": "/kept"}, "rate_limits": [{"name": "all", "rate": "1/h", "burst": 5}]},
        {"name": "keyed", "match": {"path": "/keyed"},
            "rate_limits": [{"name": "each", "rate": "1/h", "burst": 5, "key": [{"header": "x-client"}]}]},
        {"name": "broken", "match": {"path": "/broken"}, "circuit_breaker": {"minimum_calls": 5, "open_duration": "60s"}},
        {"name": "other", "match": {"path": "/other"}, "rate_limits": [{"name": "all", "rate": other, "burst": 5}]},
    ]})
}

async fn rig(workers: u32, config: &Value) -> Rig {
    let listener = main_listener(config);
    let rig = Rig::built(workers, |builder: Builder, upstream| {
        builder.dynamic_listeners().cluster(Cluster::new("upstream", upstream.address())).listener(listener)
    })
    .await;
    rig.upstream.script(|asked| Behaviour::respond(if asked.path == "/broken" { 503 } else { 200 }));
    rig
}

async fn admitted(rig: &Rig, path: &'static str) -> usize {
    volley(rig.main(), 40, move |_| Call::get(path).header("x-client", "a")).await.tally().admitted()
}

/// Uses up every limit and trips the breaker.
async fn exhaust(rig: &Rig) {
    for path in ["/kept", "/keyed", "/other"] {
        assert_eq!(admitted(rig, path).await, 5, "{path}");
    }
    for _ in 0..5 {
        assert_eq!(client::get(rig.main(), "/broken").await.unwrap().reason(), None);
    }
    rig.wait_for_breaker("broken", "upstream", OPEN).await;
}

async fn updates(rig: &Rig, result: &str) -> f64 {
    rig.envoy.stats().await.unwrap().count("tidegate_config_updates_total", &[("result", result)])
}

async fn an_update_keeps_the_state_of_what_did_not_change(workers: u32) {
    let mut rig = rig(workers, &config("1/h")).await;
    exhaust(&rig).await;
    assert_eq!(updates(&rig, "accepted").await, 1.0);
    rig.envoy.update_listeners(&[main_listener(&config("2/h"))]).await.unwrap();
    // The control: what did change begins anew, which also tells that the update is at work.
    let other = client::get(rig.main(), "/other").await.unwrap();
    assert_eq!((other.status, other.header("ratelimit-policy")), (200, Some(r#""all";q=2;w=3600"#)));
    assert_eq!(admitted(&rig, "/other").await, 4);
    for path in ["/kept", "/keyed", "/broken"] {
        assert_eq!(admitted(&rig, path).await, 0, "{path}");
    }
    assert_eq!(rig.upstream.seen().iter().filter(|seen| seen.path == "/broken").count(), 5);
    rig.wait_for_breaker("broken", "upstream", OPEN).await;
    assert_eq!((updates(&rig, "accepted").await, updates(&rig, "rejected").await), (2.0, 0.0));
}

async fn a_bad_update_leaves_the_last_good_one_serving(workers: u32) {
    let mut rig = rig(workers, &config("1/h")).await;
    exhaust(&rig).await;
    let refused = rig.envoy.update_listeners(&[main_listener(&config("fast"))]).await.unwrap_err().to_string();
    assert!(refused.contains("$.policies[3].rate_limits[0].rate: "), "{refused}");
    for path in ["/kept", "/keyed", "/other", "/broken"] {
        assert_eq!(admitted(&rig, path).await, 0, "{path}");
    }
    assert_eq!((updates(&rig, "accepted").await, updates(&rig, "rejected").await), (1.0, 1.0));
    // The control: a good one is taken after it.
    rig.envoy.update_listeners(&[main_listener(&config("3/h"))]).await.unwrap();
    assert_eq!(admitted(&rig, "/other").await, 5);
    assert_eq!((updates(&rig, "accepted").await, updates(&rig, "rejected").await), (2.0, 1.0));
}

async fn requests_in_flight_outlive_an_update(workers: u32) {
    let places = |limit: u32| {
        let fixed = json!({"limit": {"algorithm": "fixed", "limit": limit}});
        json!({"policies": [{"name": "places", "load_shedding": fixed}]})
    };
    let listener = main_listener(&places(4));
    let mut rig = Rig::built(workers, |builder: Builder, upstream| {
        let builder = builder.dynamic_listeners().drain_time(SOON);
        builder.cluster(Cluster::new("upstream", upstream.address())).listener(listener)
    })
    .await;
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let first = volley_beside(rig.main(), 4, |_| Call::get("/"));
    rig.upstream.wait_for_concurrent(4, SOON).await.unwrap();
    rig.envoy.update_listeners(&[main_listener(&places(6))]).await.unwrap();
    rig.wait_for_stat("tidegate_concurrency_limit", &[("policy", "places")], 6).await;
    // Four of six places are still taken.
    let second = volley_beside(rig.main(), 10, |_| Call::get("/"));
    rig.upstream.wait_for_concurrent(6, SOON).await.unwrap();
    rig.wait_for_stat("tidegate_inflight", &[("policy", "places")], 6).await;
    rig.wait_for_decisions("places", "overloaded", 8).await;
    gate.open();
    let (first, second) = (first.await.unwrap().tally(), second.await.unwrap().tally());
    assert_eq!((first.admitted(), second.admitted(), second.rejections()), (4, 2, 8), "{first}\n{second}");
    rig.wait_for_idle("places").await;
    // The control: with nothing in flight all six are free.
    gate.close();
    let third = volley_beside(rig.main(), 10, |_| Call::get("/"));
    rig.upstream.wait_for_concurrent(6, SOON).await.unwrap();
    rig.wait_for_decisions("places", "overloaded", 12).await;
    gate.open();
    assert_eq!(third.await.unwrap().tally().admitted(), 6);
}
