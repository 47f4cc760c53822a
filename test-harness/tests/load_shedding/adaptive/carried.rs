//! What the upstream can carry is never rejected, however it comes, from the first request on. Each load begins at a limit that has
//! seen nothing: a filter of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{Call, Connection, Schedule};
use tidegate_harness::envoy::Listener;
use tokio::time::Instant;

use super::{Measured, SECOND, SLOTS, load, model, rig};
use crate::stalls::{self, Bystander, Stalls};
use crate::support::Rig;
use crate::{listener, shedding, with_1_2_and_4_workers};

with_1_2_and_4_workers!(alone:
    bursts_that_can_be_carried_are_never_rejected,
    closed_loops_that_can_be_carried_are_never_rejected,
);

/// A long run, in requests, and a short one.
const MANY: usize = 10_000;
const SOME: usize = 500;

/// A burst of this size each time, this long after the one before.
async fn bursts_that_can_be_carried_are_never_rejected(workers: u32) {
    let ms = Duration::from_millis;
    let kinds = [("sixty", 60, ms(240), SOME), ("hundred", 100, ms(240), MANY), ("control", 100, ms(240), SOME)];
    let rig = rig(workers, kinds.map(|(name, ..)| fresh(name))).await;
    let bystander = Bystander::beside(&rig).await;
    for (name, size, apart, requests) in kinds {
        let bursts = u32::try_from(requests.div_ceil(size)).unwrap();
        let schedule = (0..bursts).fold(Schedule::default(), |all, _| all.then_burst(size).then(0.0, apart));
        let measured = Measured::new(&bystander, load(&rig, name, schedule), bursts * apart).await;
        let sent = measured.outcomes.all.len();
        let tally = measured.outcomes.tally();
        println!(
            "{workers} workers, {name}: {} of {sent} rejected; machine stood {:?}",
            tally.rejections(),
            measured.stood()
        );
        judge(name, sent, tally.rejections(), measured.unfair(Duration::ZERO..bursts * apart));
        if name != "control" {
            assert_eq!(tally.admitted() + tally.rejections(), sent, "{tally}");
        }
        rig.wait_for_idle("p").await;
    }
}

/// Clients, each of which asks again as soon as it is answered: up to six times as many as the upstream serves at once.
async fn closed_loops_that_can_be_carried_are_never_rejected(workers: u32) {
    let kinds = [("sixteen", 16, SOME), ("twenty-four", 24, SOME), ("sixty-four", 64, MANY), ("control", 64, SOME)];
    let rig = rig(workers, kinds.map(|(name, ..)| fresh(name))).await;
    let bystander = Bystander::beside(&rig).await;
    for (name, clients, requests) in kinds {
        // As long as it takes, and a little longer.
        let lasts = Duration::from_secs_f64(1.05 * requests as f64 / model(SLOTS).capacity());
        let begin = Instant::now();
        let (rejected, probes) = tokio::join!(closed_loop(&rig, name, clients, requests), bystander.probe(lasts));
        let felt = Stalls::longer_than(stalls::LONG, &probes).felt_for(2 * SECOND);
        let felt = felt.unless_beyond(stalls::MOST_FELT, Duration::ZERO..lasts);
        println!("{workers} workers, {name}: {} of {requests} rejected; felt stalls {felt:?}", rejected.len());
        let unfair = rejected.iter().filter(|at| !felt.contain(**at - begin)).count();
        judge(name, requests, rejected.len(), unfair);
        rig.wait_for_idle("p").await;
    }
}

/// A limit that has seen nothing: the default one, or as the control another that learns.
fn fresh(name: &str) -> Listener {
    let limit = if name == "control" { json!({"limit": {"algorithm": "aimd"}}) } else { json!({}) };
    listener(name, &shedding(limit))
}

/// Of so many requests so many were rejected, and so many of them while the machine went on.
fn judge(name: &str, sent: usize, rejected: usize, unfair: usize) {
    if name == "control" {
        assert!(rejected > sent / 10, "{name}: {rejected} of {sent} rejected");
    } else {
        assert_eq!(unfair, 0, "{name}: {rejected} of {sent} rejected");
    }
}

/// So many requests by so many clients: when each was rejected that was.
async fn closed_loop(rig: &Rig, name: &str, clients: usize, requests: usize) -> Vec<Instant> {
    let at = rig.envoy.address(name);
    let next = Arc::new(AtomicUsize::new(0));
    let clients = (0..clients).map(|_| {
        let next = next.clone();
        tokio::spawn(async move {
            let mut connection = Connection::open(at, false).await.unwrap();
            let mut rejected = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < requests {
                match connection.send(Call::get("/")).await.unwrap().status {
                    200 => {}
                    503 => rejected.push(Instant::now()),
                    other => panic!("answered {other}"),
                }
            }
            rejected
        })
    });
    let mut rejected = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        rejected.extend(client.await.unwrap());
    }
    rejected
}
