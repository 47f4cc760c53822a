//! The limit that is found: an overloaded upstream goes on answering in time, one that is not is left alone.
//!
//! The upstream has 10 slots of 20 ms and serves those too whose clients have gone. Load is open-loop, latency counts from the
//! intended moment, and clients wait a second.

mod carried;
mod streams;

use std::ops::Range;
use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{Call, Ending, Load, Outcome, Outcomes, Schedule};
use tidegate_harness::envoy::{HttpFilter, Listener};
use tidegate_harness::upstream::Model;
use tokio::time::Instant;

use crate::stalls::{self, Bystander, Stalls};
use crate::support::{Rig, seed};
use crate::{listener, shedding, with_1_2_and_4_workers};

with_1_2_and_4_workers!(alone:
    the_default_limit_keeps_an_overloaded_upstream_answering_in_time,
    critical_requests_are_served_through_an_overload,
    a_start_into_an_overload_comes_right_within_five_seconds,
    a_capacity_that_is_halved_and_restored_is_found_within_two_seconds,
);

const SLOTS: usize = 10;
const SERVICE: Duration = Duration::from_millis(20);
const IN_TIME: Duration = Duration::from_millis(250);
const CALM: f64 = 250.0;
const OFFERED: f64 = 1200.0;
const SECOND: Duration = Duration::from_secs(1);

fn model(slots: usize) -> Model {
    Model { serves_the_gone: true, ..Model::new(slots, SERVICE) }
}

async fn rig(workers: u32, listeners: impl IntoIterator<Item = Listener>) -> Rig {
    let rig = Rig::with(workers, listeners).await;
    rig.upstream.script(stalls::script);
    rig.upstream.model(Some(model(SLOTS)));
    rig
}

fn load(rig: &Rig, listener: &str, schedule: Schedule) -> Load {
    Load::new(rig.envoy.address(listener), schedule).seed(seed()).timeout(SECOND)
}

fn is_good(outcome: &Outcome) -> bool {
    outcome.ending == Ending::Answered(200) && outcome.latency <= IN_TIME
}

fn rejected(outcome: &&Outcome) -> bool {
    matches!(outcome.ending, Ending::Rejected { .. })
}

/// What was measured of a load, and when the machine stood still, for a moment or for longer.
struct Measured {
    outcomes: Outcomes,
    stalls: Stalls,
    long_stalls: Stalls,
}

impl Measured {
    async fn new(bystander: &Bystander, load: Load, lasts: Duration) -> Self {
        let (outcomes, probes) = tokio::join!(load.run(), bystander.probe(lasts));
        let [stalls, long_stalls] = [stalls::AT_ONCE, stalls::LONG].map(|time| Stalls::longer_than(time, &probes));
        Self { outcomes, stalls, long_stalls }
    }

    fn meant_for(&self, time: Range<Duration>) -> impl Iterator<Item = &Outcome> {
        self.outcomes.all.iter().filter(move |outcome| time.contains(&outcome.intended))
    }

    /// Answered in time, as a share of so many a second.
    fn goodput(&self, time: Range<Duration>, rate: f64) -> f64 {
        let good = self.meant_for(time.clone()).filter(|outcome| is_good(outcome)).count();
        good as f64 / (rate * (time.end - time.start).as_secs_f64())
    }

    /// Answered in time of those `chosen`, as a share of them.
    fn share(&self, time: Range<Duration>, chosen: impl Fn(&Outcome) -> bool) -> f64 {
        let chosen: Vec<_> = self.meant_for(time).filter(|outcome| chosen(outcome)).collect();
        chosen.iter().filter(|outcome| is_good(outcome)).count() as f64 / chosen.len() as f64
    }

    /// How much of a time the machine went on, as a share, and half a second after it had stood still, in which those who came
    /// meanwhile are in the way: more cannot be asked of anybody. It is not asked for less than most of it.
    fn possible(&self, time: Range<Duration>) -> f64 {
        1.0 - self.long_stalls.felt_for(SECOND / 2).share(time).min(stalls::MOST)
    }

    /// The 99th percentile, in milliseconds, of the latencies of those `chosen`, less what the machine stood still.
    fn p99(&self, time: Range<Duration>, chosen: impl Fn(&Outcome) -> bool) -> f64 {
        let stalls = self.stalls.clone().unless_beyond(stalls::MOST_FELT, time.clone());
        let mut all: Vec<_> = self.meant_for(time).filter(|o| chosen(o)).map(|o| stalls.latency(o)).collect();
        all.sort_unstable();
        all.get(all.len() * 99 / 100).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }

    /// How many were turned away though the machine had gone on for two seconds before.
    fn unfair(&self, time: Range<Duration>) -> usize {
        let felt = self.long_stalls.felt_for(2 * SECOND).unless_beyond(stalls::MOST_FELT, time.clone());
        self.meant_for(time).filter(rejected).filter(|outcome| !felt.contain(outcome.intended)).count()
    }

    /// How long the machine stood still, for long each time and in all.
    fn stood(&self) -> [Duration; 2] {
        [&self.long_stalls, &self.stalls].map(|stalls| stalls.within(Duration::ZERO..Duration::MAX))
    }
}

async fn the_default_limit_keeps_an_overloaded_upstream_answering_in_time(workers: u32) {
    let (overload, calm, end) = (2 * SECOND, 8 * SECOND, 12 * SECOND);
    let schedule =
        || Schedule::constant(CALM, overload).then(OFFERED, calm - overload).then(CALM, end - calm).poisson();
    let native = Listener::new("native").filter(HttpFilter::adaptive_concurrency());
    let rig = rig(workers, [listener("main", &shedding(json!({}))), native, Listener::new("control")]).await;
    let bystander = Bystander::beside(&rig).await;
    let settled = overload + SECOND..calm;
    let after = calm + SECOND..end;
    let mut table = String::new();
    for name in ["main", "native", "control"] {
        // The queue of the one before is gone with it.
        rig.upstream.model(Some(model(SLOTS)));
        let measured = Measured::new(&bystander, load(&rig, name, schedule()), end).await;
        let goodput = measured.goodput(settled.clone(), model(SLOTS).capacity());
        let answered = |outcome: &Outcome| outcome.ending == Ending::Answered(200);
        let turned_away = |outcome: &Outcome| matches!(outcome.ending, Ending::Rejected { .. } | Ending::Local(503));
        let p99 = measured.p99(settled.clone(), answered);
        let told = measured.p99(settled.clone(), turned_away);
        let refused = |time: Range<Duration>| measured.meant_for(time).filter(|o| turned_away(o)).count();
        let (early, late) = (refused(Duration::ZERO..overload), refused(after.clone()));
        let recovered = measured.goodput(after.clone(), CALM);
        table += &format!(
            "| {name}, {workers} workers | {:.1} % | {p99:.0} ms | {told:.0} ms | {early} | {late} | {:.1} % | {:?}\n",
            100.0 * goodput,
            100.0 * recovered,
            measured.stood(),
        );
        match name {
            "main" => {
                assert!(goodput >= 0.95 * measured.possible(settled.clone()), "{table}");
                assert!(p99 < 150.0, "{table}");
                assert!(told < 20.0, "{table}");
                let unfair = [Duration::ZERO..overload, after.clone()].map(|carried| measured.unfair(carried));
                assert_eq!(unfair, [0, 0], "{table}");
                rig.wait_for_idle("p").await;
            }
            // It collapses and stays so, long after the overload.
            "control" => assert!(goodput < 0.1 && recovered < 0.1, "{table}"),
            _ => {}
        }
    }
    println!(
        "in time, p99 admitted, p99 turned away, turned away before and after, in time after, machine stood\n{table}"
    );
}

/// From the first request on there are too many, and nothing is known yet.
async fn a_start_into_an_overload_comes_right_within_five_seconds(workers: u32) {
    let (right, end) = (5 * SECOND, 10 * SECOND);
    let rig = rig(workers, [listener("main", &shedding(json!({}))), Listener::new("control")]).await;
    let bystander = Bystander::beside(&rig).await;
    for name in ["main", "control"] {
        rig.upstream.model(Some(model(SLOTS)));
        let end = if name == "main" { end } else { right + 2 * SECOND };
        let load = load(&rig, name, Schedule::constant(OFFERED, end).poisson());
        let measured = Measured::new(&bystander, load, end).await;
        let goodput = |from, to| measured.goodput(from..to, model(SLOTS).capacity());
        let share = goodput(right, end);
        println!(
            "{workers} workers, {name}: {:.1} % of capacity in the first five seconds, {:.1} % from then on; machine stood {:?}",
            100.0 * goodput(Duration::ZERO, right),
            100.0 * share,
            measured.stood()
        );
        if name == "main" {
            assert!(share >= 0.95 * measured.possible(right..end), "{share}");
            rig.wait_for_idle("p").await;
        } else {
            assert!(share < 0.1, "{share}");
        }
    }
}

async fn critical_requests_are_served_through_an_overload(workers: u32) {
    let (overload, end) = (2 * SECOND, 9 * SECOND);
    let levels = json!([
        {"name": "critical", "match": {"headers": [{"name": "x-critical", "exact": "1"}]}},
        {"name": "bulk", "share": 80},
    ]);
    let main = shedding(json!({"priority": {"levels": levels, "default": "bulk"}}));
    let rig = rig(workers, [listener("main", &main), listener("control", &shedding(json!({})))]).await;
    let bystander = Bystander::beside(&rig).await;
    for name in ["main", "control"] {
        rig.upstream.model(Some(model(SLOTS)));
        let schedule = Schedule::constant(CALM, overload).then(OFFERED, end - overload).poisson();
        let one_in_eight = |index: usize, _: &mut _| {
            if index.is_multiple_of(8) { Call::get("/").header("x-critical", "1") } else { Call::get("/") }
        };
        let load = load(&rig, name, schedule).calls(one_in_eight);
        let measured = Measured::new(&bystander, load, end).await;
        // Every eighth request.
        let share = measured.share(overload..end, |outcome| outcome.index.is_multiple_of(8));
        println!(
            "{workers} workers, {name}: {:.1} % of the critical served; machine stood {:?}",
            100.0 * share,
            measured.stood()
        );
        if name == "main" {
            assert!(share >= 0.994 * measured.possible(overload..end), "{share}");
            rig.wait_for_idle("p").await;
        } else {
            assert!(share < 0.8, "without levels they fare as all do: {share}");
        }
    }
}

/// Those who wait at the upstream go on waiting when slots go or come. What is asked for is a share of what the slots can do: an
/// upstream with so many of them from the beginning could serve no more.
async fn a_capacity_that_is_halved_and_restored_is_found_within_two_seconds(workers: u32) {
    let (halved, restored, end) = (4 * SECOND, 9 * SECOND, 14 * SECOND);
    let rig = rig(workers, [listener("main", &shedding(json!({}))), Listener::new("control")]).await;
    let bystander = Bystander::beside(&rig).await;
    for name in ["main", "control"] {
        rig.upstream.model(Some(model(SLOTS)));
        let begin = Instant::now();
        let changes = async {
            for (at, slots) in [(halved, SLOTS / 2), (restored, SLOTS)] {
                tokio::time::sleep_until(begin + at).await;
                rig.upstream.slots(slots);
            }
        };
        // What requests take is known before there are too many: a blind start has its own scenario.
        let schedule = Schedule::constant(CALM, 2 * SECOND).then(OFFERED, end - 2 * SECOND).poisson();
        let load = load(&rig, name, schedule);
        let (measured, ()) = tokio::join!(Measured::new(&bystander, load, end), changes);
        let judged = [halved + 2 * SECOND..restored, restored + 2 * SECOND..end];
        let [half, all] = judged.clone();
        let shares =
            [measured.goodput(half, model(SLOTS / 2).capacity()), measured.goodput(all, model(SLOTS).capacity())];
        println!(
            "{workers} workers, {name}: {:.1} % with half of the slots, {:.1} % with all again; machine stood {:?}",
            100.0 * shares[0],
            100.0 * shares[1],
            measured.stood()
        );
        if name == "main" {
            for (share, time) in shares.iter().zip(judged) {
                assert!(*share >= 0.95 * measured.possible(time), "{shares:?}");
            }
            rig.wait_for_idle("p").await;
        } else {
            assert!(shares[0] < 0.1 && shares[1] < 0.1, "{shares:?}");
        }
    }
}
