//! What a circuit breaker can be told: when it trips, for how long it is open, and whom it lets try.

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call, Response};
use tidegate_harness::upstream::Behaviour;
use tidegate_harness::{Gate, wait_until};
use tokio::task::JoinHandle;

use crate::support::{Rig, SOON, volley};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(
    breakers_trip_when_their_settings_say,
    a_probe_that_comes_to_nothing_is_another_requests_probe,
    probes_that_are_never_answered_count_as_failures,
    an_upstream_may_ask_for_a_longer_pause,
);

const CLOSED: u32 = 0;
const OPEN: u32 = 1;

/// A policy for one path, with a count of what is in flight, so that a test knows when all has been judged.
fn policy(name: &str, breaker: Value) -> Value {
    let places = json!({"limit": {"algorithm": "fixed", "limit": 1000}});
    json!({"name": name, "match": {"path": format!("/{name}")}, "circuit_breaker": breaker, "load_shedding": places})
}

fn rejected(response: &Response) -> bool {
    response.reason().is_some_and(|reason| reason.decision == "circuit_open")
}

async fn breakers_trip_when_their_settings_say(workers: u32) {
    let slow = |duration: &str| json!({"slow_call_duration": duration, "minimum_calls": 4});
    let config = json!({"policies": [
        policy("consecutive", json!({"consecutive_failures": 3, "failure_rate_threshold": 0})),
        policy("interrupted", json!({"consecutive_failures": 3, "failure_rate_threshold": 0})),
        policy("slow", slow("20ms")),
        policy("not-slow", slow("50s")),
        policy("count", json!({"window": {"type": "count", "calls": 4}, "minimum_calls": 4, "failure_rate_threshold": 75})),
        policy("too-good", json!({"window": {"type": "count", "calls": 4}, "minimum_calls": 4, "failure_rate_threshold": 75})),
        policy("listed", json!({"minimum_calls": 4, "failure_when": {"status": [404, "420-429"]}})),
        policy("unlisted", json!({"minimum_calls": 4, "failure_when": {"status": [404, "420-429"]}})),
        policy("ignored", json!({"minimum_calls": 4, "ignore_when": {"status": ["5xx"]}})),
        policy("disabled", json!({"minimum_calls": 4, "state": "disabled"})),
    ]});
    let rig = Rig::new(workers, &config).await;
    let answers: [(&str, &[u16], bool); 10] = [
        ("consecutive", &[200, 500, 500, 500], true),
        ("interrupted", &[500, 500, 200, 500, 500, 200], false),
        ("slow", &[200, 200, 200, 200], true),
        ("not-slow", &[200, 200, 200, 200], false),
        ("count", &[200, 200, 200, 500, 500, 500], true),
        ("too-good", &[200, 500, 200, 500, 200, 500], false),
        ("listed", &[404, 425, 200, 200], true),
        ("unlisted", &[500, 503, 500, 503], false),
        ("ignored", &[500, 503, 500, 503], false),
        ("disabled", &[500, 503, 500, 503], false),
    ];
    for (name, statuses, trips) in answers {
        let path = format!("/{name}");
        for status in statuses {
            let call = Call::get(path.as_str()).header("x-upstream-status", status.to_string());
            let call = if name.ends_with("slow") { call.header("x-upstream-delay-ms", "30") } else { call };
            assert_eq!(client::send(rig.main(), call).await.unwrap().status, *status, "{name}");
            // One is judged before the next is asked, on whichever worker.
            rig.wait_for_idle(name).await;
        }
        if trips {
            rig.wait_for_breaker(name, "upstream", OPEN).await;
        }
        assert_eq!(rejected(&client::get(rig.main(), &path).await.unwrap()), trips, "{name}");
    }
}

/// Trips the breaker of `/tried`, which lets one request try after three seconds, each time.
async fn tripped(workers: u32, timeout: &str) -> Rig {
    let breaker = json!({
        "minimum_calls": 4, "open_duration": "3s", "open_duration_max": "3s", "half_open": {"probes": 1, "timeout": timeout}
    });
    let config = json!({"policies": [
        policy("tried", breaker),
        {"name": "rates", "match": {"headers": [{"name": "x-limited", "present": true}]},
            "rate_limits": [{"name": "none", "rate": "1/h"}]},
    ]});
    let rig = Rig::new(workers, &config).await;
    client::send(rig.main(), Call::get("/").header("x-limited", "1")).await.unwrap();
    for _ in 0..4 {
        client::send(rig.main(), Call::get("/tried").header("x-upstream-status", "500")).await.unwrap();
    }
    rig.wait_for_breaker("tried", "upstream", OPEN).await;
    rig
}

/// Asks until a request gets as far as the upstream, which holds it.
async fn held_probe(rig: &Rig) -> Vec<JoinHandle<anyhow::Result<Response>>> {
    let mut asked = Vec::new();
    wait_until(SOON, async || {
        asked.push(tokio::spawn(client::send(rig.main(), Call::get("/tried"))));
        if rig.upstream.concurrent() == 1 { Ok(()) } else { Err("nobody is let through") }
    })
    .await
    .unwrap();
    asked
}

async fn a_probe_that_comes_to_nothing_is_another_requests_probe(workers: u32) {
    let rig = tripped(workers, "60s").await;
    // Requests that the breaker would let try, but another policy rejects, do not use the only try up.
    let limited = Call::get("/tried").header("x-limited", "1");
    wait_until(SOON, async || {
        let reason = client::send(rig.main(), limited.clone()).await.unwrap().reason().unwrap();
        if reason.decision == "rate_limited" { Ok(()) } else { Err(reason.to_string()) }
    })
    .await
    .unwrap();
    let tally = volley(rig.main(), 50, move |_| limited.clone()).await.tally();
    assert!(tally.rejected_by("rates", "rate_limited") >= 1, "{tally}");
    assert_eq!(tally.rejections(), 50, "{tally}");

    // Nor does one whose client leaves before it is answered.
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let asked = held_probe(&rig).await;
    // The control: while it is there nobody else is let through.
    assert!(rejected(&client::get(rig.main(), "/tried").await.unwrap()));
    asked.iter().for_each(JoinHandle::abort);
    rig.upstream.wait_for_concurrent(0, SOON).await.unwrap();
    rig.wait_for_idle("tried").await;
    gate.open();
    assert_eq!(client::get(rig.main(), "/tried").await.unwrap().status, 200);
    rig.wait_for_breaker("tried", "upstream", CLOSED).await;
}

async fn probes_that_are_never_answered_count_as_failures(workers: u32) {
    let rig = tripped(workers, "1s").await;
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let asked = held_probe(&rig).await;
    // Nobody asks meanwhile: time alone reopens it.
    let labels = [("policy", "tried"), ("to", "open")];
    rig.wait_for_stat("tidegate_circuit_breaker_transitions_total", &labels, 2).await;
    // What it was answered in the end, too late, changes nothing.
    gate.open();
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    rig.wait_for_idle("tried").await;
    assert!(rejected(&client::get(rig.main(), "/tried").await.unwrap()));
    // The control: a probe that is answered in time closes it.
    wait_until(SOON, async || {
        let status = client::get(rig.main(), "/tried").await.unwrap().status;
        rig.wait_for_idle("tried").await;
        let labels = [("policy", "tried"), ("to", "closed")];
        match rig.envoy.stats().await.unwrap().count("tidegate_circuit_breaker_transitions_total", &labels) {
            1.0 => Ok(()),
            _ => Err(format!("not closed, answered {status}")),
        }
    })
    .await
    .unwrap();
    rig.wait_for_breaker("tried", "upstream", CLOSED).await;
}

async fn an_upstream_may_ask_for_a_longer_pause(workers: u32) {
    let breaker = |honor: bool| json!({"minimum_calls": 4, "open_duration": "5s", "open_duration_max": "40s", "honor_retry_after": honor});
    let forced = json!({"state": "forced_open"});
    let config = json!({"policies": [
        policy("polite", breaker(true)),
        policy("deaf", breaker(false)),
        policy("forced", forced),
    ]});
    let rig = Rig::new(workers, &config).await;
    rig.upstream.always(Behaviour::respond(503).header("retry-after", "100"));
    for (name, least, most) in [("polite", 20, 40), ("deaf", 1, 6)] {
        let path = format!("/{name}");
        for _ in 0..4 {
            client::get(rig.main(), &path).await.unwrap();
        }
        rig.wait_for_breaker(name, "upstream", OPEN).await;
        let response = client::get(rig.main(), &path).await.unwrap();
        let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
        assert!(rejected(&response) && (least..=most).contains(&wait), "{name}: {response:?}");
    }
    let seen = rig.upstream.total();
    let forced = client::get(rig.main(), "/forced").await.unwrap();
    assert!(rejected(&forced) && forced.header("retry-after").is_none(), "{forced:?}");
    assert_eq!(rig.upstream.total(), seen);
}
