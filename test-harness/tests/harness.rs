//! The harness tested against itself: a real Envoy, without Tidegate in it.

use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Cluster, Envoy, HttpFilter, Listener};
use tidegate_harness::upstream::Upstream;

async fn plain(upstream: &Upstream) -> Envoy {
    let builder = Envoy::builder().cluster(Cluster::new("upstream", upstream.address()));
    builder.listener(Listener::new("main")).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_through_envoy_to_the_upstream_and_back() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    let response = client::send(envoy.listener(), Call::get("/a?b=c").header("x-test", "yes")).await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "ok\n"));
    let seen = upstream.seen();
    assert_eq!((seen.len(), seen[0].path.as_str(), seen[0].header("x-test")), (1, "/a?b=c", Some("yes")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_filter_and_several_workers_can_be_configured() {
    let upstream = Upstream::start().await.unwrap();
    let listener = Listener::new("main").filter(HttpFilter::local_ratelimit(3, "3600s"));
    let builder = Envoy::builder().concurrency(4).cluster(Cluster::new("upstream", upstream.address()));
    let envoy = builder.listener(listener).start().await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(client::get(envoy.listener(), "/").await.unwrap().status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(upstream.total(), 3);
    let stats = envoy.stats().await.unwrap();
    assert_eq!(stats.stat("envoy_server_concurrency", &[]), Some(4.0));
    assert_eq!(
        stats.samples("envoy_http_local_rate_limit_rate_limited", &[]).count(),
        1,
        "{}",
        stats.only("envoy_http_local")
    );
}
