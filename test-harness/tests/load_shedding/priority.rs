//! Who goes first, who goes last, and who gives way.

use serde_json::{Value, json};
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Listener, Tidegate};
use tidegate_harness::upstream::Behaviour;

use crate::queue::{line, numbered, order};
use crate::support::{Rig, volley_beside};
use crate::{fixed, listener, shedding, with_1_2_and_4_workers};

with_1_2_and_4_workers!(
    each_level_has_its_share_and_the_most_important_the_last_place,
    those_who_wait_go_by_their_level_wherever_they_wait,
);

const LEVELS: [&str; 3] = ["critical", "normal", "batch"];

/// Three levels, by a header; of the limit the less important have these shares.
fn levels(shares: [u32; 3]) -> Value {
    let level = |(name, share)| json!({"name": name, "share": share, "match": {"headers": [{"name": "x-level", "exact": name}]}});
    let levels: Vec<_> = LEVELS.into_iter().zip(shares).map(level).collect();
    json!({"levels": levels, "default": "normal"})
}

async fn each_level_has_its_share_and_the_most_important_the_last_place(workers: u32) {
    let main = shedding(json!({"limit": fixed(10), "priority": levels([100, 80, 50])}));
    let control = shedding(json!({"limit": fixed(10)}));
    for (name, config, expected) in [("main", main, [5, 8, 10]), ("control", control, [10, 10, 10])] {
        let rig = Rig::with(workers, [listener(name, &config)]).await;
        let gate = Gate::new();
        rig.upstream.always(Behaviour::respond(200).hold(&gate));
        let (mut sent, mut rejected, mut before) = (Vec::new(), 0, 0);
        // The least important come first, and more of each than there are places.
        for (level, inflight) in LEVELS.into_iter().rev().zip(expected) {
            sent.push(volley_beside(rig.envoy.address(name), 20, move |_| Call::get("/").header("x-level", level)));
            rejected += 20 - (inflight - before);
            before = inflight;
            rig.wait_for_decisions("p", "overloaded", rejected).await;
            rig.wait_for_stat("tidegate_inflight", &[("policy", "p")], inflight).await;
        }
        gate.open();
        let mut admitted = Vec::new();
        for volley in sent {
            admitted.push(volley.await.unwrap().tally().admitted());
        }
        assert_eq!(admitted, if name == "main" { [5, 3, 2] } else { [10, 0, 0] }, "{name}");
        rig.wait_for_idle("p").await;
    }
}

async fn those_who_wait_go_by_their_level_wherever_they_wait(workers: u32) {
    let queue = json!({"max_length": 50, "max_wait": "30s", "order": "fifo"});
    let main = shedding(json!({"limit": fixed(1), "priority": levels([100; 3]), "queue": queue}));
    let control = shedding(json!({"limit": fixed(1), "queue": queue}));
    for (prioritised, config) in [(true, main), (false, control)] {
        let rig = Rig::with(workers, [listener("main", &config)]).await;
        let gate = Gate::new();
        rig.upstream.always(Behaviour::respond(200).hold(&gate));
        // The least important have waited for the longest.
        let level = |number: usize| LEVELS[2 - (number.max(1) - 1) / 8];
        let calls = (0..=24).map(|number| numbered(number).header("x-level", level(number)));
        let sent = line(&rig, calls).await;
        gate.open();
        for answer in sent {
            assert_eq!(answer.await.unwrap().unwrap().status, 200);
        }
        let went: Vec<_> = order(&rig.upstream).into_iter().skip(1).map(level).collect();
        let by_level = LEVELS.map(|level| [level; 8]).concat();
        assert_eq!(went == by_level, prioritised, "{went:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_is_removed_before_makes_nobody_important() {
    let _machine = crate::MACHINE.read().await;
    let remove = json!({
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [{"remove": "x-level"}]}
        }
    });
    let config = shedding(json!({"limit": fixed(10), "priority": levels([100, 80, 50])}));
    let safe = Listener::new("main").filter(remove).filter(Tidegate::new(&config).unwrap().name("main"));
    // The control: whoever says that it is critical is.
    let rig = Rig::with(2, [safe, listener("control", &config)]).await;
    for (at, admitted) in [(rig.main(), 8), (rig.control(), 10)] {
        let gate = Gate::new();
        rig.upstream.always(Behaviour::respond(200).hold(&gate));
        let forged = volley_beside(at, 20, |_| Call::get("/").header("x-level", "critical"));
        rig.wait_for_stat("tidegate_inflight", &[("policy", "p")], admitted).await;
        gate.open();
        assert_eq!(forged.await.unwrap().tally().admitted(), admitted as usize);
        rig.wait_for_idle("p").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_full_queue_the_least_important_gives_way() {
    let _machine = crate::MACHINE.read().await;
    let queue = json!({"max_length": 2, "max_wait": "30s", "order": "fifo"});
    let main = shedding(json!({"limit": fixed(1), "priority": levels([100; 3]), "queue": queue}));
    let control = shedding(json!({"limit": fixed(1), "queue": queue}));
    for (prioritised, config) in [(true, main), (false, control)] {
        // A worker can turn away its own requests alone.
        let rig = Rig::with(1, [listener("main", &config)]).await;
        let gate = Gate::new();
        rig.upstream.always(Behaviour::respond(200).hold(&gate));
        let at = rig.main();
        let level =
            |number: usize| numbered(number).header("x-level", ["normal", "batch", "normal", "critical"][number]);
        let mut sent = line(&rig, (0..3).map(level)).await;
        let critical = tokio::spawn(client::send(at, level(3)));
        let reason = |response: &client::Response| response.header("x-tidegate-reason").map(str::to_owned);
        if prioritised {
            let displaced = sent.remove(1).await.unwrap().unwrap();
            assert_eq!(displaced.status, 503);
            assert_eq!(reason(&displaced).as_deref(), Some("overloaded;policy=p;cause=displaced"));
            // Nobody there is less important than this one.
            let batch = client::send(at, numbered(4).header("x-level", "batch")).await.unwrap();
            assert_eq!((batch.status, reason(&batch).as_deref()), (503, Some("overloaded;policy=p")));
            gate.open();
            assert_eq!(critical.await.unwrap().unwrap().status, 200);
            for answer in sent {
                assert_eq!(answer.await.unwrap().unwrap().status, 200);
            }
            assert_eq!(order(&rig.upstream), [0, 3, 2]);
        } else {
            let refused = critical.await.unwrap().unwrap();
            assert_eq!((refused.status, reason(&refused).as_deref()), (503, Some("overloaded;policy=p")));
            gate.open();
            for answer in sent {
                assert_eq!(answer.await.unwrap().unwrap().status, 200);
            }
            assert_eq!(order(&rig.upstream), [0, 1, 2]);
        }
        rig.wait_for_idle("p").await;
        rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 0).await;
    }
}
