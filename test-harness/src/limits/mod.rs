//! Every way to find a limit, before the same upstream and under the same load, in a real Envoy; and a drawing of it.
//!
//! The upstream has 10 slots of 20 ms, 500 requests a second, for a while half of them. It is offered 250 requests a second, then
//! 1200, then 250 again.

mod chart;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Ending, Load, Outcomes, Schedule};
use crate::envoy::{Cluster, Envoy, HttpFilter, Listener, Tidegate};
use crate::upstream::{Model, Upstream};

pub use chart::chart;

/// So many workers.
const WORKERS: u32 = 2;
/// Requests a second before and after, and in between.
const CALM: f64 = 250.0;
const OFFERED: f64 = 1200.0;
const SLOTS: usize = 10;
const SERVICE_TIME: Duration = Duration::from_millis(20);
/// Answers that came later than this are of no use.
const IN_TIME: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);

/// When what happens, in seconds: the overload begins, half of the slots go, they come back, the overload ends, the end.
const TIMES: [f64; 5] = [2.0, 6.0, 10.0, 14.0, 17.0];
/// The width of what is drawn as one, in seconds.
const INTERVAL: f64 = 0.5;

/// What became of the load with one way to find a limit.
#[derive(Debug, Clone)]
pub struct Run {
    name: String,
    /// Answered in time, per second of each interval in which they were meant to leave.
    goodput: Vec<f64>,
    /// The limit at moments, in seconds; none where nothing tells.
    limit: Vec<(f64, f64)>,
}

/// How many requests the upstream can carry at a moment.
fn capacity(at: f64) -> f64 {
    let [_, halved, restored, ..] = TIMES;
    let slots = if (halved..restored).contains(&at) { SLOTS / 2 } else { SLOTS };
    slots as f64 / SERVICE_TIME.as_secs_f64()
}

fn model() -> Model {
    Model { serves_the_gone: true, ..Model::new(SLOTS, SERVICE_TIME) }
}

fn ways() -> Vec<(String, Option<HttpFilter>)> {
    let tidegate = |name: &str, limit: Value| {
        let config = json!({"policies": [{"name": "p", "load_shedding": {"limit": limit}}]});
        Some(Tidegate::new(&config).map(|tidegate| tidegate.name(name).into()))
    };
    let named = |name: &str| (name.to_owned(), tidegate(name, json!({"algorithm": name})));
    let mut ways = vec![
        named("adaptive"),
        named("gradient2"),
        named("vegas"),
        named("aimd"),
        ("fixed, 30".to_owned(), tidegate("fixed", json!({"algorithm": "fixed", "limit": 30}))),
    ];
    ways.push(("Envoy's adaptive_concurrency".to_owned(), Some(Ok(HttpFilter::adaptive_concurrency()))));
    ways.push(("no limit".to_owned(), None));
    ways.into_iter().filter_map(|(name, filter)| Some((name, filter.transpose().ok()?))).collect()
}

/// Plays the same with each of them, one after the other: some two minutes.
///
/// # Errors
/// Envoy does not start, or its stats cannot be read.
pub async fn play(seed: u64) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for (name, filter) in ways() {
        eprintln!("{name}");
        runs.push(one(name, filter, seed).await?);
    }
    Ok(runs)
}

async fn one(name: String, filter: Option<HttpFilter>, seed: u64) -> Result<Run> {
    let [overload, halved, restored, calm, end] = TIMES;
    let upstream = Upstream::start().await?;
    upstream.model(Some(model()));
    let listener = Listener::new("main");
    let listener = filter.into_iter().fold(listener, Listener::filter);
    let cluster = Cluster::new("upstream", upstream.address());
    let envoy = Envoy::builder().concurrency(WORKERS).cluster(cluster).listener(listener).start().await?;
    let seconds = Duration::from_secs_f64;
    let schedule = Schedule::constant(CALM, seconds(overload))
        .then(OFFERED, seconds(calm - overload))
        .then(CALM, seconds(end - calm));
    let load = Load::new(envoy.listener(), schedule.poisson()).seed(seed).timeout(PATIENCE).run();
    let begin = Instant::now();
    let changes = async {
        for (at, slots) in [(halved, SLOTS / 2), (restored, SLOTS)] {
            tokio::time::sleep_until(begin + seconds(at)).await;
            upstream.slots(slots);
        }
    };
    let watched = async {
        let mut limit = Vec::new();
        let mut at = begin;
        while at < begin + seconds(end) {
            tokio::time::sleep_until(at).await;
            if let Some(value) = envoy.stats().await?.stat("tidegate_concurrency_limit", &[("policy", "p")]) {
                limit.push((begin.elapsed().as_secs_f64(), value));
            }
            at += seconds(INTERVAL / 2.0);
        }
        anyhow::Ok(limit)
    };
    let (outcomes, (), limit) = tokio::join!(load, changes, watched);
    Ok(Run { name, goodput: goodput(&outcomes), limit: limit? })
}

fn goodput(outcomes: &Outcomes) -> Vec<f64> {
    let [.., end] = TIMES;
    let mut counts = vec![0.0; (end / INTERVAL).ceil() as usize];
    for outcome in &outcomes.all {
        let good = outcome.ending == Ending::Answered(200) && outcome.latency <= IN_TIME;
        if let (true, Some(count)) = (good, counts.get_mut((outcome.intended.as_secs_f64() / INTERVAL) as usize)) {
            *count += 1.0 / INTERVAL;
        }
    }
    counts
}

/// A line for each run: answered in time per second of overload with all slots (from two seconds after each change), and with half.
pub fn table(runs: &[Run]) -> String {
    let [overload, halved, restored, calm, _] = TIMES;
    let mean = |run: &Run, from: f64, to: f64| {
        let values = run.goodput.iter().skip((from / INTERVAL) as usize).take(((to - from) / INTERVAL) as usize);
        values.clone().sum::<f64>() / values.count().max(1) as f64
    };
    let settled = 2.0;
    let row = |run: &Run| {
        let means =
            [(overload, halved), (halved, restored), (restored, calm)].map(|(from, to)| mean(run, from + settled, to));
        format!("{:<30}{:>10.0}{:>10.0}{:>10.0}\n", run.name, means[0], means[1], means[2])
    };
    format!("{:<30}{:>10}{:>10}{:>10}\n", "in time, per second", "all slots", "half", "all again")
        + &runs.iter().map(row).collect::<String>()
}
