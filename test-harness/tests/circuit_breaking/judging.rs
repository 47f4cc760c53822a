//! Thresholds are met to the request, and late results change nothing.

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call};
use tidegate_harness::upstream::Behaviour;
use tidegate_harness::{Gate, Step};

use crate::support::{Rig, SOON, until, volley, volley_beside};
use crate::{CLOSED, OPEN, all_took_part, breaker, transitions, trip, trips, with_1_2_4_and_8_workers};

with_1_2_4_and_8_workers!(
    a_flapping_upstream_trips_at_its_threshold_and_not_one_request_below,
    results_from_before_the_last_change_of_state_change_nothing,
);

fn case(name: &str, status: u16) -> Call {
    Call::get("/").header("x-case", name).header("x-upstream-status", status.to_string())
}

async fn state(rig: &Rig, name: &str) -> u32 {
    rig.wait_for_idle("upstreams").await;
    let stats = rig.envoy.stats().await.unwrap();
    stats.count("tidegate_circuit_breaker_state", &[("policy", "upstreams"), ("key", name)]) as u32
}

fn per_case(window: Value) -> Value {
    json!({"key": [{"header": "x-case"}], "window": window, "minimum_calls": 100, "open_duration": "60s"})
}

async fn a_flapping_upstream_trips_at_its_threshold_and_not_one_request_below(workers: u32) {
    let rig = crate::guarded(workers, &per_case(json!({"type": "time", "duration": "10m"}))).await;
    // A hundred at once, good and bad by turns: nothing is judged before the last of them has ended.
    for (name, failures, expected) in [
        ("a49", 49, CLOSED),
        ("a50", 50, OPEN),
        ("b49", 49, CLOSED),
        ("b51", 51, OPEN),
        ("c48", 48, CLOSED),
        ("c50", 50, OPEN),
    ] {
        let flapping = move |index: usize| {
            let turn = index * failures / 100 != (index + 1) * failures / 100;
            case(name, if turn { 500 } else { 200 })
        };
        let tally = volley(rig.main(), 100, flapping).await.tally();
        assert_eq!((tally.admitted(), tally.answered.get(&500)), (100, Some(&failures)), "{tally}");
        assert_eq!(state(&rig, name).await, expected, "{failures} of 100 failed");
        // What decides is one request: of those that may still end the next bad one is the fiftieth, or the next good.
        if failures == 49 {
            volley(rig.main(), 1, move |_| case(name, 500)).await;
            assert_eq!(state(&rig, name).await, CLOSED, "50 of 101 failed");
            volley(rig.main(), 1, move |_| case(name, 500)).await;
            assert_eq!(state(&rig, name).await, OPEN, "51 of 102 failed");
        }
    }
    all_took_part(&rig, workers).await;

    let rig = crate::guarded(workers, &per_case(json!({"type": "count", "calls": 100}))).await;
    for round in 0..3 {
        let name: &'static str = ["x", "y", "z"][round];
        // The ring's oldest are good, so each bad one that follows puts one in a good one's place.
        volley(rig.main(), 51, move |_| case(name, 200)).await;
        rig.wait_for_idle("upstreams").await;
        volley(rig.main(), 49, move |_| case(name, 500)).await;
        assert_eq!(state(&rig, name).await, CLOSED, "49 of the last 100 failed");
        volley(rig.main(), 1, move |_| case(name, 500)).await;
        assert_eq!(state(&rig, name).await, OPEN, "50 of the last 100 failed");
    }
}

async fn results_from_before_the_last_change_of_state_change_nothing(workers: u32) {
    let rig = crate::guarded(workers, &breaker("0.5s", 2, "60s")).await;
    let (late, probing) = (Gate::new(), Gate::new());
    rig.upstream.always(Behaviour::respond(500).hold(&late));
    let first = volley_beside(rig.main(), 20, |_| Call::get("/"));
    rig.upstream.wait_for_concurrent(20, SOON).await.unwrap();
    rig.upstream.always(Behaviour::respond(200).hold(&late));
    let good = volley_beside(rig.main(), 20, |_| Call::get("/"));
    rig.upstream.wait_for_concurrent(40, SOON).await.unwrap();
    trip(&rig).await;
    rig.upstream.always(Behaviour::respond(200).hold(&probing));
    let mut probes = Vec::new();
    until(async || {
        probes.push(volley_beside(rig.main(), 4, |_| Call::get("/")));
        match rig.upstream.concurrent() {
            42 => Ok(()),
            now => Err(format!("{now} at the upstream")),
        }
    })
    .await;
    // Half-open: twenty failures and twenty successes from before arrive. Neither ends the round.
    late.open();
    assert_eq!(first.await.unwrap().tally().answered.get(&500), Some(&20));
    assert_eq!(good.await.unwrap().tally().answered.get(&200), Some(&20));
    rig.wait_for_stat("tidegate_inflight", &[("policy", "upstreams")], 2).await;
    let changes = [transitions(&rig.envoy, "open").await, transitions(&rig.envoy, "closed").await];
    assert_eq!(changes, [1, 0]);
    assert_eq!(rig.upstream.concurrent(), 2);

    // Closed again, and a failure from the first closed state would be one of ten.
    probing.open();
    rig.wait_for_breaker("upstreams", "upstream", CLOSED).await;
    for probe in probes {
        probe.await.unwrap();
    }
    let stale = Gate::new();
    rig.upstream.always(Behaviour::respond(500).hold(&stale));
    let stalled = volley_beside(rig.main(), 20, |_| Call::get("/"));
    rig.upstream.wait_for_concurrent(20, SOON).await.unwrap();
    trip(&rig).await;
    rig.upstream.always(Behaviour::respond(200));
    until(async || {
        volley(rig.main(), 4, |_| Call::get("/")).await;
        match transitions(&rig.envoy, "closed").await {
            2 => Ok(()),
            _ => Err("not closed"),
        }
    })
    .await;
    stale.open();
    assert_eq!(stalled.await.unwrap().tally().answered.get(&500), Some(&20));
    rig.wait_for_idle("upstreams").await;
    assert_eq!(transitions(&rig.envoy, "open").await, 2);
    // The control: twenty failures of this state's own.
    rig.upstream.always(Behaviour::respond(500));
    for _ in 0..40 {
        client::get(rig.main(), "/").await.unwrap();
    }
    assert_eq!(transitions(&rig.envoy, "open").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_is_what_takes_long_to_its_headers() {
    let breaker = json!({
        "minimum_calls": 10, "open_duration": "60s", "slow_call_duration": "2s", "slow_call_rate_threshold": 50
    });
    let rig = crate::guarded(2, &breaker).await;
    let pause = std::time::Duration::from_secs(3);
    rig.upstream.always(Behaviour::respond(200).slow_body(1, 10, pause));
    assert_eq!(volley(rig.main(), 20, |_| Call::get("/")).await.tally().admitted(), 20);
    rig.wait_for_idle("upstreams").await;
    assert_eq!(transitions(&rig.envoy, "open").await, 0, "a slow body is not a slow call");
    rig.upstream.always(Behaviour::respond(200).delay(pause));
    assert_eq!(volley(rig.main(), 20, |_| Call::get("/")).await.tally().admitted(), 20);
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    let rejected = client::get(rig.main(), "/").await.unwrap();
    assert_eq!(rejected.header("x-tidegate-reason"), Some("circuit_open;policy=upstreams;trip=slow_call_rate"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upload_is_the_clients_and_a_slow_answer_to_it_the_upstreams() {
    let breaker = json!({
        "minimum_calls": 10, "open_duration": "60s", "slow_call_duration": "2s", "slow_call_rate_threshold": 50
    });
    let rig = crate::guarded(2, &breaker).await;
    let pause = std::time::Duration::from_secs(3);
    let upload = |steps: Vec<Step>| Call::new("POST", "/").body_steps(steps);
    let (half, rest) = (Step::Data("half".into()), Step::Data("rest".into()));
    let slow = [half.clone(), Step::Pause(pause), rest.clone()];
    // The upstream has the whole of it before it answers, at once.
    let outcomes = volley(rig.main(), 20, move |_| upload(slow.to_vec())).await;
    assert_eq!(outcomes.tally().admitted(), 20);
    assert!(outcomes.all.iter().all(|outcome| outcome.latency >= pause));
    rig.wait_for_idle("upstreams").await;
    assert_eq!(transitions(&rig.envoy, "open").await, 0, "the clients' time is charged to the upstream");
    // The control: as long to the same client, but by the upstream.
    rig.upstream.always(Behaviour::respond(200).delay(pause));
    let at_once = [half, rest];
    assert_eq!(volley(rig.main(), 20, move |_| upload(at_once.to_vec())).await.tally().admitted(), 20);
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    assert_eq!(trips(&rig.envoy, "slow_call_rate").await, 1);
}
