//! Stats as scraped: the names and labels dashboards are written against, and nothing else.

use std::collections::BTreeSet;

use serde_json::json;
use tidegate_harness::client::{self, Call};
use tidegate_harness::upstream::Behaviour;

use crate::support::Rig;
use crate::with_one_and_four_workers;

with_one_and_four_workers!(stats_have_their_names_and_labels_whatever_policies_and_keys_are_called);

const OPEN: u32 = 1;

async fn stats_have_their_names_and_labels_whatever_policies_and_keys_are_called(workers: u32) {
    let policy = |name: &str| {
        json!({
            "name": name, "match": {"headers": [{"name": "x-policy", "exact": name}]},
            "circuit_breaker": {"key": [{"header": "x-key"}], "minimum_calls": 1, "open_duration": "60s"},
            "rate_limits": [{"name": "key", "rate": "1000/h", "key": [{"header": "x-key"}], "max_keys": 1}],
            "load_shedding": {"limit": {"algorithm": "fixed", "limit": 7}}
        })
    };
    let names = ["decision", "key", "policy", "to", "plain", "a-b_c"];
    let rig = Rig::new(workers, &json!({"policies": names.map(policy)})).await;
    rig.upstream.always(Behaviour::respond(500));
    let keys = ["a.to.b", ".decision.admitted", "with space", "q\"uote\\", "ü", "10.0.0.1:80"];
    for name in names {
        for key in keys {
            let call = Call::get("/").header("x-policy", name).header("x-key", key);
            assert_eq!(client::send(rig.main(), call).await.unwrap().status, 500);
        }
    }
    let call = Call::get("/").header("x-policy", "plain").header("x-key", keys[5]);
    rig.wait_for_breaker("plain", keys[5], OPEN).await;
    assert_eq!(client::send(rig.main(), call).await.unwrap().status, 503);
    for name in names {
        rig.wait_for_idle(name).await;
        assert_eq!(rig.decisions(name, "admitted").await, keys.len(), "{name}");
        let stats = rig.envoy.stats().await.unwrap();
        let labels = [("policy", name)];
        assert_eq!(stats.stat("tidegate_concurrency_limit", &labels), Some(7.0));
        let trips = [("policy", name), ("to", "open")];
        assert_eq!(stats.stat("tidegate_circuit_breaker_transitions_total", &trips), Some(keys.len() as f64));
        assert_eq!(stats.samples("tidegate_circuit_breaker_state", &labels).count(), keys.len(), "{name}");
    }
    assert_eq!(rig.decisions("plain", "circuit_open").await, 1);

    let stats = rig.envoy.stats().await.unwrap();
    assert_eq!(stats.stat("tidegate_config_updates_total", &[("result", "accepted")]), Some(1.0));
    // Exactly these names with exactly these labels.
    let shape = |text: &str| {
        let sample = tidegate_harness::stats::Stats::parse(text).unwrap();
        let ours = sample.only("tidegate_");
        ours.iter()
            .map(|one| (one.name.clone(), one.labels.keys().cloned().collect::<Vec<_>>()))
            .collect::<BTreeSet<_>>()
    };
    let text = rig.envoy.admin_get("/stats/prometheus").await.unwrap();
    let expected = [
        ("tidegate_build_info", vec!["version"]),
        ("tidegate_circuit_breaker_state", vec!["key", "policy"]),
        ("tidegate_circuit_breaker_transitions_total", vec!["policy", "to"]),
        ("tidegate_circuit_breaker_trips_total", vec!["policy", "reason"]),
        ("tidegate_concurrency_limit", vec!["policy"]),
        ("tidegate_config_updates_total", vec!["result"]),
        ("tidegate_inflight", vec!["policy"]),
        ("tidegate_internal", vec!["cell"]),
        ("tidegate_rate_limit_overflow_total", vec!["limit", "policy"]),
        ("tidegate_requests_total", vec!["decision", "policy"]),
        ("tidegate_vm_memory_bytes", vec![]),
    ];
    let expected = expected.map(|(name, labels)| (name.to_owned(), labels.into_iter().map(str::to_owned).collect()));
    let found = shape(&text);
    assert!(found.iter().all(|one| expected.contains(one)), "{found:?}");
    assert!(!text.contains("wasmcustom"), "the prefix is cut off");
    // What the workers share has its layout's number in its name, so that another version of the module leaves it alone.
    let internal = || text.lines().filter(|line| line.starts_with("tidegate_internal{"));
    assert!(internal().count() > 0 && internal().all(|line| line.contains(r#"cell="4/"#)), "{text}");
    for (name, kind) in [("tidegate_requests_total", "counter"), ("tidegate_inflight", "gauge")] {
        assert_eq!(text.matches(&format!("# TYPE {name} {kind}\n")).count(), 1, "{name}");
    }
    // The control: without its tags Envoy would put the labels into the names.
    assert!(text.lines().all(|line| !line.starts_with("tidegate_") || !line.contains("_policy_")), "{text}");
}
