//! Circuit breakers: one state over all workers, probes counted over all of them, and only the upstream's own failures.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call, Cancel, Connection, Ended};
use tidegate_harness::envoy::{Builder, Cluster, Envoy, Listener, Route, Tidegate};
use tidegate_harness::ledger::Ledgers;
use tidegate_harness::upstream::{Behaviour, Upstream};
use tidegate_harness::{Gate, wait_until};

use crate::support::{Rig, SOON, main_listener, volley, volley_beside};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(
    one_trip_opens_the_circuit_on_all_workers,
    exactly_the_probes_pass_while_half_open_and_good_ones_close,
    a_bad_probe_reopens_for_longer,
    whatever_the_upstream_does_wrong_counts,
    what_is_not_the_upstreams_doing_does_not_count,
    retries_are_judged_by_their_last_outcome,
);

const CLOSED: u32 = 0;
const OPEN: u32 = 1;
const HALF_OPEN: u32 = 2;

fn breaker(open_duration: &str, probes: u32) -> Value {
    json!({"minimum_calls": 10, "open_duration": open_duration, "half_open": {"probes": probes, "timeout": "60s"}})
}

fn config(breaker: &Value) -> Value {
    json!({"policies": [{"name": "upstreams", "circuit_breaker": breaker}]})
}

async fn transitions(envoy: &Envoy, to: &str) -> f64 {
    let stats = envoy.stats().await.unwrap();
    stats.count("tidegate_circuit_breaker_transitions_total", &[("policy", "upstreams"), ("to", to)])
}

/// Fails ten requests, which trips, and waits until everybody knows.
async fn trip(rig: &Rig) {
    rig.upstream.fail(Behaviour::respond(503));
    for _ in 0..10 {
        assert_eq!(client::get(rig.main(), "/").await.unwrap().status, 503);
    }
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    rig.upstream.recover();
}

async fn one_trip_opens_the_circuit_on_all_workers(workers: u32) {
    let rig = Rig::new(workers, &config(&breaker("60s", 5))).await;
    trip(&rig).await;
    assert_eq!(rig.upstream.total(), 10, "the tenth failure of ten tripped");
    let before = rig.envoy.stats().await.unwrap();
    let outcomes = volley(rig.main(), 100, |_| Call::get("/")).await;
    let grown = rig.envoy.stats().await.unwrap().since(&before);
    let tally = outcomes.tally();
    assert_eq!(tally.rejected_by("upstreams", "circuit_open"), 100, "{tally}");
    let ledgers = Ledgers::of_clients([&outcomes]).and_upstream(&rig.upstream);
    ledgers.check_upstream().unwrap();
    ledgers.check_stats("upstreams", &grown).unwrap();
    for outcome in &outcomes.all {
        let wait: u64 = outcome.header("retry-after").unwrap().parse().unwrap();
        assert!((20..=66).contains(&wait), "60 s and a tenth more at most, not {wait} s");
        let reason = outcome.header("x-tidegate-reason").unwrap();
        assert!(reason.starts_with("circuit_open;policy=upstreams"), "{reason}");
    }
    assert_eq!((transitions(&rig.envoy, "open").await, transitions(&rig.envoy, "closed").await), (1.0, 0.0));
    assert_eq!(rig.envoy.busy_workers("main").await.unwrap(), workers as usize, "every worker had its part in it");

    // The control: without Tidegate everybody goes on asking.
    let tally = volley(rig.control(), 100, |_| Call::get("/")).await.tally();
    assert_eq!(tally.admitted(), 100, "{tally}");
}

/// Asks until so many probes are at the upstream, which holds them.
async fn probe(rig: &Rig, probes: usize) -> Vec<tokio::task::JoinHandle<tidegate_harness::client::Outcomes>> {
    let mut volleys = Vec::new();
    wait_until(SOON, async || {
        volleys.push(volley_beside(rig.main(), 20, |_| Call::get("/")));
        // Everybody but the probes is answered at once.
        match rig.upstream.concurrent() {
            now if now == probes => Ok(()),
            now => Err(format!("{now} probes are at the upstream, not {probes}")),
        }
    })
    .await
    .unwrap();
    volleys
}

async fn exactly_the_probes_pass_while_half_open_and_good_ones_close(workers: u32) {
    let rig = Rig::new(workers, &config(&breaker("1s", 3))).await;
    let gate = Gate::new();
    trip(&rig).await;
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let volleys = probe(&rig, 3).await;
    rig.wait_for_breaker("upstreams", "upstream", HALF_OPEN).await;
    let tally = volley(rig.main(), 200, |_| Call::get("/")).await.tally();
    assert_eq!(tally.rejected_by("upstreams", "circuit_open"), 200, "{tally}");
    assert_eq!((rig.upstream.concurrent(), rig.upstream.total()), (3, 13));
    gate.open();
    rig.wait_for_breaker("upstreams", "upstream", CLOSED).await;
    let mut admitted = 0;
    for volley in volleys {
        admitted += volley.await.unwrap().tally().admitted();
    }
    let tally = volley(rig.main(), 100, |_| Call::get("/")).await.tally();
    assert_eq!((admitted, tally.admitted()), (rig.upstream.total() - 110, 100), "{tally}");
    for (to, times) in [("open", 1.0), ("half_open", 1.0), ("closed", 1.0)] {
        assert_eq!(transitions(&rig.envoy, to).await, times, "to {to}");
    }
    // The control: without Tidegate nobody is kept back.
    gate.close();
    let all = volley_beside(rig.control(), 50, |_| Call::get("/"));
    rig.upstream.wait_for_concurrent(50, SOON).await.unwrap();
    gate.open();
    assert_eq!(all.await.unwrap().tally().admitted(), 50);
}

async fn a_bad_probe_reopens_for_longer(workers: u32) {
    let rig = Rig::new(workers, &config(&breaker("2s", 3))).await;
    let gate = Gate::new();
    trip(&rig).await;
    let first = client::get(rig.main(), "/").await.unwrap();
    assert!(["1", "2", "3"].contains(&first.header("retry-after").unwrap()), "{first:?}");
    rig.upstream.always(Behaviour::respond(500).hold(&gate));
    let volleys = probe(&rig, 3).await;
    gate.open();
    wait_until(SOON, async || match transitions(&rig.envoy, "open").await {
        2.0 => Ok(()),
        other => Err(format!("{other} trips")),
    })
    .await
    .unwrap();
    for volley in volleys {
        volley.await.unwrap();
    }
    // It tripped when the first probe was bad. The control is the upstream's health: once that is good again it closes.
    let before = rig.upstream.seen();
    let bad = before[10..].iter().filter_map(|seen| seen.end.map(|(_, at)| at)).min().unwrap();
    rig.upstream.always(Behaviour::respond(200));
    wait_until(SOON, async || {
        let status = client::get(rig.main(), "/").await.unwrap().status;
        let closed = transitions(&rig.envoy, "closed").await;
        if closed == 1.0 { Ok(()) } else { Err(format!("closed {closed} times, answered {status}")) }
    })
    .await
    .unwrap();
    let open_for = rig.upstream.seen()[before.len()].at - bad;
    // Twice two seconds, less a tenth; the first time it was two seconds and a tenth of them at most.
    assert!(open_for >= Duration::from_millis(3600), "a probe came after {open_for:?}");
}

/// A breaker per `x-case`, and a count of what is in flight, so that a test knows when all has been judged.
fn cases() -> Value {
    json!({"policies": [{
        "name": "cases",
        "circuit_breaker": {"key": [{"header": "x-case"}], "minimum_calls": 6, "open_duration": "60s"},
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1000}}
    }]})
}

/// Envoy's fault filter after Tidegate, and routes to a dead upstream, with a short timeout, and answered by Envoy.
fn troubled(builder: Builder, upstream: &Upstream, dead: &Upstream) -> Builder {
    let fault = json!({
        "name": "envoy.filters.http.fault",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": {"header_abort": {}, "percentage": {"numerator": 100, "denominator": "HUNDRED"}}
        }
    });
    let main =
        Listener::new("main")
            .filter(Tidegate::new(&cases()).unwrap())
            .filter(fault)
            .route(Route::prefix("/dead", "dead"))
            .route(Route::prefix("/nowhere", "nowhere"))
            .route(Route::prefix("/timeout", "upstream").timeout("0.1s"))
            .route(Route::prefix("/try-timeout", "upstream").raw(
                json!({"route": {"retry_policy": {"retry_on": "5xx", "num_retries": 0, "per_try_timeout": "0.1s"}}}),
            ))
            .route(Route::respond("/direct", 503))
            .route(Route::prefix("/", "upstream"));
    let nowhere = Cluster::new("nowhere", upstream.address()).raw(json!({"load_assignment": {"endpoints": []}}));
    builder
        .cluster(Cluster::new("upstream", upstream.address()))
        .cluster(Cluster::new("dead", dead.address()))
        .cluster(nowhere)
        .listener(main)
}

fn case(name: &str, path: &str) -> Call {
    Call::get(path).header("x-case", name)
}

async fn failures(rig: &Rig, name: &'static str, number: usize) {
    for _ in 0..number {
        let response = client::send(rig.main(), case(name, "/").header("x-upstream-status", "500")).await.unwrap();
        assert_eq!((response.status, response.reason()), (500, None), "{name}");
    }
    rig.wait_for_idle("cases").await;
}

async fn whatever_the_upstream_does_wrong_counts(workers: u32) {
    let dead = Upstream::start().await.unwrap();
    let rig = Rig::built(workers, |builder, upstream| troubled(builder, upstream, &dead)).await;
    dead.kill().await.unwrap();
    let fault = |name: &'static str, fault: &str| (name, case(name, "/").header("x-upstream-fault", fault));
    let cases = [
        ("status", case("status", "/").header("x-upstream-status", "502")),
        ("refused", case("refused", "/dead")),
        ("no-host", case("no-host", "/nowhere")),
        ("timeout", case("timeout", "/timeout").header("x-upstream-fault", "never")),
        ("try-timeout", case("try-timeout", "/try-timeout").header("x-upstream-fault", "never")),
        fault("reset", "reset"),
        fault("reset-in-body", "reset-in-body"),
    ];
    for (name, call) in cases {
        for _ in 0..6 {
            // What the client gets depends on the case, and may be half an answer.
            let _ = client::send(rig.main(), call.clone()).await;
        }
        rig.wait_for_breaker("cases", name, OPEN).await;
        let response = client::send(rig.main(), call).await.unwrap();
        assert_eq!(response.reason().map(|reason| reason.decision).as_deref(), Some("circuit_open"), "{name}");
    }
    // The control: what the upstream means by a 404 is not a failure.
    for _ in 0..12 {
        let response = client::send(rig.main(), case("good", "/").header("x-upstream-status", "404")).await.unwrap();
        assert_eq!(response.status, 404);
    }
    rig.wait_for_idle("cases").await;
}

async fn what_is_not_the_upstreams_doing_does_not_count(workers: u32) {
    let dead = Upstream::start().await.unwrap();
    let rig = Rig::built(workers, |builder, upstream| troubled(builder, upstream, &dead)).await;
    let never = |name: &str| {
        case(name, "/").header("x-upstream-fault", "never").cancel(Cancel::After(Duration::from_millis(30)))
    };
    let slow = Behaviour::respond(200).slow_body(1000, 10, Duration::from_millis(10));
    rig.upstream.script(move |asked| if asked.path == "/slow" { slow.clone() } else { Behaviour::default() });
    let cases = [
        ("cancelled", never("cancelled"), None),
        ("cancelled2", never("cancelled2").http2(), None),
        ("left-in-body", case("left-in-body", "/slow").cancel(Cancel::InBody(20)), Some(200)),
        ("fault-filter", case("fault-filter", "/").header("x-envoy-fault-abort-request", "503"), Some(503)),
        ("direct", case("direct", "/direct"), Some(503)),
    ];
    for (name, call, status) in cases {
        // Neither failures, then these eight and five failures would trip, nor successes, then eight and six would not.
        for _ in 0..8 {
            let mut connection = Connection::open(rig.main(), name == "cancelled2").await.unwrap();
            match connection.run(call.clone()).await.unwrap() {
                Ended::Answered(response) => assert_eq!(Some(response.status), status, "{name}"),
                Ended::Cancelled(seen) => assert_eq!(seen, status, "{name}"),
            }
        }
        rig.wait_for_idle("cases").await;
        failures(&rig, name, 5).await;
        let stats = rig.envoy.stats().await.unwrap();
        let state = stats.count("tidegate_circuit_breaker_state", &[("policy", "cases"), ("key", name)]);
        assert_eq!(state, f64::from(CLOSED), "{name} counts as failure");
        failures(&rig, name, 1).await;
        rig.wait_for_breaker("cases", name, OPEN).await;
    }
    // The control: successes do count, so that six failures after eight of them are too few of all.
    for _ in 0..8 {
        assert_eq!(client::send(rig.main(), case("good", "/")).await.unwrap().status, 200);
    }
    failures(&rig, "good", 6).await;
    let good = client::send(rig.main(), case("good", "/")).await.unwrap();
    assert_eq!(good.status, 200);
}

async fn retries_are_judged_by_their_last_outcome(workers: u32) {
    let config = json!({"policies": [{
        "name": "upstreams",
        "circuit_breaker": {"key": [{"attribute": "route"}], "minimum_calls": 10, "open_duration": "60s"},
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1000}}
    }]});
    let listener = main_listener(&config)
        .route(Route::prefix("/retried", "upstream").name("retried").retry("5xx", 1))
        .route(Route::prefix("/", "upstream").name("direct"));
    let rig = Rig::with(workers, [listener]).await;
    let bad_then_good = |_: usize| [Behaviour::respond(503), Behaviour::respond(200)];
    rig.upstream.enqueue((0..10).flat_map(bad_then_good));
    for _ in 0..10 {
        assert_eq!(client::get(rig.main(), "/retried").await.unwrap().status, 200);
    }
    assert_eq!(rig.upstream.total(), 20);
    rig.wait_for_idle("upstreams").await;
    assert_eq!(transitions(&rig.envoy, "open").await, 0.0);
    // The control: the same failures without retries.
    rig.upstream.enqueue((0..5).flat_map(bad_then_good));
    for _ in 0..10 {
        client::get(rig.main(), "/direct").await.unwrap();
    }
    rig.wait_for_breaker("upstreams", "direct", OPEN).await;
    assert_eq!(client::get(rig.main(), "/retried").await.unwrap().status, 200);
}
