//! Exact over all workers: one bucket's worth, whoever asks.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_harness::client::{Load, Outcomes, Schedule};
use tidegate_harness::envoy::{HttpFilter, Listener};

use crate::support::{client, decisions, limits, start, tidegate};
use crate::with_1_2_4_and_8_workers;

with_1_2_4_and_8_workers!(
    a_key_at_eight_times_its_rate_gets_its_burst_and_its_rate_and_nothing_more,
    a_hundred_thousand_a_second_are_as_exact,
    of_sixty_fresh_keys_that_eight_connections_ask_for_at_once_each_is_admitted_once,
    a_key_that_its_own_limit_rejects_leaves_the_shared_one_untouched,
    shadow_counts_exactly_what_enforce_rejects,
    a_pause_of_five_seconds_yields_the_burst_and_no_more,
);

const RATE: u32 = 60;
const BURST: u32 = 50;
const TIME: Duration = Duration::from_secs(5);

fn per_client(rate: &str, burst: u32, scope: &str) -> Value {
    json!({"name": "each", "rate": rate, "burst": burst, "scope": scope, "key": [{"header": "x-client"}]})
}

/// Eight times the rate over many connections, so that every worker gets its share. Gives what was admitted, for how long
/// requests were sent while answers came, and for how long all of it took.
async fn overload(at: std::net::SocketAddr, cost: &'static str) -> (usize, Duration, Duration) {
    let start = Instant::now();
    let schedule = Schedule::constant(f64::from(8 * RATE), TIME);
    let outcomes =
        Load::new(at, schedule).http2(32).calls(move |_, _| client("hot").header("x-cost", cost)).run().await;
    let took = start.elapsed();
    let tally = outcomes.tally();
    let last_sent = outcomes.all.iter().map(|outcome| outcome.sent).max().unwrap_or_default();
    // Until the first connection stands the full bucket gains nothing.
    let first_answer = outcomes.all.iter().map(|outcome| outcome.intended + outcome.latency).min().unwrap_or_default();
    let limited = tally.rejections() + tally.local.get(&429).copied().unwrap_or(0);
    assert_eq!((tally.cancelled, tally.errored), (0, 0), "{tally}");
    // Whatever else the proxy answered, say 503 because no connection to the upstream stood in time, it had admitted.
    (tally.sent - limited, last_sent.saturating_sub(first_answer), took)
}

async fn a_key_at_eight_times_its_rate_gets_its_burst_and_its_rate_and_nothing_more(workers: u32) {
    let config = |scope: &str| limits(json!([per_client(&format!("{RATE}/s"), BURST, scope)]));
    let native = HttpFilter::local_bucket(BURST, RATE / 20, "0.05s");
    let (_upstream, envoy) = start(
        workers,
        [
            tidegate("proxy", &config("proxy")),
            tidegate("worker", &config("worker")),
            Listener::new("native").filter(native),
        ],
    )
    .await;
    let run = async |name: &str| overload(envoy.address(name), "1").await;
    let (proxy, worker, native) = tokio::join!(run("proxy"), run("worker"), run("native"));
    let allowed = |time: Duration| f64::from(BURST) + f64::from(RATE) * time.as_secs_f64();
    let row = |(admitted, _, took): (usize, Duration, Duration)| {
        format!("{admitted} of {:.1} ({:+.2} %)", allowed(took), 100.0 * (admitted as f64 / allowed(took) - 1.0))
    };
    println!("overload, {workers} workers: proxy {}, native {}, scope worker {}", row(proxy), row(native), row(worker));
    let (admitted, sent, took) = proxy;
    assert!(admitted as f64 <= allowed(took), "{admitted} in {took:?}");
    // One token of the bound may be under way when the last request is sent.
    assert!(admitted as f64 >= 0.99 * allowed(sent) - 1.0, "{admitted} in {sent:?}");
    // The control: a bucket for each worker admits more as soon as there are several.
    if workers > 1 {
        assert!(worker.0 > admitted + admitted / 4, "{} in buckets of each worker", worker.0);
    }
}

async fn a_hundred_thousand_a_second_are_as_exact(workers: u32) {
    // No test can send so many. Requests that cost as much as a thousand meet the same bucket.
    const COST: f64 = 1000.0;
    let config = |scope: &str| {
        let mut limit = per_client("100000/s", 50_000, scope);
        limit["cost"] = json!({"header": "x-cost", "max": 1000});
        limits(json!([limit]))
    };
    let (_upstream, envoy) =
        start(workers, [tidegate("proxy", &config("proxy")), tidegate("worker", &config("worker"))]).await;
    let run = async |name: &str| overload(envoy.address(name), "1000").await;
    let (proxy, worker) = tokio::join!(run("proxy"), run("worker"));
    let allowed = |time: Duration| 50_000.0 + 100_000.0 * time.as_secs_f64();
    let (admitted, sent, took) = proxy;
    let taken = admitted as f64 * COST;
    println!("100000/s, {workers} workers: {taken} of {:.0}, scope worker {}", allowed(took), worker.0 as f64 * COST);
    assert!(taken <= allowed(took), "{taken} in {took:?}");
    // A request's worth of the bound may be under way when the last one is sent.
    assert!(taken >= 0.99 * allowed(sent) - COST, "{taken} in {sent:?}");
    if workers > 1 {
        assert!(worker.0 > admitted + admitted / 8, "{} in buckets of each worker", worker.0);
    }
}

async fn of_sixty_fresh_keys_that_eight_connections_ask_for_at_once_each_is_admitted_once(workers: u32) {
    let config = |mode: &str| {
        let mut config = limits(json!([per_client("5/m", 1, "proxy")]));
        config["mode"] = json!(mode);
        config
    };
    // As Envoy's own keeps them unless told otherwise: twenty.
    let native = HttpFilter::local_buckets_by_header("x-client", 20, 1, "12s");
    let listeners = [
        tidegate("main", &config("enforce")),
        tidegate("control", &config("off")),
        Listener::new("native").filter(native),
    ];
    let (upstream, envoy) = start(workers, listeners).await;
    // Requests go to the eight connections in turn, so each key is asked for on all of them.
    let burst = async |name: &str| -> Outcomes {
        let load = Load::new(envoy.address(name), Schedule::burst(480)).http2(8);
        load.calls(|index, _| client((index / 8).to_string())).run().await
    };
    let tally = burst("main").await.tally();
    assert_eq!((tally.admitted(), tally.rejected_by("p", "rate_limited")), (60, 420), "{tally}");
    let mut admitted: Vec<usize> =
        upstream.seen().iter().map(|seen| seen.header("x-client").unwrap().parse().unwrap()).collect();
    admitted.sort_unstable();
    assert_eq!(admitted, (0..60).collect::<Vec<_>>());
    assert_eq!(burst("control").await.tally().admitted(), 480);
    let native = burst("native").await.tally();
    println!("60 fresh keys, {workers} workers: 60 of 480 admitted; native with 20 buckets: {native}");
}

async fn a_key_that_its_own_limit_rejects_leaves_the_shared_one_untouched(workers: u32) {
    let shared = json!({"name": "shared", "rate": "1/h", "burst": 40});
    let (_upstream, envoy) = start(
        workers,
        [
            tidegate("main", &limits(json!([shared, per_client("1/h", 5, "proxy")]))),
            tidegate("control", &limits(json!([shared]))),
            Listener::new("native")
                .filter(HttpFilter::local_buckets_by_header_and_one_for_all("x-client", 5, 40, "3600s")),
        ],
    )
    .await;
    let burst = async |name: &str, requests: usize, clients: usize| {
        let load = Load::new(envoy.address(name), Schedule::burst(requests)).http2(16);
        load.calls(move |index, _| client((index % clients).to_string())).run().await.tally()
    };
    let hot = burst("main", 400, 1).await;
    assert_eq!((hot.admitted(), hot.rejected_by("p", "rate_limited")), (5, 395), "{hot}");
    let others = burst("main", 80, 16).await;
    // Sixteen clients, of whom one has used its own five: the other 35 are all there.
    assert_eq!(others.admitted(), 35, "{others}");
    assert_eq!(burst("control", 400, 1).await.admitted(), 40, "without a limit of its own it takes all");
    let hot = burst("native", 400, 1).await;
    let others = burst("native", 80, 16).await;
    println!("a shared limit of 40, {workers} workers, native: of the hot client {hot}; then of the others {others}");
}

async fn shadow_counts_exactly_what_enforce_rejects(workers: u32) {
    let config = |mode: &str| {
        json!({"policies": [{"name": mode, "mode": mode, "rate_limits": [
            {"name": "all", "rate": "1/h", "burst": 150}, per_client("1/h", 6, "proxy")]}]})
    };
    let (_upstream, envoy) =
        start(workers, [tidegate("enforce", &config("enforce")), tidegate("shadow", &config("shadow"))]).await;
    // Fifty clients, some ten times as busy as others.
    let run = async |name: &str| {
        let load = Load::new(envoy.address(name), Schedule::burst(800)).http2(16);
        load.calls(|index, _| client((index * index % 50).to_string())).run().await.tally()
    };
    let (enforce, shadow) = (run("enforce").await, run("shadow").await);
    let rejected = enforce.rejected_by("enforce", "rate_limited");
    assert!(rejected > 600, "{enforce}");
    assert_eq!(shadow.admitted(), 800, "{shadow}");
    assert_eq!(decisions(&envoy, "shadow", "shadow_rate_limited").await, rejected);
    assert_eq!(decisions(&envoy, "shadow", "shadow_admitted").await, enforce.admitted());
    println!("shadow, {workers} workers: {rejected} of 800 rejected, as many counted in shadow");
}

async fn a_pause_of_five_seconds_yields_the_burst_and_no_more(workers: u32) {
    let config = limits(json!([per_client("20/s", 10, "proxy")]));
    let native = HttpFilter::local_bucket(10, 2, "0.1s");
    let (_upstream, envoy) =
        start(workers, [tidegate("main", &config), Listener::new("native").filter(native), Listener::new("control")])
            .await;
    let volley = async |name: &str| {
        let start = Instant::now();
        let load = Load::new(envoy.address(name), Schedule::burst(200)).http2(16);
        (load.calls(|_, _| client("a")).run().await.tally().admitted(), start.elapsed())
    };
    let most = |time: Duration| 10 + (20.0 * time.as_secs_f64()) as usize;
    let (before, _) = volley("main").await;
    volley("native").await;
    assert!(before >= 10);
    envoy.pause().await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    envoy.unpause().unwrap();
    let ((after, time), (native, _)) = tokio::join!(volley("main"), volley("native"));
    println!("pause, {workers} workers: {after} at once afterwards, of a burst of 10; native {native}");
    assert!((10..=most(time)).contains(&after), "{after} in {time:?}");
    assert_eq!(volley("control").await.0, 200);
}
