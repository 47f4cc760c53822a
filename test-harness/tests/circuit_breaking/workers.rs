//! VMs that die, and workers that join late, stand where the others do.

use serde_json::{Value, json};
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call, Tally};
use tidegate_harness::envoy::{Cluster, Listener, Tidegate};
use tidegate_harness::upstream::Behaviour;

use crate::dying::{kill_vms, trapping};
use crate::support::{Rig, SOON, until, volley};
use crate::{CLOSED, OPEN, all_took_part, crowd, trip, trips, wait_for_transitions};

fn config(timeout: &str, open_duration: &str) -> Value {
    json!({"policies": [{
        "name": "upstreams", "match": {"path": {"prefix": "/guarded"}},
        "circuit_breaker": {
            "minimum_calls": 10, "open_duration": open_duration, "half_open": {"probes": 3, "timeout": timeout}
        }
    }]})
}

async fn rig(workers: u32, config: &Value) -> Rig {
    let tidegate = Tidegate::with_module(trapping()).text(config.to_string());
    Rig::with(workers, [Listener::new("main").filter(tidegate)]).await
}

/// How many VMs have come in the place of one that died.
async fn new_vms(rig: &Rig) -> u32 {
    let stats = rig.envoy.admin_get("/stats?filter=vm_reload_success").await.unwrap();
    stats.lines().filter_map(|line| line.rsplit(": ").next()?.parse::<u32>().ok()).sum()
}

/// Asks until new VMs have come, and says what became of the requests from then on.
async fn ask_new_vms(rig: &Rig) -> Tally {
    until(async || {
        let response = client::get(rig.main(), "/unguarded").await.unwrap();
        if response.status == 200 { Ok(()) } else { Err(format!("{} {}", response.status, response.text())) }
    })
    .await;
    volley(rig.main(), 100, |_| Call::get("/guarded")).await.tally()
}

async fn trip_guarded(rig: &Rig) {
    rig.upstream.fail(Behaviour::respond(503));
    for _ in 0..10 {
        assert_eq!(client::get(rig.main(), "/guarded").await.unwrap().status, 503);
    }
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    rig.upstream.recover();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_comes_back_finds_the_breaker_open() {
    for workers in [1, 4] {
        let rig = rig(workers, &config("60s", "60s")).await;
        trip_guarded(&rig).await;
        kill_vms(&rig, workers).await;
        let tally = ask_new_vms(&rig).await;
        // Workers whose VM is not yet back answer 503 themselves; nobody lets a request through.
        assert_eq!(tally.admitted(), 0, "{tally}");
        assert!(tally.rejected_by("upstreams", "circuit_open") > 0, "{tally}");
        // Once all are back those who reject have never seen it closed.
        until(async || {
            volley(rig.main(), 64, |_| Call::get("/guarded")).await;
            match new_vms(&rig).await {
                new if new >= workers => Ok(()),
                new => Err(format!("{new} of {workers} VMs are new")),
            }
        })
        .await;
        let tally = volley(rig.main(), 100, |_| Call::get("/guarded")).await.tally();
        assert_eq!(tally.rejected_by("upstreams", "circuit_open"), 100, "{tally}");
        all_took_part(&rig, workers).await;
        // The control: a process that comes back has forgotten.
        let fresh = self::rig(workers, &config("60s", "60s")).await;
        assert_eq!(client::get(fresh.main(), "/guarded").await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_that_died_with_their_vm_do_not_hang_it() {
    for workers in [1, 4] {
        let rig = rig(workers, &config("2s", "0.5s")).await;
        trip_guarded(&rig).await;
        let gate = Gate::new();
        rig.upstream.script({
            let gate = gate.clone();
            move |asked| match asked.path {
                "/guarded" => Behaviour::respond(200).hold(&gate),
                _ => Behaviour::respond(200),
            }
        });
        let mut held = Vec::new();
        until(async || {
            held.push(tokio::spawn(crowd(rig.main(), 8, 8, "/guarded")));
            match rig.upstream.concurrent() {
                3 => Ok(()),
                now => Err(format!("{now} probes")),
            }
        })
        .await;
        kill_vms(&rig, workers).await;
        gate.open();
        // Either none of the three was on a VM that died, or their timeout is noticed by those that live or come back.
        until(async || {
            client::get(rig.main(), "/guarded").await.unwrap();
            let timeouts = trips(&rig.envoy, "probe_timeout").await;
            if timeouts > 0 { Ok(()) } else { Err("no probe has timed out") }
        })
        .await;
        until(async || {
            volley(rig.main(), 8, |_| Call::get("/guarded")).await;
            let stats = rig.envoy.stats().await.unwrap();
            match stats.stat("tidegate_circuit_breaker_state", &[("policy", "upstreams")]) {
                Some(state) if state == f64::from(CLOSED) => Ok(()),
                state => Err(format!("{state:?}")),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_comes_later_joins_the_state() {
    let config = crate::config(&crate::breaker("60s", 3, "60s"));
    let listener = |name: &str| Listener::new(name).filter(Tidegate::new(&config).unwrap());
    // A VM of another id shares nothing: the control.
    let other = Listener::new("other").filter(Tidegate::new(&config).unwrap().vm_id("other"));
    let mut rig = Rig::built(4, |builder, upstream| {
        let builder = builder.dynamic_listeners().cluster(Cluster::new("upstream", upstream.address()));
        builder.listener(listener("main"))
    })
    .await;
    trip(&rig).await;
    wait_for_transitions(&rig, "open", 1).await;
    rig.envoy.update_listeners(&[listener("main"), listener("late"), other]).await.unwrap();
    let at = |name: &str| rig.envoy.address(name);
    rig.upstream.wait_for_total(10, SOON).await.unwrap();
    let tally = volley(at("late"), 100, |_| Call::get("/")).await.tally();
    assert_eq!(tally.rejected_by("upstreams", "circuit_open"), 100, "{tally}");
    let tally = volley(at("other"), 100, |_| Call::get("/")).await.tally();
    assert_eq!(tally.admitted(), 100, "{tally}");
}
