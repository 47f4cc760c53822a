//! The limit that is found: an overloaded upstream goes on answering in time, one that is not is left alone.

use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{Ending, Load, Outcomes, Schedule};
use tidegate_harness::upstream::Model;

use crate::support::{Rig, seed};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(alone: the_default_limit_keeps_an_overloaded_upstream_answering_in_time);

const CARRIED: Duration = Duration::from_secs(2);
const OVERLOAD: Duration = Duration::from_secs(6);
/// From a second after the overload began to its end.
const JUDGED: Duration = Duration::from_secs(5);
const IN_TIME: Duration = Duration::from_millis(250);

/// Requests of the overload answered well within 250 ms, as a share of what the upstream can carry.
fn goodput(outcomes: &Outcomes, capacity: f64) -> f64 {
    let judged = CARRIED + OVERLOAD - JUDGED..CARRIED + OVERLOAD;
    let good = outcomes.all.iter().filter(|outcome| {
        judged.contains(&outcome.intended) && outcome.latency <= IN_TIME && outcome.ending == Ending::Answered(200)
    });
    good.count() as f64 / (capacity * JUDGED.as_secs_f64())
}

async fn the_default_limit_keeps_an_overloaded_upstream_answering_in_time(workers: u32) {
    let rig = Rig::new(workers, &json!({"policies": [{"name": "found", "load_shedding": {}}]})).await;
    let model = Model { serves_the_gone: true, ..Model::new(10, Duration::from_millis(20)) };
    let seed = seed();
    let load = |address| {
        let schedule = Schedule::constant(250.0, CARRIED).then(1200.0, OVERLOAD);
        Load::new(address, schedule).seed(seed).timeout(Duration::from_secs(1))
    };

    rig.upstream.model(Some(model));
    let outcomes = load(rig.main()).run().await;
    let early = outcomes.all.iter().filter(|outcome| outcome.intended < CARRIED);
    let rejected = early.filter(|outcome| matches!(outcome.ending, Ending::Rejected { .. })).count();
    let share = goodput(&outcomes, model.capacity());
    println!("{workers} workers: goodput {:.1} % of capacity; {}", 100.0 * share, outcomes.tally());
    assert_eq!(rejected, 0, "rejected of what can be carried");
    assert!(share >= 0.85, "{share}");
    rig.wait_for_idle("found").await;

    // The control: without Tidegate all wait for all.
    rig.upstream.model(Some(model));
    let share = goodput(&load(rig.control()).run().await, model.capacity());
    println!("{workers} workers, without a limit: goodput {:.1} % of capacity", 100.0 * share);
    assert!(share < 0.3, "{share}");
}
