//! What operators set: keys and their number, states by hand, shadow mode, updates.

use serde_json::json;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Cluster, Listener, Tidegate};
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, volley};
use crate::{OPEN, config, transitions};

fn call(path: &str, key: &str, status: u16) -> Call {
    Call::get(path).header("x-key", key).header("x-upstream-status", status.to_string())
}

async fn fail(rig: &Rig, path: &'static str, key: &'static str) {
    volley(rig.main(), 10, move |_| call(path, key, 503)).await;
    rig.wait_for_idle("upstreams").await;
}

/// Whether a request is let through.
async fn passes(rig: &Rig, path: &str, key: &str) -> bool {
    let response = client::send(rig.main(), call(path, key, 200)).await.unwrap();
    assert_eq!(response.reason().is_some(), response.status == 503, "{response:?}");
    response.status == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_beyond_the_maximum_share_one_breaker() {
    let breaker = json!({"key": [{"header": "x-key"}], "max_keys": 2, "minimum_calls": 10, "open_duration": "60s"});
    let rig = crate::guarded(4, &breaker).await;
    for key in ["a", "b", "c", "d"] {
        assert!(passes(&rig, "/", key).await);
    }
    // Two good calls of c and d, and ten bad of c: the breaker they share opens for both.
    fail(&rig, "/", "c").await;
    rig.wait_for_breaker("upstreams", "_overflow", OPEN).await;
    for (key, expected) in [("a", true), ("b", true), ("c", false), ("d", false), ("e", false)] {
        assert_eq!(passes(&rig, "/", key).await, expected, "{key}");
    }
    // The control: the first keys have their own.
    fail(&rig, "/", "a").await;
    rig.wait_for_breaker("upstreams", "a", OPEN).await;
    assert!(passes(&rig, "/", "b").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_set_by_hand_and_shadow_do_what_they_say() {
    let policy = |name: &str, mode: &str, state: &str| {
        json!({
            "name": name, "mode": mode, "match": {"path": format!("/{name}")},
            "circuit_breaker": {"minimum_calls": 10, "open_duration": "60s", "state": state},
            "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1000}}
        })
    };
    let rig = Rig::new(
        4,
        &json!({"policies": [
            policy("forced", "enforce", "forced_open"),
            policy("disabled", "enforce", "disabled"),
            policy("shadow", "shadow", "auto"),
            policy("upstreams", "enforce", "auto"),
        ]}),
    )
    .await;
    let forced = client::get(rig.main(), "/forced").await.unwrap();
    assert_eq!(forced.header("x-tidegate-reason"), Some("circuit_open;policy=forced;trip=forced_open"));
    assert_eq!((forced.header("retry-after"), rig.upstream.total()), (None, 0), "nobody knows for how long");
    rig.upstream.always(Behaviour::respond(503));
    // Ten at once open shadow's breaker, none of them before all have ended; it would reject the forty that follow.
    for requests in [10, 40] {
        for path in ["/disabled", "/shadow"] {
            let tally = volley(rig.main(), requests, move |_| Call::get(path)).await.tally();
            assert_eq!(tally.answered.get(&503), Some(&requests), "{path}: {tally}");
        }
        rig.wait_for_breaker("shadow", "upstream", OPEN).await;
    }
    rig.wait_for_decisions("shadow", "shadow_circuit_open", 40).await;
    let stats = rig.envoy.stats().await.unwrap();
    let count =
        |policy, decision| stats.count("tidegate_requests_total", &[("policy", policy), ("decision", decision)]);
    assert_eq!(count("shadow", "shadow_admitted"), 10.0);
    assert_eq!(count("disabled", "admitted"), 50.0);
    assert_eq!(stats.stat("tidegate_circuit_breaker_state", &[("policy", "disabled")]), None);
    // Shadow's breaker is its own: the enforcing policy for the same cluster is closed until it has seen for itself.
    assert_eq!(transitions(&rig.envoy, "open").await, 0);
    assert_eq!(client::get(rig.main(), "/upstreams").await.unwrap().reason(), None);
    volley(rig.main(), 10, |_| Call::get("/upstreams")).await;
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    assert_eq!(client::get(rig.main(), "/shadow").await.unwrap().reason(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forced_open_rejects_what_has_no_key() {
    let policy = |name: &str, state: &str| {
        json!({
            "name": name, "match": {"path": format!("/{name}")},
            "circuit_breaker": {"key": [{"header": "x-key"}], "minimum_calls": 10, "open_duration": "60s", "state": state},
            "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1000}}
        })
    };
    let rig = Rig::new(4, &json!({"policies": [policy("forced", "forced_open"), policy("auto", "auto")]})).await;
    for call in [Call::get("/forced"), call("/forced", "a", 200)] {
        let forced = client::send(rig.main(), call).await.unwrap();
        assert_eq!(forced.header("x-tidegate-reason"), Some("circuit_open;policy=forced;trip=forced_open"));
    }
    assert_eq!(rig.upstream.total(), 0);
    // The control: for a breaker that judges for itself, what has no key is nobody's: it does not open, nor is it turned away.
    let keyless = |status: &str| Call::get("/auto").header("x-upstream-status", status);
    assert_eq!(volley(rig.main(), 20, move |_| keyless("503")).await.tally().admitted(), 20);
    volley(rig.main(), 10, |_| call("/auto", "a", 503)).await;
    rig.wait_for_breaker("auto", "a", OPEN).await;
    assert!(!passes(&rig, "/auto", "a").await);
    assert_eq!(client::send(rig.main(), keyless("200")).await.unwrap().status, 200);
}

/// One policy, in shadow at one listener and enforced at the other, under one filter name: they had one breaker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_opens_nothing_that_is_enforced() {
    let listener = |name: &str, mode: &str| {
        let mut config = config(&json!({"minimum_calls": 10, "open_duration": "60s"}));
        config["policies"][0]["mode"] = mode.into();
        Listener::new(name).filter(Tidegate::new(&config).unwrap())
    };
    let rig = Rig::with(4, [listener("main", "enforce"), listener("trial", "shadow")]).await;
    let trial = rig.envoy.address("trial");
    volley(trial, 10, |_| Call::get("/").header("x-upstream-status", "503")).await;
    rig.wait_for_idle("upstreams").await;
    assert_eq!(transitions(&rig.envoy, "open").await, 1);
    assert_eq!(volley(rig.main(), 40, |_| Call::get("/")).await.tally().admitted(), 40);
    // The controls: the trial counts what it would have rejected, and what is enforced rejects what has failed for it.
    volley(trial, 40, |_| Call::get("/")).await;
    rig.wait_for_decisions("upstreams", "shadow_circuit_open", 40).await;
    volley(rig.main(), 50, |_| Call::get("/").header("x-upstream-status", "503")).await;
    rig.wait_for_idle("upstreams").await;
    assert_eq!(transitions(&rig.envoy, "open").await, 2);
    assert_eq!(volley(rig.main(), 40, |_| Call::get("/")).await.tally().rejected_by("upstreams", "circuit_open"), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_keeps_an_open_breaker_open_unless_its_settings_changed() {
    let listeners = |minimum: u32, other: &str| {
        let config = json!({"policies": [
            {"name": "other", "match": {"path": other}},
            {
                "name": "upstreams",
                "circuit_breaker": {"minimum_calls": minimum, "open_duration": "60s"},
                "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1000}}
            },
        ]});
        [Listener::new("main").filter(Tidegate::new(&config).unwrap())]
    };
    let mut rig = Rig::built(4, |builder, upstream| {
        let [main] = listeners(10, "/one");
        builder.dynamic_listeners().cluster(Cluster::new("upstream", upstream.address())).listener(main)
    })
    .await;
    crate::trip(&rig).await;
    rig.envoy.update_listeners(&listeners(10, "/two")).await.unwrap();
    let tally = volley(rig.main(), 40, |_| Call::get("/")).await.tally();
    assert_eq!(tally.rejected_by("upstreams", "circuit_open"), 40, "{tally}");
    // The control: other settings are another breaker.
    rig.envoy.update_listeners(&listeners(11, "/two")).await.unwrap();
    let tally = volley(rig.main(), 40, |_| Call::get("/")).await.tally();
    assert_eq!(tally.admitted(), 40, "{tally}");
}
