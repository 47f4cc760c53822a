//! gRPC: rejections a gRPC client understands, and gRPC statuses as the breaker's verdict.

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Cluster, Listener};
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, main_listener};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(
    rejections_are_trailers_only_and_name_the_policy,
    the_grpc_status_decides_and_not_the_http_status,
);

const OPEN: u32 = 1;

async fn rig(workers: u32, config: &Value) -> Rig {
    Rig::built(workers, |builder, upstream| {
        let cluster = Cluster::new("upstream", upstream.address()).http2();
        builder.cluster(cluster).listener(main_listener(config)).listener(Listener::new("control"))
    })
    .await
}

async fn rejections_are_trailers_only_and_name_the_policy(workers: u32) {
    let config = json!({"policies": [
        {"name": "rates", "match": {"path": "/a.Rates/Get"}, "rate_limits": [{"name": "all", "rate": "1/h"}]},
        {"name": "nobody", "match": {"path": "/a.Places/Get"}, "request_limits": {"max_path_bytes": 1}},
        {"name": "failing", "match": {"path": "/a.Breaker/Get"}, "circuit_breaker": {"minimum_calls": 1}},
    ]});
    let rig = rig(workers, &config).await;
    rig.upstream.script(|asked| match asked.path {
        "/a.Breaker/Get" => Behaviour::grpc_trailers_only(14),
        _ => Behaviour::grpc(0, b"fine"),
    });
    let call = async |at, path: &str| client::send(at, Call::grpc(path, b"hello")).await.unwrap();
    let first = call(rig.main(), "/a.Rates/Get").await;
    assert_eq!((first.status, first.grpc_status(), &first.body[5..]), (200, Some(0), &b"fine"[..]));
    assert_eq!(call(rig.main(), "/a.Breaker/Get").await.grpc_status(), Some(14));
    rig.wait_for_breaker("failing", "upstream", OPEN).await;
    for (path, status, policy, reason) in [
        ("/a.Rates/Get", 8, "rates", "rate_limited;policy=rates;limit=all"),
        ("/a.Places/Get", 14, "nobody", "invalid_request;policy=nobody"),
        ("/a.Breaker/Get", 14, "failing", "circuit_open;policy=failing"),
    ] {
        let before = rig.upstream.total();
        let rejected = call(rig.main(), path).await;
        assert_eq!((rejected.status, rejected.grpc_status()), (200, Some(status)), "{path}");
        assert!(rejected.trailers.is_empty() && rejected.body.is_empty(), "trailers-only: {rejected:?}");
        assert_eq!(rejected.header("content-type"), Some("application/grpc"), "{path}");
        let message = rejected.header("grpc-message").unwrap();
        assert!(message.contains(policy), "{message} names {policy}");
        assert!(rejected.header("x-tidegate-reason").unwrap().starts_with(reason), "{rejected:?}");
        assert_eq!(rig.upstream.total(), before);
    }
    // The controls: the same request as plain HTTP is answered in plain HTTP, and without Tidegate it passes.
    let plain = client::send(rig.main(), Call::new("POST", "/a.Rates/Get").http2()).await.unwrap();
    assert_eq!((plain.status, plain.grpc_status()), (429, None));
    assert_eq!(call(rig.control(), "/a.Rates/Get").await.grpc_status(), Some(0));
}

async fn the_grpc_status_decides_and_not_the_http_status(workers: u32) {
    let config = json!({"policies": [{
        "name": "cases",
        "circuit_breaker": {"key": [{"attribute": "path"}], "minimum_calls": 6, "open_duration": "60s"},
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1000}}
    }]});
    let rig = rig(workers, &config).await;
    rig.upstream.script(|asked| {
        let mut words = asked.path.trim_start_matches("/case/").split('-');
        let (kind, status) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        match kind {
            "only" => Behaviour::grpc_trailers_only(status),
            _ => Behaviour::grpc(status, b"message"),
        }
    });
    // UNAVAILABLE and INTERNAL are the upstream's failures; NOT_FOUND is an answer, RESOURCE_EXHAUSTED asks for less.
    for (kind, status, fails) in [
        ("trailers", 14, true),
        ("only", 14, true),
        ("trailers", 13, true),
        ("trailers", 5, false),
        ("only", 5, false),
        ("trailers", 0, false),
    ] {
        let path = format!("/case/{kind}-{status}");
        for _ in 0..6 {
            let response = client::send(rig.main(), Call::grpc(path.as_str(), b"hello")).await.unwrap();
            assert_eq!(
                (response.status, response.grpc_status(), response.reason()),
                (200, Some(status), None),
                "{path}"
            );
        }
        rig.wait_for_idle("cases").await;
        if fails {
            rig.wait_for_breaker("cases", &path, OPEN).await;
        }
        let response = client::send(rig.main(), Call::grpc(path.as_str(), b"hello")).await.unwrap();
        assert_eq!(response.reason().is_some(), fails, "{path}: {response:?}");
    }
}
