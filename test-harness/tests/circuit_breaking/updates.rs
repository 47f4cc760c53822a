//! Updates of the configuration: what did not change is kept, what did begins anew, and the gauge tells the truth.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Cluster, Listener, Tidegate};
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, volley};
use crate::{CLOSED, OPEN, config, transitions, trip, wait_for_transitions, with_1_2_4_and_8_workers};

with_1_2_4_and_8_workers!(
    settings_that_change_and_change_back_begin_anew,
    the_gauge_shows_the_successors_while_what_was_before_drains_and_after_it,
);

/// The breaker under test, and a policy beside it.
fn listener(breaker: &Value, other: &str) -> [Listener; 1] {
    let mut config = config(breaker);
    config["policies"].as_array_mut().unwrap().push(json!({"name": "other", "match": {"path": other}}));
    [Listener::new("main").filter(Tidegate::new(&config).unwrap())]
}

fn at(minimum_calls: u32) -> Value {
    json!({"minimum_calls": minimum_calls, "open_duration": "60s"})
}

async fn updatable(workers: u32, breaker: &Value) -> Rig {
    updatable_draining(workers, breaker, Duration::from_secs(1)).await
}

async fn updatable_draining(workers: u32, breaker: &Value, drain: Duration) -> Rig {
    let [main] = listener(breaker, "/one");
    Rig::built(workers, |builder, upstream| {
        builder
            .dynamic_listeners()
            .drain_time(drain)
            .cluster(Cluster::new("upstream", upstream.address()))
            .listener(main)
    })
    .await
}

async fn update(rig: &mut Rig, breaker: &Value, other: &str) {
    rig.envoy.update_listeners(&listener(breaker, other)).await.unwrap();
}

/// Envoy replaces the filter chains of a listener of which nothing else has changed.
const DRAINING: [&str; 2] =
    ["envoy_listener_manager_total_listeners_draining", "envoy_listener_manager_total_filter_chains_draining"];

/// How many of what was before the updates are still there.
async fn draining(rig: &Rig) -> f64 {
    let stats = rig.envoy.stats().await.unwrap();
    DRAINING.iter().filter_map(|name| stats.stat(name, &[])).sum()
}

/// Waits until what was before the last update is gone, on every worker.
async fn wait_for_drain(rig: &Rig) {
    for draining in DRAINING {
        rig.wait_for_stat(draining, &[], 0).await;
    }
    // Workers hear of it before the requests that come now.
    volley(rig.main(), 64, |_| Call::get("/")).await;
    rig.wait_for_idle("upstreams").await;
}

async fn state(rig: &Rig) -> Option<f64> {
    rig.envoy.stats().await.unwrap().stat("tidegate_circuit_breaker_state", &[("policy", "upstreams")])
}

async fn settings_that_change_and_change_back_begin_anew(workers: u32) {
    let mut rig = updatable(workers, &at(10)).await;
    trip(&rig).await;
    update(&mut rig, &at(11), "/one").await;
    rig.wait_for_breaker("upstreams", "upstream", CLOSED).await;
    assert_eq!(volley(rig.main(), 40, |_| Call::get("/")).await.tally().admitted(), 40);
    wait_for_drain(&rig).await;

    update(&mut rig, &at(10), "/one").await;
    let tally = volley(rig.main(), 8, |_| Call::get("/")).await.tally();
    assert_eq!(tally.admitted(), 8, "{tally}");
    rig.wait_for_idle("upstreams").await;
    rig.upstream.fail(Behaviour::respond(503));
    volley(rig.main(), 7, |_| Call::get("/")).await;
    rig.wait_for_idle("upstreams").await;
    assert_eq!((transitions(&rig.envoy, "open").await, state(&rig).await), (1, Some(0.0)), "7 of 15 failed");
    volley(rig.main(), 1, |_| Call::get("/")).await;
    wait_for_transitions(&rig, "open", 2).await;
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    rig.upstream.recover();

    // The control: another policy changes, and the one before is gone.
    update(&mut rig, &at(10), "/two").await;
    wait_for_drain(&rig).await;
    let tally = volley(rig.main(), 40, |_| Call::get("/")).await.tally();
    assert_eq!(tally.rejected_by("upstreams", "circuit_open"), 40, "{tally}");
    assert_eq!((transitions(&rig.envoy, "open").await, state(&rig).await), (2, Some(1.0)));
}

async fn the_gauge_shows_the_successors_while_what_was_before_drains_and_after_it(workers: u32) {
    // So long that all that is looked at before its end is not its end's doing.
    let mut rig = updatable_draining(workers, &at(10), Duration::from_secs(8)).await;
    trip(&rig).await;
    update(&mut rig, &at(11), "/one").await;
    rig.wait_for_breaker("upstreams", "upstream", CLOSED).await;
    assert_eq!(draining(&rig).await, 1.0, "the open one has not gone yet");
    rig.upstream.always(Behaviour::respond(503));
    for _ in 0..11 {
        assert_eq!(client::get(rig.main(), "/").await.unwrap().status, 503);
    }
    wait_for_transitions(&rig, "open", 2).await;
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    wait_for_drain(&rig).await;
    assert_eq!(state(&rig).await, Some(1.0), "the one before is gone, and its successor open");
    // The control: what sees no requests shows none open.
    update(&mut rig, &at(100), "/one").await;
    rig.wait_for_breaker("upstreams", "upstream", CLOSED).await;
    assert_eq!(draining(&rig).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_held_open_is_shown_so_until_an_update_lets_it_go() {
    let forced = json!({"state": "forced_open"});
    let mut rig = updatable(4, &forced).await;
    assert_eq!(client::get(rig.main(), "/").await.unwrap().status, 503);
    for (breaker, shown) in [(forced.clone(), OPEN), (at(10), CLOSED), (forced, OPEN)] {
        update(&mut rig, &breaker, "/one").await;
        rig.wait_for_breaker("upstreams", "upstream", shown).await;
        wait_for_drain(&rig).await;
        rig.wait_for_breaker("upstreams", "upstream", shown).await;
    }
    assert_eq!(transitions(&rig.envoy, "open").await, 0, "nothing has tripped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_changes_leave_no_more_behind_than_the_first_few() {
    let mut rig = updatable(2, &at(10)).await;
    let mut left = Vec::new();
    for change in 1..=12 {
        update(&mut rig, &at(10 + change), "/one").await;
        wait_for_drain(&rig).await;
        let stats = rig.envoy.stats().await.unwrap();
        let own = |cell: &str| cell.contains("/circuit_breaker/");
        let cells = stats.samples("tidegate_internal", &[]);
        left.push(cells.filter(|sample| sample.labels.iter().any(|(_, cell)| own(cell))).count());
    }
    println!("numbers after each change: {left:?}");
    // Four numbers a breaker, in the rows of the one that serves and the one that drains.
    assert!(left[0] >= 4 && left[11] <= 8 && left[11] == left[3], "{left:?}");
    let stats = rig.envoy.stats().await.unwrap();
    assert_eq!(stats.count("tidegate_errors_total", &[]), 0.0);
}
