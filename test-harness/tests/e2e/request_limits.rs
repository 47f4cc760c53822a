//! Bounds on the request itself.

use serde_json::json;
use tidegate_harness::client::{self, Call};

use crate::support::Rig;
use crate::with_one_and_four_workers;

with_one_and_four_workers!(requests_beyond_their_bounds_are_rejected_and_those_at_them_pass);

async fn requests_beyond_their_bounds_are_rejected_and_those_at_them_pass(workers: u32) {
    let config = json!({"policies": [
        {"name": "path", "match": {"path": {"prefix": "/p"}}, "request_limits": {"max_path_bytes": 20}},
        {"name": "count", "match": {"path": "/count"}, "request_limits": {"max_headers": 20}},
        {"name": "bytes", "match": {"path": "/bytes"}, "request_limits": {"max_header_bytes": 2000}},
    ]});
    let rig = Rig::new(workers, &config).await;
    let many =
        |number: usize| (0..number).fold(Call::get("/count"), |call, index| call.header(&format!("x-h{index}"), "v"));
    let large = |bytes: usize| Call::get("/bytes").header("x-large", "v".repeat(bytes));
    let path = |length: usize| Call::get(format!("/p?{}", "q".repeat(length - 3)));
    let cases = [
        ("path", path(20), path(21), 414, "Path too long"),
        ("count", many(5), many(21), 431, "Request headers too large"),
        ("bytes", large(100), large(2000), 431, "Request headers too large"),
    ];
    for (policy, good, bad, status, title) in cases {
        for (good, bad) in [(good.clone(), bad.clone()), (good.http2(), bad.http2())] {
            assert_eq!(client::send(rig.main(), good).await.unwrap().status, 200, "{policy}");
            let before = rig.upstream.total();
            let rejected = client::send(rig.main(), bad.clone()).await.unwrap();
            assert_eq!((rejected.status, rig.upstream.total()), (status, before), "{policy}");
            assert_eq!(rejected.header("retry-after"), None, "waiting does not help");
            let reason = format!("invalid_request;policy={policy}");
            assert_eq!(rejected.header("x-tidegate-reason"), Some(reason.as_str()));
            let body: serde_json::Value = serde_json::from_slice(&rejected.body).unwrap();
            assert_eq!(body, json!({"type": "about:blank", "title": title, "status": status, "policy": policy}));
            // The control: Envoy itself would let it pass.
            assert_eq!(client::send(rig.control(), bad).await.unwrap().status, 200, "{policy}");
        }
        assert_eq!(rig.decisions(policy, "invalid_request").await, 2);
    }
}
