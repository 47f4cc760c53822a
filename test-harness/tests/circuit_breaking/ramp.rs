//! The way back: after closing, requests are re-admitted linearly.

use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{Load, Schedule};
use tidegate_harness::envoy::{Listener, Tidegate};
use tidegate_harness::upstream::Behaviour;

use crate::clock::{Begun, begun, changes, timed};
use crate::support::{Rig, seed, volley};
use crate::{CONNECTIONS, all_took_part, with_1_2_4_and_8_workers};

with_1_2_4_and_8_workers!(a_ramp_readmits_linearly_from_a_tenth_to_all);

const RAMP: f64 = 6.0;

/// A policy of this name in a filter of its own.
fn listener(name: &str, policy: &str, recovery: Option<serde_json::Value>) -> Listener {
    let mut breaker =
        json!({"minimum_calls": 10, "open_duration": "0.5s", "half_open": {"probes": 1, "timeout": "60s"}});
    if let Some(recovery) = recovery {
        breaker["recovery"] = recovery;
    }
    let config = json!({"policies": [{"name": policy, "circuit_breaker": breaker}]});
    timed(Listener::new(name).filter(Tidegate::new(&config).unwrap().name(policy)))
}

/// Trips one of the listeners' breakers, sends load until the ramp is over, and gives the requests that began after the
/// breaker closed, by the time since then.
async fn recovering(rig: &Rig, listener: &str, policy: &str, seed: u64) -> Vec<Begun> {
    let at = rig.envoy.address(listener);
    volley(at, 10, |_| tidegate_harness::client::Call::get("/").header("x-upstream-status", "503")).await;
    let schedule = Schedule::constant(400.0, Duration::from_secs_f64(RAMP + 2.0));
    let sent = Load::new(at, schedule.poisson()).seed(seed).http2(CONNECTIONS).run().await.all.len();
    let closed = changes(rig, policy, "half_open to closed", 1).await.last().unwrap().at;
    let requests =
        begun(rig, listener, 10 + sent).await.into_iter().map(|begun| Begun { at: begun.at - closed, ..begun });
    requests.filter(|request| request.at > 0.0).collect()
}

async fn a_ramp_readmits_linearly_from_a_tenth_to_all(workers: u32) {
    let seed = seed();
    let ramp = json!({"ramp": format!("{RAMP}s")});
    let rig =
        crate::clock::rig(workers, [listener("main", "upstreams", Some(ramp)), listener("control", "at_once", None)])
            .await;
    rig.upstream.always(Behaviour::respond(200));
    let (ramp, at_once) =
        tokio::join!(recovering(&rig, "main", "upstreams", seed), recovering(&rig, "control", "at_once", seed));
    all_took_part(&rig, workers).await;
    let share = |at: f64| 0.1 + 0.9 * at / RAMP;
    let mut told = Vec::new();
    for tenth in 0..10 {
        let within = (f64::from(tenth) * RAMP / 10.0)..(f64::from(tenth + 1) * RAMP / 10.0);
        let asked: Vec<&Begun> = ramp.iter().filter(|request| within.contains(&request.at)).collect();
        let admitted = asked.iter().filter(|request| request.admitted()).count() as f64;
        let expected: f64 = asked.iter().map(|request| share(request.at)).sum();
        let variance: f64 = asked.iter().map(|request| share(request.at) * (1.0 - share(request.at))).sum();
        // The bound is of these requests, however many the machine sent in this tenth.
        // Five standard deviations: once in a million tenths. One more for a request that began just before the end.
        let bound = 5.0 * variance.sqrt() + 1.0;
        told.push(format!("{:.0}", 100.0 * admitted / asked.len() as f64));
        assert!(asked.len() > 20, "{} requests in tenth {tenth}", asked.len());
        assert!(
            (admitted - expected).abs() <= bound,
            "tenth {tenth}: {admitted} of {}, not {expected} +- {bound}",
            asked.len()
        );
        let others = asked
            .iter()
            .find(|request| !request.admitted() && request.decision != "circuit_open;policy=upstreams;trip=recovering");
        assert!(others.is_none(), "{others:?}");
    }
    println!("{workers} workers: {} % admitted in each tenth of the ramp", told.join(", "));
    let after = |request: &&Begun| request.at > RAMP;
    assert!(
        ramp.iter().filter(after).count() > 50 && ramp.iter().filter(after).all(Begun::admitted),
        "the ramp is over"
    );
    // The control: without a ramp all pass from the start.
    assert!(at_once.len() > 1_000 && at_once.iter().all(Begun::admitted));
}
