//! Updates of the configuration: what did not change keeps its balances, what did leaves no pages behind.

use serde_json::{Value, json};
use tidegate_harness::client;
use tidegate_harness::envoy::Envoy;

use crate::support::{client, limits, tidegate};
use crate::with_1_2_4_and_8_workers;

with_1_2_4_and_8_workers!(an_update_keeps_the_balances_of_limits_that_did_not_change);

const MEGABYTE: u64 = 1 << 20;

async fn envoy(workers: u32, config: &Value) -> Envoy {
    Envoy::builder().concurrency(workers).dynamic_listeners().listener(tidegate("main", config)).start().await.unwrap()
}

async fn status(envoy: &Envoy, who: &str) -> u16 {
    client::send(envoy.address("main"), client(who)).await.unwrap().status
}

async fn an_update_keeps_the_balances_of_limits_that_did_not_change(workers: u32) {
    let config = |rate: &str, cost: u32, other: &str| {
        let mut config = limits(json!([
            {"name": "each", "rate": rate, "burst": 4, "cost": cost, "key": [{"header": "x-client"}]}]));
        config["policies"].as_array_mut().unwrap().push(json!({"name": "other", "match": {"path": other}}));
        config
    };
    let mut envoy = envoy(workers, &config("4/h", 1, "/a")).await;
    for expected in [200, 200, 200, 200, 429] {
        assert_eq!(status(&envoy, "a").await, expected);
    }
    let update = async |envoy: &mut Envoy, config: &Value| {
        envoy.update_listeners(&[tidegate("main", config)]).await.unwrap();
    };
    update(&mut envoy, &config("4/h", 1, "/b")).await;
    assert_eq!(status(&envoy, "a").await, 429, "another policy changed");
    update(&mut envoy, &config("4/h", 2, "/b")).await;
    assert_eq!(status(&envoy, "a").await, 429, "what a request costs changed, and not what a balance means");
    assert_eq!(status(&envoy, "b").await, 200);
    // The control: another rate is another bucket.
    update(&mut envoy, &config("5/h", 2, "/b")).await;
    assert_eq!(status(&envoy, "a").await, 200);
    // Taken back at once, it finds its balances as they were.
    update(&mut envoy, &config("4/h", 2, "/b")).await;
    assert_eq!(status(&envoy, "a").await, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_changes_of_a_large_limit_take_the_pages_of_the_first_few() {
    // 65 536 keys are about 2.5 MB of pages: forty changes would leave 100 MB behind.
    let config =
        |rate: u32| limits(json!([{"name": "each", "rate": format!("{rate}/h"), "key": [{"header": "x-client"}]}]));
    let mut envoy = envoy(2, &config(1)).await;
    let update = async |envoy: &mut Envoy, rate: u32| {
        envoy.update_listeners(&[tidegate("main", &config(rate))]).await.unwrap();
        assert_eq!(status(envoy, "a").await, 200, "it starts anew");
    };
    // The register has eight rows; what the proxy itself keeps of an update is there by then too.
    for rate in 2..=12 {
        update(&mut envoy, rate).await;
    }
    let before = envoy.resident_bytes().unwrap();
    for rate in 13..=52 {
        update(&mut envoy, rate).await;
    }
    let grown = envoy.resident_bytes().unwrap().saturating_sub(before);
    println!("reload: 40 changes of a limit of 65 536 keys: {:.1} MB more", grown as f64 / MEGABYTE as f64);
    assert!(grown < 40 * MEGABYTE, "{grown} bytes");
    let errors = envoy.stats().await.unwrap().count("tidegate_errors_total", &[]);
    assert!(errors == 0.0, "{errors} errors");
}
