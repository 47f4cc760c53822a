//! The success-rate throttle: an upstream that fails is sent less and less, one that recovers everything.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_harness::client::{Ending, Load, Outcomes, Schedule};
use tidegate_harness::ledger::Ledgers;
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, seed, volley};
use crate::{fixed, listener, shedding, with_1_2_and_4_workers};

with_1_2_and_4_workers!(an_upstream_that_fails_is_sent_a_fifth_and_one_that_recovers_everything);

const RATE: f64 = 250.0;
const REJECTION: &str = "tidegate_throttle_rejection_percent";

fn throttled(throttle: Value) -> Value {
    shedding(json!({"limit": fixed(1000), "throttle": throttle}))
}

/// Which share was rejected of those that were sent in the last seconds of a load.
fn rejected(outcomes: &Outcomes, whole: Duration, last: Duration) -> f64 {
    let late: Vec<_> = outcomes.all.iter().filter(|outcome| outcome.intended >= whole - last).collect();
    let rejected = late.iter().filter(|outcome| matches!(outcome.ending, Ending::Rejected { .. })).count();
    rejected as f64 / late.len() as f64
}

async fn an_upstream_that_fails_is_sent_a_fifth_and_one_that_recovers_everything(workers: u32) {
    let config = throttled(json!({"window": "3s"}));
    let without = shedding(json!({"limit": fixed(1000)}));
    let rig = Rig::with(workers, [listener("main", &config), listener("control", &without)]).await;
    let labels = [("policy", "p")];
    let seed = seed();
    let (failing, healthy, last) = (Duration::from_secs(5), Duration::from_secs(8), Duration::from_secs(2));
    let before = rig.envoy.stats().await.unwrap();

    rig.upstream.fail(Behaviour::respond(500));
    let load = |address, time| Load::new(address, Schedule::constant(RATE, time).poisson()).seed(seed);
    let bad = load(rig.main(), failing).name("bad").run().await;
    rig.wait_for_stat(REJECTION, &labels, 80).await;
    let (share, sent) = (rejected(&bad, failing, last), rig.upstream.total());
    println!("{workers} workers: while all fail {:.1} % rejected, {sent} of {} sent", 100.0 * share, bad.all.len());
    assert!((0.7..0.88).contains(&share), "{share}");
    for outcome in &bad.all {
        if let Ending::Rejected { status, reason } = &outcome.ending {
            assert_eq!((*status, reason.decision.as_str()), (503, "overloaded"));
            assert_eq!(outcome.header("x-tidegate-reason"), Some("overloaded;policy=p;cause=throttle"));
        }
    }

    rig.upstream.recover();
    let good = load(rig.main(), healthy).name("good").run().await;
    let share = rejected(&good, healthy, last);
    println!("{workers} workers: {:.1} % rejected at the end of {healthy:?} of health", 100.0 * share);
    assert_eq!(share, 0.0);
    rig.wait_for_stat(REJECTION, &labels, 0).await;
    rig.wait_for_idle("p").await;
    let grown = rig.envoy.stats().await.unwrap().since(&before);
    let ledgers = Ledgers::of_clients([&bad, &good]).and_upstream(&rig.upstream);
    ledgers.check_upstream().unwrap();
    ledgers.check_stats("p", &grown).unwrap();

    // The control: without a throttle all of it is sent.
    rig.upstream.fail(Behaviour::respond(500));
    assert_eq!(rejected(&load(rig.control(), failing).run().await, failing, last), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_calls_say_nothing_and_in_shadow_all_are_sent() {
    let _machine = crate::MACHINE.read().await;
    let shadow = json!({"policies": [{
        "name": "p", "mode": "shadow", "load_shedding": {"limit": fixed(1000), "throttle": {}}
    }]});
    let guarded = throttled(json!({"minimum_calls": 100}));
    let rig = Rig::with(2, [listener("main", &guarded), listener("control", &shadow)]).await;
    rig.upstream.fail(Behaviour::respond(500));
    let mut answered = 0;
    for _ in 0..9 {
        answered += volley(rig.main(), 11, |_| tidegate_harness::client::Call::get("/")).await.tally().admitted();
    }
    assert_eq!(answered, 99, "one less than says something");
    let at_once = Load::new(rig.main(), Schedule::constant(RATE, Duration::from_secs(2))).run().await;
    assert!(at_once.tally().rejections() > 200, "{}", at_once.tally());

    // In shadow it decides and lets everybody pass.
    let load = Load::new(rig.control(), Schedule::constant(RATE, Duration::from_secs(2))).run().await;
    assert_eq!(load.tally().rejections(), 0, "{}", load.tally());
    assert!(rig.decisions("p", "shadow_overloaded").await > 200);
}
