//! What a rate limit can be told: algorithms, costs, overrides, missing keys, scope, and how many keys it tracks.

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call};

use crate::support::{Rig, count, crowd, volley};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(
    limits_admit_what_their_settings_say,
    workers_have_budgets_of_their_own_when_asked,
    a_flood_of_fresh_keys_gives_a_limited_client_no_new_budget,
);

fn policy(name: &str, limit: Value) -> Value {
    let mut full = json!({"name": "limit", "rate": "1/h", "burst": 10});
    full.as_object_mut().unwrap().extend(limit.as_object().unwrap().clone());
    json!({"name": name, "match": {"path": format!("/{name}")}, "rate_limits": [full]})
}

async fn limits_admit_what_their_settings_say(workers: u32) {
    let tier = json!([{"header": "x-tier"}]);
    let overrides = json!([
        {"key": ["gold"], "rate": "1/h", "burst": 25},
        {"key": ["staff"], "unlimited": true},
    ]);
    let config = json!({"policies": [
        policy("bucket", json!({})),
        json!({"name": "fixed", "match": {"path": "/fixed"},
            "rate_limits": [{"name": "limit", "rate": "10/d", "algorithm": "fixed_window"}]}),
        json!({"name": "sliding", "match": {"path": "/sliding"},
            "rate_limits": [{"name": "limit", "rate": "10/d", "algorithm": "sliding_window"}]}),
        policy("cost", json!({"cost": 3})),
        policy("asked", json!({"cost": {"header": "x-cost", "default": 1, "max": 5}})),
        policy("tiers", json!({"key": tier, "overrides": overrides})),
        policy("skip", json!({"key": tier})),
        policy("share", json!({"key": tier, "on_missing_key": "share"})),
        policy("reject", json!({"key": tier, "on_missing_key": "reject"})),
    ]});
    let rig = Rig::new(workers, &config).await;
    let tiered = |tier: &str| Call::get("/tiers").header("x-tier", tier);
    let cases = [
        (Call::get("/bucket"), 10),
        (Call::get("/fixed"), 10),
        (Call::get("/sliding"), 10),
        (Call::get("/cost"), 3),
        // What is asked for is held to the maximum of 5.
        (Call::get("/asked").header("x-cost", "100"), 2),
        (tiered("bronze"), 10),
        (tiered("gold"), 25),
        (tiered("staff"), 40),
        (Call::get("/skip"), 40),
        (Call::get("/share"), 10),
        (Call::get("/reject"), 0),
    ];
    for (call, admitted) in cases {
        let sent = call.clone();
        let tally = volley(rig.main(), 40, move |_| sent.clone()).await.tally();
        assert_eq!((tally.admitted(), tally.rejections()), (admitted, 40 - admitted), "{call:?}: {tally}");
    }
    let tally = volley(rig.control(), 40, |_| Call::get("/bucket")).await.tally();
    assert_eq!(tally.admitted(), 40, "{tally}");
}

async fn workers_have_budgets_of_their_own_when_asked(workers: u32) {
    let config = json!({"policies": [policy("worker", json!({"scope": "worker"})), policy("proxy", json!({}))]});
    let rig = Rig::new(workers, &config).await;
    let each = 10;
    let most = each * workers as usize;
    let tally = volley(rig.main(), 400, |_| Call::get("/worker")).await.tally();
    // Connections find their worker by chance: of 400 requests each of four is all but sure to have ten.
    assert_eq!(tally.admitted(), most, "{tally}");
    // The control: the budget of the proxy is one, however many workers ask.
    let tally = volley(rig.main(), 400, |_| Call::get("/proxy")).await.tally();
    assert_eq!(tally.admitted(), each, "{tally}");
}

async fn a_flood_of_fresh_keys_gives_a_limited_client_no_new_budget(workers: u32) {
    let key = json!([{"header": "x-key"}]);
    let config = json!({"policies": [
        policy("small", json!({"key": key, "max_keys": 64})),
        policy("large", json!({"key": key, "max_keys": 65536})),
    ]});
    let rig = Rig::new(workers, &config).await;
    let call = |path: &'static str| move |key: String| Call::get(path).header("x-key", key);
    for (path, policy) in [("/small", "small"), ("/large", "large")] {
        let call = call(path);
        let greedy = volley(rig.main(), 40, move |_| call("greedy".into())).await.tally();
        assert_eq!(greedy.admitted(), 10, "{policy}: {greedy}");
        let flood = crowd(rig.main(), 2000, move |index| call(format!("fresh-{index}"))).await;
        let flooded = count(&flood, "admitted");
        let greedy = volley(rig.main(), 40, move |_| call("greedy".into())).await.tally();
        assert_eq!(greedy.admitted(), 0, "{policy}: {greedy}");
        let stats = rig.envoy.stats().await.unwrap();
        let overflow = stats.count("tidegate_rate_limit_overflow_total", &[("policy", policy), ("limit", "limit")]);
        if policy == "small" {
            // At most 63 others are tracked; all the rest share ten.
            assert!(overflow > 0.0 && flooded <= 63 + 10, "{overflow} in overflow, {flooded} admitted");
        } else {
            // The control: with room for all of them each has its own.
            assert_eq!((overflow, flooded), (0.0, 2000));
        }
    }
    assert_eq!(client::get(rig.control(), "/small").await.unwrap().status, 200);
}
