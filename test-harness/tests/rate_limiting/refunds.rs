//! What another control rejects after all was charged for nothing, and is given back.

use serde_json::{Value, json};
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::HttpFilter;
use tidegate_harness::upstream::Behaviour;

use crate::support::{InTurn, SOON, all_took_part, limits, listener, start, tidegate, wait_for_stat};
use crate::with_1_2_4_and_8_workers;

with_1_2_4_and_8_workers!(who_gives_up_in_a_queue_gets_back_what_it_was_charged);

const BURST: u32 = 20;
/// Used beforehand: a bucket that could not have filled up since gets all of a charge back.
const USED: usize = 10;
/// Charged and not served: of these some leave and the others wait for too long.
const WAITING: usize = 10;
const LEAVING: usize = 4;

async fn who_gives_up_in_a_queue_gets_back_what_it_was_charged(workers: u32) {
    let config = |shedding: Value| {
        let mut config = limits(json!([{"name": "all", "rate": "1/h", "burst": BURST}]));
        config["policies"][0]["load_shedding"] = shedding;
        config
    };
    let queue = json!({"max_length": 100, "max_wait": "4s", "order": "fifo"});
    let one_place = config(json!({"limit": {"algorithm": "fixed", "limit": 1}, "queue": queue}));
    let room = config(json!({"limit": {"algorithm": "fixed", "limit": 100}}));
    // Envoy's own limit with a filter behind it that rejects when it is told to.
    let fault = json!({
        "name": "envoy.filters.http.fault",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": {"header_abort": {}, "percentage": {"numerator": 100}}
        }
    });
    let native = listener("native", HttpFilter::local_bucket(BURST, 1, "3600s")).filter(fault);
    let (upstream, envoy) = start(workers, [tidegate("main", &one_place), tidegate("control", &room), native]).await;
    let at = envoy.address("main");
    let mut main = InTurn::new(&envoy, "main", workers).await;
    for _ in 1..USED {
        assert_eq!(main.send(Call::get("/")).await.status, 200);
    }
    let gate = Gate::new();
    upstream.always(Behaviour::respond(200).hold(&gate));
    let served = tokio::spawn(client::get(at, "/"));
    upstream.wait_for_concurrent(1, SOON).await.unwrap();
    let mut waiting: Vec<_> = (0..WAITING).map(|_| tokio::spawn(client::get(at, "/"))).collect();
    wait_for_stat(&envoy, "tidegate_queue_length", "p", WAITING as u32).await;
    // While they wait they hold what they were charged.
    let rejected = client::get(at, "/").await.unwrap();
    assert_eq!(rejected.header("x-tidegate-reason"), Some("rate_limited;policy=p;limit=all"), "{rejected:?}");
    waiting.drain(..LEAVING).for_each(|leaves| leaves.abort());
    for waits in waiting {
        let late = waits.await.unwrap().unwrap();
        assert_eq!(late.header("x-tidegate-reason"), Some("queue_timeout;policy=p"), "{late:?}");
    }
    wait_for_stat(&envoy, "tidegate_queue_length", "p", 0).await;
    gate.open();
    assert_eq!(served.await.unwrap().unwrap().status, 200);
    wait_for_stat(&envoy, "tidegate_inflight", "p", 0).await;
    assert_eq!(upstream.total(), USED);
    let mut left = vec![main.passing().await];
    // The controls: who is served has used what it was charged, and Envoy's own keeps it whatever comes after.
    for (name, call, status) in
        [("control", Call::get("/"), 200), ("native", Call::get("/").header("x-envoy-fault-abort-request", "503"), 503)]
    {
        let mut control = InTurn::new(&envoy, name, workers).await;
        for _ in 0..USED {
            assert_eq!(control.send(Call::get("/")).await.status, 200, "{name}");
        }
        for _ in 0..WAITING {
            assert_eq!(control.send(call.clone()).await.status, status, "{name}");
        }
        left.push(control.passing().await);
    }
    println!(
        "refunds, {workers} workers: of ten that were not served {} are left; where served {}, native {}",
        left[0], left[1], left[2]
    );
    assert_eq!(left, [WAITING, 0, 0]);
    all_took_part(&envoy, workers, &["main", "control", "native"]).await;
}
