//! A worker's VM that dies with requests in flight and others that wait: what it held is free again.

use serde_json::{Value, json};
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Listener, Tidegate};
use tidegate_harness::upstream::Behaviour;

use crate::dying::{kill_vms, trapping};
use crate::support::{Rig, until, volley, volley_beside};
use crate::{fixed, with_1_2_and_4_workers};

with_1_2_and_4_workers!(what_dead_workers_held_and_who_waited_there_is_forgotten);

/// What paces holds the second request for 51 seconds: two workers that are asked at once may differ by what passes between.
fn config(name: &str) -> Value {
    json!({"policies": [{
        "name": name, "match": {"path": "/guarded"},
        "rate_limits": [{"name": "r", "rate": "70/h", "burst": 1, "key": [{"header": "x-paced"}],
            "pace": {"max_wait": "1m"}}],
        "load_shedding": {"limit": fixed(4), "queue": {"max_length": 10, "max_wait": "60s", "order": "fifo"}}
    }]})
}

async fn what_dead_workers_held_and_who_waited_there_is_forgotten(workers: u32) {
    let tidegate = Tidegate::with_module(trapping()).text(config("p").to_string());
    // The control: the same in a VM of its own, which lives.
    let control = Tidegate::new(&config("lives")).unwrap().vm_id("lives").name("lives");
    let rig =
        Rig::with(workers, [Listener::new("main").filter(tidegate), Listener::new("control").filter(control)]).await;
    let gate = Gate::new();
    rig.upstream.script({
        let gate = gate.clone();
        move |asked| if asked.path == "/guarded" { Behaviour::respond(200).hold(&gate) } else { Behaviour::default() }
    });
    let (inflight, waiting) = ("tidegate_inflight", "tidegate_queue_length");
    let (labels, lives) = ([("policy", "p")], [("policy", "lives")]);
    // Four in flight, ten in the queue, and one that a rate limit holds beside one more in the queue's place.
    let fill = async |at, labels: &[(&str, &str)]| {
        let paced = volley_beside(at, 2, |_| Call::get("/guarded").header("x-paced", "one"));
        rig.wait_for_stat(inflight, labels, 1).await;
        rig.wait_for_stat(waiting, labels, 1).await;
        let others = volley_beside(at, 13, |_| Call::get("/guarded"));
        rig.wait_for_stat(inflight, labels, 4).await;
        rig.wait_for_stat(waiting, labels, 11).await;
        assert_eq!(client::get(at, "/guarded").await.unwrap().status, 503, "the queue is full");
        (paced, others)
    };
    let (paced, lost) = fill(rig.main(), &labels).await;
    let (paced_there, kept) = fill(rig.control(), &lives).await;

    kill_vms(&rig, workers).await;
    rig.wait_for_stat(inflight, &labels, 0).await;
    rig.wait_for_stat(waiting, &labels, 0).await;
    let stats = rig.envoy.stats().await.unwrap();
    assert_eq!((stats.stat(inflight, &lives), stats.stat(waiting, &lives)), (Some(4.0), Some(11.0)));
    // Clients that the proxy has left alone go away.
    paced.abort();
    lost.abort();
    gate.open();
    paced_there.abort();
    assert_eq!(kept.await.unwrap().tally().admitted(), 13, "all who were held there are served");
    until(async || {
        let tally = volley(rig.main(), 14, |_| Call::get("/guarded")).await.tally();
        if tally.admitted() == 14 { Ok(()) } else { Err(tally.to_string()) }
    })
    .await;
    rig.wait_for_stat(inflight, &labels, 0).await;
    rig.wait_for_stat(waiting, &labels, 0).await;
}
