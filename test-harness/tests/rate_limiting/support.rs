//! What the scenarios share: an Envoy with several listeners in front of one upstream.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_harness::client::{Call, Connection, Load, Outcomes, Response, Schedule, Tally};
use tidegate_harness::envoy::{Builder, Cluster, Envoy, HttpFilter, Listener, Tidegate};
use tidegate_harness::upstream::Upstream;

/// How long a condition may take to come true on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Tidegate under this name. Filters of the same name share what their policies have in common, so each has its own.
pub fn tidegate(name: &str, config: &Value) -> Listener {
    listener(name, Tidegate::new(config).unwrap().name(name))
}

/// A listener with this filter, whose workers get connections in turn: as many as there are workers reach all of them.
pub fn listener(name: &str, filter: impl Into<HttpFilter>) -> Listener {
    Listener::new(name).filter(filter).balanced()
}

/// Asks each worker in turn, over a connection to each. To be opened before any other connection to the listener: the proxy
/// may still count one that has just been closed.
pub struct InTurn {
    connections: Vec<Connection>,
    next: usize,
}

impl InTurn {
    pub async fn new(envoy: &Envoy, listener: &str, workers: u32) -> Self {
        let mut connections = Vec::new();
        for _ in 0..workers {
            connections.push(Connection::open(envoy.address(listener), false).await.unwrap());
        }
        Self { connections, next: 0 }
    }

    pub async fn send(&mut self, call: Call) -> Response {
        let turn = self.next % self.connections.len();
        self.next += 1;
        self.connections[turn].send(call).await.unwrap()
    }

    /// How many pass until one is rejected.
    pub async fn passing(&mut self) -> usize {
        let mut passed = 0;
        while self.send(Call::get("/")).await.status == 200 {
            passed += 1;
        }
        passed
    }
}

/// At each of these listeners every worker has had its part.
pub async fn all_took_part(envoy: &Envoy, workers: u32, listeners: &[&str]) {
    for listener in listeners {
        assert_eq!(envoy.busy_workers(listener).await.unwrap(), workers as usize, "workers at {listener}");
    }
}

/// One policy `p` with these rate limits.
pub fn limits(rate_limits: Value) -> Value {
    json!({"policies": [{"name": "p", "rate_limits": rate_limits}]})
}

/// An Envoy with so many workers and these listeners, and its upstream.
pub async fn start(workers: u32, listeners: impl IntoIterator<Item = Listener>) -> (Upstream, Envoy) {
    let upstream = Upstream::start().await.unwrap();
    let builder = Envoy::builder().concurrency(workers).cluster(Cluster::new("upstream", upstream.address()));
    let envoy = listeners.into_iter().fold(builder, Builder::listener).start().await.unwrap();
    (upstream, envoy)
}

/// A request of this client.
pub fn client(name: impl AsRef<str>) -> Call {
    Call::get("/").header("x-client", name.as_ref())
}

/// So many requests at once, each on a connection of its own.
pub async fn volley(
    at: std::net::SocketAddr,
    requests: usize,
    make: impl Fn(usize) -> Call + Send + 'static,
) -> Outcomes {
    Load::new(at, Schedule::burst(requests)).calls(move |index, _| make(index)).run().await
}

/// How many of them no rate limit rejected. Whatever else the proxy answered, say 503 because no connection to the upstream
/// stood in time, it had let through.
pub fn passed(tally: &Tally) -> usize {
    tally.sent - tally.rejections() - tally.local.get(&429).copied().unwrap_or(0)
}

/// How many requests a policy decided so.
pub async fn decisions(envoy: &Envoy, policy: &str, decision: &str) -> usize {
    let stats = envoy.stats().await.unwrap();
    stats.count("tidegate_requests_total", &[("policy", policy), ("decision", decision)]) as usize
}

/// Waits until this stat of a policy has this value.
pub async fn wait_for_stat(envoy: &Envoy, name: &str, policy: &str, value: u32) {
    let waited = envoy.wait_for_stats(SOON, |stats| match stats.stat(name, &[("policy", policy)]) {
        Some(now) if now == f64::from(value) => Ok(()),
        now => Err(format!("{name} is {now:?}, not {value}\n{}", stats.only("tidegate_"))),
    });
    waited.await.unwrap();
}
