//! What nobody sends in good faith, and what happens to processes: nothing of it takes the proxy or its limits down.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_harness::client::{self, Call};

use crate::support::{Rig, SOON, count, crowd, volley};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(
    odd_requests_are_decided_like_any_other,
    a_thousand_clients_are_told_apart,
    a_paused_process_does_not_burst,
);

async fn odd_requests_are_decided_like_any_other(workers: u32) {
    let config = json!({"policies": [{
        "name": "odd",
        "rate_limits": [
            {"name": "each", "rate": "1/h", "burst": 2, "key": [{"header": "x-key"}]},
            {"name": "parts", "rate": "1000000/h", "on_missing_key": "share", "key": [
                {"query": "q"}, {"cookie": "c"}, {"path_segment": 3}, {"client_ip": {"trusted_hops": 2}}
            ]},
        ],
        "circuit_breaker": {"key": [{"header": "x-key"}]},
        "request_limits": {"max_path_bytes": 100_000, "max_headers": 1000, "max_header_bytes": 100_000},
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 100}}
    }]});
    let rig = Rig::new(workers, &config).await;
    let key = |value: &[u8]| Call::get("/").header("x-key", value);
    let calls = [
        key(&[b'k'; 8192]),
        key(b"\xff\xfe\x80 not UTF-8 \xc3"),
        key(b""),
        key(b"big").header("x-big", [b'v'; 50_000]),
        Call::get("//").header("x-key", "slashes"),
        Call::get("/?").header("x-key", "question"),
        Call::get("/?q&q=&=q&%zz=%&q=%ff%00").header("x-key", "query"),
        Call::get("/%2e%2e/../a/./b;c=d/%").header("x-key", "dots"),
        Call::get(format!("/{}", "a/".repeat(10_000))).header("x-key", "deep"),
        key(b"cookies").header("cookie", "=; ;;c; c=;\"").header("cookie", b"c=\xff"),
        key(b"forwarded").header("x-forwarded-for", b",, not an address ,::,1.2.3.4.5, \xff"),
    ];
    for call in &calls {
        let statuses = [(); 3].map(|()| client::send(rig.main(), call.clone()));
        let mut answers = Vec::new();
        for status in statuses {
            answers.push(status.await.unwrap().status);
        }
        assert_eq!(answers, [200, 200, 429], "{call:?}");
        // The control: without Tidegate nobody counts.
        assert_eq!(client::send(rig.control(), call.clone()).await.unwrap().status, 200);
    }
    // `*` is no path, and HTTP/1.0 may have no host; whatever Envoy answers, it goes on.
    for request in
        ["OPTIONS * HTTP/1.1\r\nhost: a\r\nx-key: star\r\nconnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"]
    {
        client::raw(rig.main(), request.as_bytes(), SOON).await.unwrap();
    }
    rig.wait_for_idle("odd").await;
    let stats = rig.envoy.stats().await.unwrap();
    assert_eq!(stats.count("tidegate_errors_total", &[]), 0.0, "{}", stats.only("tidegate_"));
    assert_eq!(rig.decisions("odd", "rate_limited").await, calls.len());
    // FAIL_RELOAD is in place, and was not needed.
    let reloads = rig.envoy.admin_get("/stats?filter=vm_reload").await.unwrap();
    assert!(reloads.contains("vm_reload_success: 0") && reloads.contains("vm_reload_failure: 0"), "{reloads}");
}

async fn a_thousand_clients_are_told_apart(workers: u32) {
    let config = json!({"policies": [{
        "name": "many",
        "rate_limits": [{"name": "each", "rate": "1/h", "burst": 2, "key": [{"header": "x-key"}], "max_keys": 65536}]
    }]});
    let rig = Rig::new(workers, &config).await;
    let call = |index: usize| Call::get("/").header("x-key", format!("client-{}", index % 1000));
    let decisions = crowd(rig.main(), 3000, call).await;
    assert_eq!((count(&decisions, "admitted"), count(&decisions, "rate_limited")), (2000, 1000));
    let mut counts = std::collections::BTreeMap::<_, usize>::new();
    for seen in rig.upstream.seen() {
        *counts.entry(seen.header("x-key").unwrap().to_owned()).or_default() += 1;
    }
    assert!(counts.len() == 1000 && counts.values().all(|&count| count == 2), "{counts:?}");
    assert_eq!(count(&crowd(rig.control(), 3000, call).await, "admitted"), 3000);
}

async fn a_paused_process_does_not_burst(workers: u32) {
    let config = json!({"policies": [{"name": "rates", "rate_limits": [{"name": "all", "rate": "4/s", "burst": 8}]}]});
    let rig = Rig::new(workers, &config).await;
    let start = Instant::now();
    let allowed = |since: Instant| 8 + (since.elapsed().as_secs_f64() * 4.0) as usize;
    let before = volley(rig.main(), 60, |_| Call::get("/")).await.tally().admitted();
    assert!((8..=allowed(start)).contains(&before), "{before}");
    rig.envoy.pause().await.unwrap();
    // The pause itself is what is tested: three seconds are worth twelve requests, of which the bucket holds eight.
    tokio::time::sleep(Duration::from_secs(3)).await;
    rig.envoy.unpause().unwrap();
    let resumed = Instant::now();
    let after = volley(rig.main(), 60, |_| Call::get("/")).await.tally().admitted();
    assert!((8..=allowed(resumed)).contains(&after), "{after} admitted in {:?}", resumed.elapsed());
    // The control: without Tidegate all sixty pass.
    assert_eq!(volley(rig.control(), 60, |_| Call::get("/")).await.tally().admitted(), 60);
}
