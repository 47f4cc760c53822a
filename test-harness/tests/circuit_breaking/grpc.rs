//! gRPC: what its statuses come to, what time-outs do, and that a Tidegate further down protects and does not fail.

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Cluster, Listener, Route, Tidegate};
use tidegate_harness::upstream::Behaviour;
use tidegate_harness::{Gate, Step};

use crate::support::{Rig, main_listener};
use crate::{OPEN, with_1_2_4_and_8_workers};

with_1_2_4_and_8_workers!(
    a_limit_that_the_upstream_answers_with_is_what_the_settings_call_it,
    trailers_only_answers_are_judged_by_their_grpc_status_whatever_their_http_status,
    a_time_out_after_the_headers_is_a_failure_unless_the_settings_say_otherwise,
    grpc_rejections_of_a_tidegate_further_down_are_no_failures,
);

/// A policy for the paths that begin so, with a breaker for each path.
fn policy(name: &str, more: Value) -> Value {
    let mut breaker = json!({
        "key": [{"attribute": "path"}], "minimum_calls": 6, "consecutive_failures": 3, "open_duration": "60s"
    });
    breaker.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "name": name, "match": {"path": {"prefix": format!("/{name}/")}}, "circuit_breaker": breaker,
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1000}}
    })
}

async fn rig(workers: u32, listeners: impl IntoIterator<Item = Listener>) -> Rig {
    Rig::built(workers, |builder, upstream| {
        let builder = builder.cluster(Cluster::new("upstream", upstream.address()).http2());
        listeners.into_iter().fold(builder, tidegate_harness::envoy::Builder::listener)
    })
    .await
}

/// Sends this so often, one after the other has been judged; how many were let through, and why the others were not.
async fn send(rig: &Rig, call: &Call, times: usize, policy: &str) -> (usize, Option<String>) {
    let mut rejected = None;
    for passed in 0..times {
        // What the client gets of an answer that is cut off is no answer.
        if let Ok(response) = client::send(rig.main(), call.clone()).await
            && response.reason().is_some_and(|reason| reason.policy.as_deref() == Some(policy))
        {
            rejected = response.header("x-tidegate-reason").map(str::to_owned);
            return (passed, rejected);
        }
        rig.wait_for_idle(policy).await;
    }
    (times, rejected)
}

fn tripped(policy: &str, after: usize, reason: &str) -> (usize, Option<String>) {
    (after, Some(format!("circuit_open;policy={policy};trip={reason}")))
}

async fn a_limit_that_the_upstream_answers_with_is_what_the_settings_call_it(workers: u32) {
    let named = || json!({"status": [429], "grpc_status": [8]});
    let config = json!({"policies": [
        policy("plain", json!({})),
        policy("failing", json!({"failure_when": named()})),
        policy("ignored", json!({"ignore_when": named()})),
    ]});
    let rig = rig(workers, [main_listener(&config)]).await;
    rig.upstream.script(|asked| match asked.path.rsplit('/').next().unwrap() {
        "only" => Behaviour::grpc_trailers_only(8),
        "trailers" => Behaviour::grpc(8, b"some"),
        _ => Behaviour::respond(429),
    });
    for (kind, call) in [
        ("only", Call::grpc as fn(String, &[u8]) -> Call),
        ("trailers", Call::grpc),
        ("http", |path, _| Call::get(path).http2()),
    ] {
        let send = async |policy: &str| send(&rig, &call(format!("/{policy}/{kind}"), b"hello"), 12, policy).await;
        // Unnamed it lowers the rate of good calls, and is no failure in a row.
        assert_eq!(send("plain").await, tripped("plain", 6, "failure_rate"), "{kind}");
        assert_eq!(send("failing").await, tripped("failing", 3, "consecutive_failures"), "{kind}");
        assert_eq!(send("ignored").await, (12, None), "{kind}");
    }
}

async fn trailers_only_answers_are_judged_by_their_grpc_status_whatever_their_http_status(workers: u32) {
    let rig = rig(workers, [main_listener(&json!({"policies": [policy("cases", json!({}))]}))]).await;
    rig.upstream.script(|asked| {
        let (status, code) = asked.path.rsplit('/').next().unwrap().split_once('-').unwrap();
        let answer = Behaviour::respond(status.parse().unwrap()).header("content-type", "application/grpc");
        answer.header("grpc-status", code)
    });
    for status in [200, 404, 500, 503] {
        for (code, expected) in [(0, (12, None)), (5, (12, None)), (14, tripped("cases", 3, "consecutive_failures"))] {
            let call = Call::grpc(format!("/cases/{status}-{code}"), b"hello");
            assert_eq!(send(&rig, &call, 12, "cases").await, expected, "HTTP {status}, gRPC {code}");
        }
    }
    // The control: the same answer to a request that is no gRPC.
    let plain = Call::new("POST", "/cases/503-0").http2();
    assert_eq!(send(&rig, &plain, 12, "cases").await, tripped("cases", 3, "consecutive_failures"));
}

async fn a_time_out_after_the_headers_is_a_failure_unless_the_settings_say_otherwise(workers: u32) {
    let config = json!({"policies": [
        policy("plain", json!({})),
        policy("spared", json!({"failure_when": {"timeout": false}})),
        policy("ignored", json!({"ignore_when": {"timeout": true}})),
    ]});
    let main = main_listener(&config).route(Route::prefix("/", "upstream").timeout("0.2s"));
    let rig = rig(workers, [main]).await;
    let gate = Gate::new();
    let hangs = move |answer: Behaviour| answer.steps(vec![Step::Data("part".into()), Step::Hold(gate.clone())]);
    rig.upstream.script(move |asked| {
        let answer = Behaviour::respond(200);
        match asked.path.rsplit('/').next().unwrap() {
            "grpc" => hangs(answer.header("content-type", "application/grpc")),
            "http" => hangs(answer),
            _ => answer,
        }
    });
    for (kind, call) in [("grpc", Call::grpc as fn(String, &[u8]) -> Call), ("http", |path, _| Call::get(path).http2())]
    {
        let send = async |policy: &str| send(&rig, &call(format!("/{policy}/{kind}"), b"hello"), 7, policy).await;
        assert_eq!(send("plain").await, tripped("plain", 3, "consecutive_failures"), "{kind}");
        assert_eq!(send("spared").await, (7, None), "{kind}");
        assert_eq!(send("ignored").await, (7, None), "{kind}");
    }
    // The control: an answer that is whole in time.
    assert_eq!(send(&rig, &Call::get("/plain/quick").http2(), 12, "plain").await, (12, None));
}

async fn grpc_rejections_of_a_tidegate_further_down_are_no_failures(workers: u32) {
    let outer = json!({"policies": [policy("outer", json!({"failure_when": {"grpc_status": [8, 14]}}))]});
    // One in an hour; the first comes through. Nobody, for want of a place.
    let inner = json!({"policies": [
        {"name": "rates", "match": {"path": "/outer/rates"}, "rate_limits": [{"name": "all", "rate": "1/h"}]},
        {"name": "paths", "match": {"path": "/outer/paths"}, "request_limits": {"max_path_bytes": 1}},
    ]});
    let chain = Listener::new("main")
        .filter(Tidegate::new(&outer).unwrap().name("outer"))
        .filter(Tidegate::new(&inner).unwrap().name("inner").vm_id("inner"));
    let rig = rig(workers, [chain]).await;
    rig.upstream.script(|asked| match asked.path {
        // As another proxy with Tidegate would answer.
        "/outer/proxied-8" => {
            Behaviour::grpc_trailers_only(8).header("x-tidegate-reason", "rate_limited;policy=theirs")
        }
        "/outer/proxied-14" => {
            Behaviour::grpc_trailers_only(14).header("x-tidegate-reason", "overloaded;policy=theirs")
        }
        "/outer/plain-8" => Behaviour::grpc_trailers_only(8),
        "/outer/plain-14" => Behaviour::grpc_trailers_only(14),
        _ => Behaviour::grpc(0, b"fine"),
    });
    for (path, code) in [("rates", 8), ("paths", 14), ("proxied-8", 8), ("proxied-14", 14)] {
        let call = Call::grpc(format!("/outer/{path}"), b"hello");
        assert_eq!(send(&rig, &call, 20, "outer").await, (20, None), "{path}");
        let last = client::send(rig.main(), call).await.unwrap();
        assert_eq!((last.grpc_status(), last.header("x-tidegate-reason").is_some()), (Some(code), true), "{path}");
    }
    // The controls: the same statuses from the upstream itself.
    for code in [8, 14] {
        let call = Call::grpc(format!("/outer/plain-{code}"), b"hello");
        assert_eq!(send(&rig, &call, 20, "outer").await, tripped("outer", 3, "consecutive_failures"), "{code}");
        rig.wait_for_breaker("outer", &format!("/outer/plain-{code}"), OPEN).await;
    }
}
