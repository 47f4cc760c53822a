//! The clients: open-loop load over both versions of HTTP, and the ledgers that judge it.

use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{Call, Cancel, Ending, Load, Schedule};
use tidegate_harness::envoy::{Cluster, Envoy, HttpFilter, Listener};
use tidegate_harness::ledger::Ledgers;
use tidegate_harness::upstream::{Behaviour, Upstream};

use crate::{SOON, plain};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_upstream_shows_in_the_latency_and_does_not_slow_the_arrivals() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    let stall = Duration::from_millis(400);
    upstream.always(Behaviour::default().delay(stall));
    let schedule = Schedule::constant(100.0, Duration::from_millis(300)).jitter(0.5);
    let outcomes = Load::new(envoy.listener(), schedule).seed(42).run().await;
    assert_eq!(outcomes.tally().admitted(), 30, "{}", outcomes.tally());
    assert!(outcomes.latencies(|_| true).percentile(0.0) >= stall);
    assert_eq!(upstream.max_concurrent(), 30, "all had arrived before the first was answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latency_counts_from_the_intended_moment_when_envoy_stands_still() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    let schedule = Schedule::constant(100.0, Duration::from_millis(400));
    let load = tokio::spawn(Load::new(envoy.listener(), schedule).run());
    upstream.wait_for_total(10, SOON).await.unwrap();
    envoy.pause().await.unwrap();
    // How long the process stands still is what is measured here.
    tokio::time::sleep(Duration::from_millis(600)).await;
    envoy.unpause().unwrap();
    let outcomes = load.await.unwrap();
    assert_eq!(outcomes.tally().admitted(), 40, "{}", outcomes.tally());
    let latencies = outcomes.latencies(|_| true);
    assert!(latencies.percentile(100.0) >= Duration::from_millis(500), "{latencies}");
    let waited = outcomes.latencies(|outcome| outcome.latency >= Duration::from_millis(200));
    assert!(waited.count() >= 20, "those due while it stood still waited too: {waited}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_over_http2_shares_its_connections() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    let before = envoy.stats().await.unwrap();
    let schedule = Schedule::constant(200.0, Duration::from_millis(250)).poisson();
    let load = Load::new(envoy.listener(), schedule).http2(2).calls(|index, _| Call::get(format!("/{index}")));
    let outcomes = load.run().await;
    let tally = outcomes.tally();
    assert_eq!(tally.admitted(), tally.sent, "{tally}");
    let grown = envoy.stats().await.unwrap().since(&before);
    let connections = [("envoy_http_conn_manager_prefix", "main")];
    assert_eq!(grown.stat("envoy_http_downstream_cx_http2_total", &connections), Some(2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_accounted_for_however_it_ends() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    upstream.fail(Behaviour::default().slow_body(2, 5, Duration::from_millis(100)));
    let waiting = Cancel::After(Duration::from_millis(50));
    let cancels = [None, Some(Cancel::InHead), Some(waiting), Some(Cancel::InBody(5)), Some(Cancel::AtHeaders)];
    let load = Load::new(envoy.listener(), Schedule::constant(100.0, Duration::from_millis(400)));
    let outcomes = load
        .calls(move |index, _| match cancels[index % cancels.len()] {
            None => Call::get("/"),
            Some(cancel) => Call::get("/").cancel(cancel),
        })
        .run()
        .await;
    let tally = outcomes.tally();
    assert_eq!((tally.sent, tally.admitted(), tally.cancelled), (40, 8, 32), "{tally}");
    assert_eq!(outcomes.all[1].ending, Ending::Cancelled(None));
    assert_eq!(outcomes.all[3].ending, Ending::Cancelled(Some(200)));
    upstream.wait_for_concurrent(0, SOON).await.unwrap();
    Ledgers::of_clients([&outcomes]).and_upstream(&upstream).check_upstream().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_proxy_answers_itself_is_told_from_the_upstreams_answers() {
    let upstream = Upstream::start().await.unwrap();
    let listener = Listener::new("main").filter(HttpFilter::local_ratelimit(10, "3600s"));
    let builder = Envoy::builder().concurrency(4).cluster(Cluster::new("upstream", upstream.address()));
    let envoy = builder.listener(listener).start().await.unwrap();
    let outcomes = Load::new(envoy.listener(), Schedule::burst(30)).run().await;
    let tally = outcomes.tally();
    assert_eq!((tally.answered[&200], tally.local[&429]), (10, 20), "{tally}");
    assert_eq!(upstream.total(), 10);
    Ledgers::of_clients([&outcomes]).and_upstream(&upstream).check_upstream().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_that_reached_the_upstream_is_found() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    upstream.always(Behaviour::respond(429).header("x-tidegate-reason", "rate_limited;policy=p;limit=l"));
    let outcomes = Load::new(envoy.listener(), Schedule::burst(3)).run().await;
    assert_eq!(outcomes.tally().rejected_by("p", "rate_limited"), 3);
    let ledgers = Ledgers::of_clients([&outcomes]).and_upstream(&upstream);
    let error = ledgers.check_upstream().unwrap_err().to_string();
    assert!(error.contains("3 requests were rejected, but the upstream saw them"), "{error}");
    let stats = envoy.stats().await.unwrap();
    let error = ledgers.check_stats("p", &stats).unwrap_err().to_string();
    assert!(error.contains("rate_limited: the stats say 0, the clients 3 to 3"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_never_reached_the_upstream_is_found() {
    let mark = json!({"header": {"key": "x-harness-upstream", "value": "1"}});
    let listener = Listener::new("main")
        .route(tidegate_harness::envoy::Route::respond("/", 200).raw(json!({"response_headers_to_add": [mark]})));
    let envoy = Envoy::builder().listener(listener).start().await.unwrap();
    let upstream = Upstream::start().await.unwrap();
    let outcomes = Load::new(envoy.listener(), Schedule::burst(2)).run().await;
    let error = Ledgers::of_clients([&outcomes]).and_upstream(&upstream).check_upstream().unwrap_err().to_string();
    assert!(error.contains("2 requests were answered, but the upstream did not see them"), "{error}");
}
