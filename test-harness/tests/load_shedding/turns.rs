//! Who waits at a quiet worker beside one at which somebody always waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_harness::client::Call;
use tidegate_harness::upstream::Behaviour;

use crate::listener;
use crate::queue::queue;
use crate::support::Rig;
use crate::wake::connections;

with_workers!([2, 4], crate::MACHINE.read().await; a_quiet_worker_has_its_turns_beside_a_busy_one);

/// Connections at the busy worker. The others have one each.
const BUSY: usize = 12;

/// What the connections of a worker were told.
#[derive(Debug, Default)]
struct Told {
    served: AtomicUsize,
    in_vain: AtomicUsize,
}

/// Whoever gave a place back took it again: with so few places those at other workers waited in vain.
async fn a_quiet_worker_has_its_turns_beside_a_busy_one(workers: u32) {
    for limit in [1, 2] {
        let rig = Rig::with(workers, [listener("main", &queue(limit, 100, "1s", "fifo")).balanced()]).await;
        rig.upstream.always(Behaviour::respond(200).delay(Duration::from_millis(5)));
        let mut connections = connections(&rig, BUSY).await;
        connections.iter_mut().skip(1).for_each(|quiet| quiet.truncate(1));
        let told: Vec<_> = connections.iter().map(|_| Arc::new(Told::default())).collect();
        let over = Arc::new(AtomicBool::new(false));
        let (mut busy, mut quiet) = (Vec::new(), Vec::new());
        for (worker, mut connection) in
            (0..).zip(connections).flat_map(|(at, all)| all.into_iter().map(move |it| (at, it)))
        {
            let (told, over) = (told[worker].clone(), over.clone());
            let most = 400 * limit as usize;
            // Each sends its next as soon as the last is answered.
            let sends = tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) && told.served.load(Ordering::Relaxed) < most {
                    let status = connection.send(Call::get("/")).await.unwrap().status;
                    if !over.load(Ordering::Relaxed) {
                        let count = if status == 200 { &told.served } else { &told.in_vain };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            if worker == 0 { busy.push(sends) } else { quiet.push(sends) }
        }
        for sends in busy {
            sends.await.unwrap();
        }
        over.store(true, Ordering::Relaxed);
        for sends in quiet {
            sends.await.unwrap();
        }
        println!("{workers} workers, limit {limit}: {told:?}");
        assert_eq!(rig.upstream.max_concurrent(), limit as usize);
        // As much as one of the busy worker's has.
        let due = told[0].served.load(Ordering::Relaxed) / BUSY;
        for quiet in &told[1..] {
            assert_eq!(quiet.in_vain.load(Ordering::Relaxed), 0, "{told:?}");
            assert!(quiet.served.load(Ordering::Relaxed) * 2 >= due, "{told:?}");
        }
        rig.wait_for_idle("p").await;
    }
}
