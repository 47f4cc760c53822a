//! What the scenarios share: an upstream with an Envoy in front of it, volleys, and a reading of the stats.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate_harness::client::{Call, Connection, Load, Outcomes, Schedule};
use tidegate_harness::envoy::{Builder, Cluster, Envoy, Listener, Tidegate};
use tidegate_harness::upstream::{MARK, Upstream};
use tidegate_harness::wait_until;

/// How long a condition may take to come true on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// An Envoy in front of an upstream.
pub struct Rig {
    pub upstream: Upstream,
    pub envoy: Envoy,
}

/// Tidegate, at listener `main`.
pub fn main_listener(config: &Value) -> Listener {
    Listener::new("main").filter(Tidegate::new(config).unwrap())
}

/// The seed of a scenario's random choices: `TIDEGATE_SEED`, or 1.
pub fn seed() -> u64 {
    let seed = std::env::var("TIDEGATE_SEED").map_or(1, |text| text.parse().expect("TIDEGATE_SEED is not a number"));
    println!("seed {seed}: TIDEGATE_SEED={seed} runs the same again");
    seed
}

impl Rig {
    /// Tidegate with this configuration at listener `main`; listener `control` is without it.
    pub async fn new(workers: u32, config: &Value) -> Self {
        Self::with(workers, [main_listener(config), Listener::new("control")]).await
    }

    /// These listeners, before a cluster named `upstream`.
    pub async fn with(workers: u32, listeners: impl IntoIterator<Item = Listener>) -> Self {
        Self::built(workers, |builder, upstream| {
            let builder = builder.cluster(Cluster::new("upstream", upstream.address()));
            listeners.into_iter().fold(builder, Builder::listener)
        })
        .await
    }

    /// Whatever `build` makes of it.
    pub async fn built(workers: u32, build: impl FnOnce(Builder, &Upstream) -> Builder) -> Self {
        let upstream = Upstream::start().await.unwrap();
        let envoy = build(Envoy::builder().concurrency(workers), &upstream).start().await.unwrap();
        Self { upstream, envoy }
    }

    /// Where Tidegate is.
    pub fn main(&self) -> SocketAddr {
        self.envoy.address("main")
    }

    /// Where the other setting is, or none.
    pub fn control(&self) -> SocketAddr {
        self.envoy.address("control")
    }

    /// How many requests were decided so.
    pub async fn decisions(&self, policy: &str, decision: &str) -> usize {
        let stats = self.envoy.stats().await.unwrap();
        stats.count("tidegate_requests_total", &[("policy", policy), ("decision", decision)]) as usize
    }

    /// Waits until so many requests were decided so.
    pub async fn wait_for_decisions(&self, policy: &str, decision: &str, number: u32) {
        let labels = [("policy", policy), ("decision", decision)];
        self.wait_for_stat("tidegate_requests_total", &labels, number).await;
    }

    /// How many requests were decided at all.
    pub async fn decided(&self) -> usize {
        self.envoy.stats().await.unwrap().count("tidegate_requests_total", &[]) as usize
    }

    /// Waits until this stat has this value; a stat that is not there has none.
    pub async fn wait_for_stat(&self, name: &str, labels: &[(&str, &str)], value: u32) {
        let waited = self.envoy.wait_for_stats(SOON, |stats| match stats.stat(name, labels) {
            Some(now) if now == f64::from(value) => Ok(()),
            now => Err(format!("{name}{labels:?} is {now:?}, not {value}\n{}", stats.only("tidegate_"))),
        });
        waited.await.unwrap();
    }

    /// Waits until nothing is in flight for this policy.
    pub async fn wait_for_idle(&self, policy: &str) {
        self.wait_for_stat("tidegate_inflight", &[("policy", policy)], 0).await;
    }

    /// Waits until this breaker of a policy is in this state.
    pub async fn wait_for_breaker(&self, policy: &str, key: &str, state: u32) {
        self.wait_for_stat("tidegate_circuit_breaker_state", &[("policy", policy), ("key", key)], state).await;
    }
}

/// So many requests at once, each on a connection of its own as far as they are busy at a time.
pub async fn volley(at: SocketAddr, requests: usize, make: impl Fn(usize) -> Call + Send + 'static) -> Outcomes {
    Load::new(at, Schedule::burst(requests)).calls(move |index, _| make(index)).run().await
}

/// So many requests over sixteen connections, each sending its next as soon as the last is answered. Gives the decisions,
/// `admitted` where the upstream answered.
pub async fn crowd(
    at: SocketAddr,
    requests: usize,
    make: impl Fn(usize) -> Call + Send + Sync + 'static,
) -> Vec<String> {
    let make = Arc::new(make);
    let next = Arc::new(AtomicUsize::new(0));
    let connections = (0..16).map(|_| {
        let (make, next) = (make.clone(), next.clone());
        tokio::spawn(async move {
            let mut connection = Connection::open(at, false).await.unwrap();
            let mut decisions = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= requests {
                    return decisions;
                }
                let response = connection.send(make(index)).await.unwrap();
                decisions.push(match response.reason() {
                    Some(reason) => reason.decision,
                    None if response.headers.contains_key(MARK) => "admitted".into(),
                    None => format!("answered {} by the proxy itself", response.status),
                });
            }
        })
    });
    let mut decisions = Vec::new();
    for connection in connections.collect::<Vec<_>>() {
        decisions.extend(connection.await.unwrap());
    }
    decisions
}

/// How many of them are this.
pub fn count(decisions: &[String], decision: &str) -> usize {
    decisions.iter().filter(|one| *one == decision).count()
}

/// A volley as one task that runs beside the test.
pub fn volley_beside(
    at: SocketAddr,
    requests: usize,
    make: impl Fn(usize) -> Call + Send + 'static,
) -> tokio::task::JoinHandle<Outcomes> {
    tokio::spawn(volley(at, requests, make))
}

/// Waits until `condition` holds.
pub async fn until<E: Display>(condition: impl AsyncFnMut() -> Result<(), E>) {
    wait_until(SOON, condition).await.unwrap();
}
