//! One Envoy, one upstream, and the clients of an act in front of them.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::runtime::{self, Runtime};

use super::acts::{CLIENTS, FAILING_DELAY, Key, PATIENCE, Phase, Script, upstream};
use super::envoy_yaml::EnvoyYaml;
use super::progress::{Live, Progress};
use crate::client::{Call, Ending, Load, Outcome, Outcomes};
use crate::envoy::{DEADLINE, Envoy};
use crate::ledger::Ledgers;
use crate::report::{BreakerState, Fate, Group, Performance, Sample, Transitions};
use crate::stats::Stats;
use crate::upstream::{Behaviour, Upstream};

/// How often the breaker's gauge is read.
const LOOK: Duration = Duration::from_millis(25);
/// Envoy's worker threads: more than one, so that what workers share is on show too.
pub(super) const WORKERS: u32 = 2;

/// Where acts are performed, with Tidegate or without.
pub(super) struct Stage {
    envoy: Envoy,
    upstream: Upstream,
    _apart: Apart,
    policy: Option<String>,
    opening: Stats,
    sent: Vec<Outcomes>,
}

/// A thread for the upstream alone, so that clients that are behind do not slow it down.
struct Apart(Option<Runtime>);

impl Stage {
    /// Starts an upstream and an Envoy with `envoy/envoy.yaml`, on ports the kernel chooses. Without a policy Envoy has no
    /// Tidegate filter at all.
    pub(super) async fn open(policy: Option<&Value>) -> Result<Self> {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let upstream = runtime.spawn(Upstream::start());
        let apart = Apart(Some(runtime));
        let upstream = upstream.await??;
        let mut yaml = EnvoyYaml::read()?;
        *yaml.admin()? = json!(0);
        *yaml.listener()? = json!(0);
        yaml.forward_to(upstream.address())?;
        match policy {
            Some(policy) => *yaml.policy()? = policy.clone(),
            None => yaml.remove_tidegate()?,
        }
        let envoy = yaml.builder().concurrency(WORKERS).start().await?;
        let opening = envoy.stats().await?;
        let name = policy.and_then(|policy| policy["policies"][0]["name"].as_str()).map(str::to_owned);
        Ok(Self { envoy, upstream, _apart: apart, policy: name, opening, sent: Vec::new() })
    }

    /// Plays an act from its first request to the end of the last.
    pub(super) async fn perform(&mut self, script: &Script, seed: u64, progress: &Progress) -> Result<Performance> {
        self.upstream.recover();
        // A fresh one: nothing is left of the queue of an earlier act.
        self.upstream.model(Some(upstream()));
        let before = self.envoy.stats().await?;
        let name = format!("{:?}", script.key).to_lowercase();
        let load = |rate: fn(&Phase) -> f64| Load::new(self.envoy.listener(), script.schedule(rate)).timeout(PATIENCE);
        let crowd = load(|phase| phase.crowd).name(&name).seed(seed);
        let crowd = crowd.calls(|index, _| call(&format!("client-{}", index % CLIENTS)));
        let greedy =
            load(|phase| phase.greedy).name(format!("{name}-greedy")).seed(seed + 1).calls(|_, _| call("greedy"));

        let (live, breaker, start) = (Mutex::default(), Mutex::default(), Instant::now());
        let playing =
            async { tokio::join!(collect(crowd, &live), collect(greedy, &live), self.fail_for_a_while(script, start)) };
        let (crowd, greedy, reached_failing) = tokio::select! {
            played = playing => played,
            never = progress.show(&live, start) => match never {},
            never = self.watch_breaker(&breaker, start) => match never {},
        };
        progress.finish(&live);

        let after = self.settled().await?;
        let samples = [(&crowd, Group::Crowd), (&greedy, Group::Greedy)].into_iter().flat_map(|(load, group)| {
            load.iter().map(move |outcome| {
                let Outcome { intended, latency, .. } = *outcome;
                Sample { intended, latency, group, fate: fate(outcome) }
            })
        });
        let performance = Performance {
            samples: samples.collect(),
            breaker: breaker.into_inner().unwrap_or_else(PoisonError::into_inner),
            transitions: transitions(&after.since(&before)),
            reached_failing,
        };
        self.sent.push(Outcomes { name, seed, all: [crowd, greedy].concat() });
        Ok(performance)
    }

    /// Holds the accounts of the clients, the upstream and the stats against each other, over all acts.
    pub(super) async fn check_ledgers(&self) -> Result<()> {
        let grown = self.settled().await?.since(&self.opening);
        let ledgers = Ledgers::of_clients(&self.sent).and_upstream(&self.upstream);
        ledgers.check_upstream()?;
        self.policy.as_deref().map_or(Ok(()), |policy| ledgers.check_stats(policy, &grown))
    }

    /// The stats, once no request is on its way any more.
    async fn settled(&self) -> Result<Stats> {
        self.upstream.wait_for_concurrent(0, DEADLINE).await?;
        let rest = |stats: &Stats| match stats.count("tidegate_inflight", &[]) {
            0.0 => Ok(stats.clone()),
            inflight => Err(format!("{inflight} requests are in flight")),
        };
        self.envoy.wait_for_stats(DEADLINE, rest).await
    }

    /// Makes the upstream fail when the script says, and counts what reaches it meanwhile.
    async fn fail_for_a_while(&self, script: &Script, start: Instant) -> usize {
        if script.key != Key::Failing {
            return 0;
        }
        let at = |seconds| tokio::time::sleep_until((start + Duration::from_secs_f64(seconds)).into());
        let (from, to) = script.trouble();
        at(from).await;
        let before = self.upstream.total();
        self.upstream.fail(Behaviour::respond(503).body("failing\n").delay(FAILING_DELAY));
        at(to).await;
        self.upstream.recover();
        self.upstream.total() - before
    }

    async fn watch_breaker(&self, seen: &Mutex<Vec<(Duration, BreakerState)>>, start: Instant) -> Infallible {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            if self.policy.is_none() {
                continue;
            }
            // A look that fails leaves a gap of one interval.
            if let Ok(text) = self.envoy.admin_get("/stats/prometheus?filter=tidegate_circuit_breaker_state").await
                && let Ok(stats) = Stats::parse(&text)
            {
                let state = state(stats.count("tidegate_circuit_breaker_state", &[]));
                seen.lock().unwrap_or_else(PoisonError::into_inner).push((start.elapsed(), state));
            }
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // A runtime waits for its threads when it is dropped, which a task of another must not.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn call(key: &str) -> Call {
    Call::get("/").header("x-api-key", key)
}

/// Sends a load and keeps every outcome.
async fn collect(load: Load, live: &Mutex<Live>) -> Vec<Outcome> {
    let mut all = Vec::new();
    load.run_into(|outcome| {
        let ended = outcome.intended + outcome.latency;
        live.lock().unwrap_or_else(PoisonError::into_inner).count(fate(&outcome), ended);
        all.push(outcome);
    })
    .await;
    all
}

/// An answer that came when the client, counting from the moment it meant to send, had given up is none.
fn fate(outcome: &Outcome) -> Fate {
    match &outcome.ending {
        Ending::Answered(200..=299) if outcome.latency <= PATIENCE => Fate::Served,
        Ending::Rejected { reason, .. } => match reason.decision.as_str() {
            "rate_limited" => Fate::RateLimited,
            "circuit_open" => Fate::CircuitOpen,
            "overloaded" => Fate::Overloaded,
            _ => Fate::Failed,
        },
        Ending::Answered(_) | Ending::Local(_) | Ending::Cancelled(_) | Ending::Errored(_) => Fate::Failed,
    }
}

fn state(code: f64) -> BreakerState {
    if code == 0.0 {
        BreakerState::Closed
    } else if code == 1.0 {
        BreakerState::Open
    } else {
        BreakerState::HalfOpen
    }
}

fn transitions(grown: &Stats) -> Transitions {
    let to = |state| grown.count("tidegate_circuit_breaker_transitions_total", &[("to", state)]) as u64;
    Transitions { open: to("open"), half_open: to("half_open"), closed: to("closed") }
}
