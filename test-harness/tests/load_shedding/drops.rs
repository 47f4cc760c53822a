//! An upstream that refuses everything at once: who heeds that asks for less.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_harness::client::{Load, Schedule};
use tidegate_harness::upstream::Behaviour;

use crate::support::Rig;
use crate::{listener, with_1_2_and_4_workers};

with_1_2_and_4_workers!(an_upstream_that_refuses_everything_at_once_is_asked_for_less);

async fn an_upstream_that_refuses_everything_at_once_is_asked_for_less(workers: u32) {
    const RATE: f64 = 100.0;
    let ways = ["aimd", "vegas", "gradient2"];
    // A policy of its own each: stats go by policies.
    let config = |way: &str| -> Value {
        let limit = json!({"algorithm": way, "initial": 100, "min": 1, "max": 1000});
        json!({"policies": [{"name": way, "load_shedding": {"limit": limit}}]})
    };
    let rig = Rig::with(workers, ways.map(|way| listener(way, &config(way)))).await;
    let load = async |seconds| {
        let of = |way| Load::new(rig.envoy.address(way), Schedule::constant(RATE, Duration::from_secs(seconds))).run();
        tokio::join!(of("aimd"), of("vegas"), of("gradient2"))
    };
    let limits = async || {
        let stats = rig.envoy.stats().await.unwrap();
        ways.map(|way| stats.stat("tidegate_concurrency_limit", &[("policy", way)]).unwrap_or_default())
    };
    // So that it is known how long work takes: far longer than a refusal.
    rig.upstream.always(Behaviour::respond(200).delay(Duration::from_millis(20)));
    load(2).await;
    assert_eq!(limits().await, [100.0; 3]);
    rig.upstream.always(Behaviour::respond(503));
    load(5).await;
    let after @ [aimd, vegas, gradient2] = limits().await;
    println!("{workers} workers: {ways:?} find {after:?} after five seconds of refusals");
    // Three windows of a second at least, of which the first may have seen work, too.
    assert!(aimd <= 72.0 && vegas <= 96.0, "{after:?}");
    // The control: what fails faster than work is done tells it nothing.
    assert_eq!(gradient2, 100.0);
}
