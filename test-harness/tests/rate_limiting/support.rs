//! What the scenarios share: an Envoy with several listeners in front of one upstream.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_harness::client::{Call, Load, Outcomes, Schedule};
use tidegate_harness::envoy::{Builder, Cluster, Envoy, Listener, Tidegate};
use tidegate_harness::upstream::Upstream;

/// How long a condition may take to come true on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Tidegate under this name. Filters of the same name share what their policies have in common, so each has its own.
pub fn tidegate(name: &str, config: &Value) -> Listener {
    Listener::new(name).filter(Tidegate::new(config).unwrap().name(name))
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
