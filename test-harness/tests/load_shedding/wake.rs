//! How soon a place that is given back is taken by a request that waits: at the same worker, and at another.

use std::time::Duration;

use tidegate_harness::Gate;
use tidegate_harness::client::{Call, Connection};
use tidegate_harness::upstream::Behaviour;

use crate::queue::queue;
use crate::support::{Rig, until};
use crate::{listener, with_1_2_and_4_workers};

with_1_2_and_4_workers!(alone: a_place_is_taken_at_once_where_it_was_given_back_and_within_milliseconds_elsewhere);

const ROUNDS: usize = 16;

/// So many connections at each worker.
pub async fn connections(rig: &Rig, each: usize) -> Vec<Vec<Connection>> {
    let workers = rig.envoy.workers() as usize;
    let mut connections: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
    let mut before = vec![0; workers];
    for _ in 0..each * workers {
        let connection = Connection::open(rig.main(), false).await.unwrap();
        let mut now = Vec::new();
        until(async || {
            now = rig.envoy.connections("main").await.map_err(|error| format!("{error:#}"))?;
            if now == before { Err("no worker has the connection yet".to_owned()) } else { Ok(()) }
        })
        .await;
        let worker = (0..workers).find(|worker| now[*worker] > before[*worker]).unwrap();
        connections[worker].push(connection);
        before = now;
    }
    assert!(connections.iter().all(|at_one| at_one.len() == each), "{connections:?}");
    connections
}

async fn a_place_is_taken_at_once_where_it_was_given_back_and_within_milliseconds_elsewhere(workers: u32) {
    let rig = Rig::with(workers, [listener("main", &queue(1, 10, "20s", "fifo")).balanced()]).await;
    let mut connections = connections(&rig, 2).await;
    let workers = workers as usize;
    // With one worker there is no other.
    for (whose, next, most) in [("the same worker", 0, 5), ("another worker", 1, 10)].into_iter().take(workers) {
        let before = rig.upstream.total();
        for round in 0..ROUNDS {
            let gate = Gate::new();
            rig.upstream.always(Behaviour::respond(200).hold(&gate));
            let [one, other] = [round, round + next].map(|worker| worker % workers);
            let mut answers = Vec::new();
            for (worker, stat) in [(one, "tidegate_inflight"), (other, "tidegate_queue_length")] {
                let mut connection = connections[worker].remove(0);
                answers.push(tokio::spawn(async move {
                    let response = connection.send(Call::get("/")).await.unwrap();
                    (worker, connection, response.status)
                }));
                rig.wait_for_stat(stat, &[("policy", "p")], 1).await;
            }
            gate.open();
            for answer in answers {
                let (worker, connection, status) = answer.await.unwrap();
                assert_eq!(status, 200);
                connections[worker].push(connection);
            }
            rig.wait_for_idle("p").await;
            rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 0).await;
        }
        // From the end of one to the arrival of the next, at the upstream.
        let seen = rig.upstream.seen();
        let rounds = seen[before..].chunks(2);
        let mut gaps: Vec<_> = rounds.map(|two| two[1].at.saturating_sub(two[0].end.unwrap().1)).collect();
        gaps.sort_unstable();
        let median = gaps[ROUNDS / 2];
        println!("{workers} workers, to {whose}: {median:?} at the median, {:?} at most", gaps.last());
        assert!(median <= Duration::from_millis(most), "{gaps:?}");
        assert_eq!(rig.upstream.max_concurrent(), 1);
    }
}
