//! Circuit breakers in a real Envoy: exact over 1, 2, 4 and 8 workers, in time, and through what goes wrong.
//!
//! What the breakers count as failure, one kind at a time, stands with the other scenarios, in `tests/e2e/breakers.rs`. Each
//! scenario has its control: no filter, Envoy's outlier detection, another setting, or one request more.

#[macro_use]
#[path = "../e2e/with_workers.rs"]
mod with_workers;
#[path = "../e2e/support.rs"]
#[allow(dead_code, reason = "shared with the other scenarios, which use all of it")]
mod support;

mod by_hand;
mod clock;
mod dying;
mod grpc;
mod half_open;
mod hot_restart;
mod judging;
mod leak;
mod neighbours;
mod probes;
mod ramp;
mod reasons;
mod recovery;
mod steady;
mod streams;
mod times;
mod updates;
mod vectors;
mod workers;

use std::net::SocketAddr;

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call, Load, Outcomes, Schedule};
use tidegate_harness::envoy::{Envoy, Route};
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, main_listener, until};

/// So many connections reach each of eight workers, but for once in a million times.
const CONNECTIONS: usize = 128;

const CLOSED: u32 = 0;
const OPEN: u32 = 1;
const HALF_OPEN: u32 = 2;

/// One policy with this breaker, which says how many requests it has under way.
fn config(breaker: &Value) -> Value {
    json!({"policies": [{
        "name": "upstreams",
        "circuit_breaker": breaker,
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 100_000}}
    }]})
}

/// This breaker in front of an upstream that may take as long as it likes.
async fn guarded(workers: u32, breaker: &Value) -> Rig {
    let patient = Route::prefix("/", "upstream").timeout("0s");
    Rig::with(workers, [main_listener(&config(breaker)).route(patient)]).await
}

/// Trips at ten failures of ten.
fn breaker(open_duration: &str, probes: u32, timeout: &str) -> Value {
    json!({"minimum_calls": 10, "open_duration": open_duration, "half_open": {"probes": probes, "timeout": timeout}})
}

/// How often breakers changed to this state.
async fn transitions(envoy: &Envoy, to: &str) -> u32 {
    let stats = envoy.stats().await.unwrap();
    stats.count("tidegate_circuit_breaker_transitions_total", &[("policy", "upstreams"), ("to", to)]) as u32
}

/// How often breakers opened for this reason.
async fn trips(envoy: &Envoy, reason: &str) -> u32 {
    let stats = envoy.stats().await.unwrap();
    stats.count("tidegate_circuit_breaker_trips_total", &[("policy", "upstreams"), ("reason", reason)]) as u32
}

/// Fails ten requests, which trips. The upstream is well again afterwards.
async fn trip(rig: &Rig) {
    rig.upstream.fail(Behaviour::respond(503));
    for _ in 0..10 {
        assert_eq!(client::get(rig.main(), "/").await.unwrap().status, 503);
    }
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    rig.upstream.recover();
}

/// Waits until breakers changed to this state so often.
async fn wait_for_transitions(rig: &Rig, to: &str, times: u32) {
    until(async || match transitions(&rig.envoy, to).await {
        now if now == times => Ok(()),
        now => Err(format!("{now} changes to {to}, not {times}")),
    })
    .await;
}

/// Every worker has had connections of the listener under test.
async fn all_took_part(rig: &Rig, workers: u32) {
    assert_eq!(rig.envoy.busy_workers("main").await.unwrap(), workers as usize, "a worker had no part in it");
}

/// So many times `GET path` at once, over so many HTTP/2 connections: enough of them reach every worker.
async fn crowd(at: SocketAddr, requests: usize, connections: usize, path: &'static str) -> Outcomes {
    Load::new(at, Schedule::burst(requests)).http2(connections).calls(move |_, _| Call::get(path)).run().await
}

/// Makes four tests of each scenario.
macro_rules! with_1_2_4_and_8_workers {
    ($($scenarios:tt)*) => { with_workers!([1, 2, 4, 8]: $($scenarios)*); };
}
use with_1_2_4_and_8_workers;
