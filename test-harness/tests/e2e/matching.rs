//! Which policies apply to which requests, by what Envoy knows of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call, Response};
use tidegate_harness::envoy::{Cluster, Listener, Route};

use crate::support::{Rig, main_listener};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(policies_apply_to_the_requests_they_match);

/// A policy that applies tells so by its limit's name in `RateLimit-Policy`.
fn policy(name: &str, matching: Value) -> Value {
    json!({"name": name, "match": matching, "rate_limits": [{"name": name, "rate": "1000000/h"}]})
}

fn applied(response: &Response) -> BTreeSet<String> {
    let told = response.headers.get_all("ratelimit-policy").iter().map(|value| value.to_str().unwrap());
    // One list over all policies; what is between quotes are the names.
    told.flat_map(|value| value.split('"').skip(1).step_by(2)).map(str::to_owned).collect()
}

async fn policies_apply_to_the_requests_they_match(workers: u32) {
    let config = json!({"policies": [
        policy("host", json!({"host": "a.example"})),
        policy("hosts", json!({"host": ["b.example", "*.wild.example"]})),
        policy("path", json!({"path": "/exact"})),
        policy("prefix", json!({"path": [{"prefix": "/pre/"}, {"suffix": ".jpg"}, {"regex": "^/r[0-9]+$"}]})),
        policy("template", json!({"path": {"template": "/v1/users/{id}/orders/**"}})),
        policy("method", json!({"method": ["PUT", "DELETE"]})),
        policy("header", json!({"headers": [{"name": "x-tier", "exact": "gold"}]})),
        policy("present", json!({"headers": [{"name": "x-flag", "present": true}]})),
        policy("inverted", json!({"path": "/inverted", "headers": [{"name": "x-tier", "exact": "gold", "invert": true}]})),
        policy("query", json!({"query": [{"name": "debug", "exact": "1"}]})),
        policy("route", json!({"route": {"prefix": "orders-"}})),
        policy("cluster", json!({"cluster": "second"})),
        policy("grpc", json!({"grpc": true})),
        policy("plain", json!({"path": "/kind", "grpc": false})),
        policy("both", json!({"method": "PUT", "path": "/exact"})),
    ]});
    let rig = Rig::built(workers, |builder, upstream| {
        let listener = main_listener(&config)
            .route(Route::prefix("/second", "second").name("second"))
            .route(Route::prefix("/orders", "upstream").name("orders-v2"))
            .route(Route::prefix("/", "upstream"));
        builder
            .cluster(Cluster::new("upstream", upstream.address()))
            .cluster(Cluster::new("second", upstream.address()))
            .listener(listener)
            .listener(Listener::new("control"))
    })
    .await;
    let get = Call::get;
    let cases: Vec<(Call, &[&str])> = vec![
        (get("/"), &[]),
        (get("/").header("host", "a.example"), &["host"]),
        (get("/").header("host", "A.Example:8080"), &["host"]),
        (get("/").header("host", "b.a.example"), &[]),
        (get("/").header("host", "b.example"), &["hosts"]),
        (get("/").header("host", "x.y.wild.example"), &["hosts"]),
        (get("/").header("host", "wild.example"), &[]),
        (get("/exact"), &["path"]),
        (get("/exact?a=b"), &["path"]),
        (get("/exact/"), &[]),
        (get("/pre/x"), &["prefix"]),
        (get("/cat.jpg?size=1"), &["prefix"]),
        (get("/r42"), &["prefix"]),
        (get("/r42x"), &[]),
        (get("/v1/users/7/orders"), &["template"]),
        (get("/v1/users/7/orders/a/b"), &["template"]),
        (get("/v1/users//orders"), &[]),
        (get("/v1/users/7/8/orders"), &[]),
        (Call::new("DELETE", "/"), &["method"]),
        (Call::new("PUT", "/exact"), &["method", "path", "both"]),
        (get("/").header("x-tier", "gold"), &["header"]),
        (get("/").header("x-tier", "golden"), &[]),
        (get("/").header("x-flag", ""), &["present"]),
        (get("/inverted"), &["inverted"]),
        (get("/inverted").header("x-tier", "gold"), &["header"]),
        (get("/?debug=1"), &["query"]),
        (get("/?x=2&debug=1&y"), &["query"]),
        (get("/?debug=10"), &[]),
        (get("/orders/1"), &["route"]),
        (get("/second"), &["cluster"]),
        (get("/kind"), &["plain"]),
        (get("/kind").header("content-type", "application/grpc+proto"), &["grpc"]),
    ];
    for (call, expected) in cases {
        let expected: BTreeSet<_> = expected.iter().map(|&name| name.to_owned()).collect();
        for call in [call.clone(), call.clone().http2()] {
            let response = client::send(rig.main(), call.clone()).await.unwrap();
            assert_eq!((response.status, applied(&response)), (200, expected.clone()), "{call:?}");
        }
        // The control: without Tidegate nobody tells anything.
        assert_eq!(applied(&client::send(rig.control(), call).await.unwrap()), BTreeSet::new());
    }
}
