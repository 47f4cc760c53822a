//! Envoy's own clock: its log and its access log show it, so that it is known which requests began when a breaker was in which
//! state, however late they are sent or heard of on a busy machine.

use tidegate_harness::envoy::{Cluster, Listener};

use crate::support::{Rig, SOON};

/// How far apart the clock of a log line and that of what it tells may be, in seconds: a thread may be kept from running
/// between reading one and the other. A container over its CPU quota is frozen for up to a tenth of a second, and maybe again.
pub const SKEW: f64 = 0.25;

/// A change of state.
#[derive(Debug, Clone)]
pub struct Change {
    /// When, in seconds.
    pub at: f64,
    /// What the log says of it.
    pub line: String,
}

impl Change {
    /// How long the breaker stays open, in seconds, as it says itself.
    pub fn open_for(&self) -> f64 {
        let (_, rest) = self.line.split_once("open for ").expect("it opened");
        rest.split(' ').next().unwrap().parse::<f64>().unwrap() / 1_000.0
    }
}

/// A request as the access log has it.
#[derive(Debug, Clone)]
pub struct Begun {
    /// When it began, in seconds.
    pub at: f64,
    /// What a rejection says in `Retry-After`.
    pub retry_after: Option<f64>,
    /// What Tidegate decided.
    pub decision: String,
}

impl Begun {
    pub fn admitted(&self) -> bool {
        self.decision == "admitted"
    }
}

/// These listeners before a cluster `upstream`, in an Envoy whose logs show the time.
pub async fn rig(workers: u32, listeners: impl IntoIterator<Item = Listener>) -> Rig {
    Rig::built(workers, |builder, upstream| {
        let builder = builder.argument("--log-format").argument("%E.%f %v");
        let builder = builder.cluster(Cluster::new("upstream", upstream.address()));
        listeners.into_iter().fold(builder, tidegate_harness::envoy::Builder::listener)
    })
    .await
}

/// A listener whose access log says when its requests began.
pub fn timed(listener: Listener) -> Listener {
    listener.access_log("%START_TIME(%s.%6f)% %RESP(RETRY-AFTER)% %FILTER_STATE(wasm.tidegate:PLAIN)%")
}

/// The changes of a policy's breaker, the first of which says `last` so often included.
pub async fn changes(rig: &Rig, policy: &str, last: &str, times: usize) -> Vec<Change> {
    let of = format!("circuit breaker {policy}/");
    let log = rig.envoy.wait_for_log(&format!("{of}upstream: {last}"), times, SOON).await.unwrap();
    let lines = log.lines().filter(|line| line.contains(&of));
    lines
        .map(|line| {
            let (at, line) = line.split_once(' ').unwrap();
            Change { at: at.parse().unwrap(), line: line.to_owned() }
        })
        .collect()
}

/// The requests of a listener in the order in which they began, at least so many.
pub async fn begun(rig: &Rig, listener: &str, requests: usize) -> Vec<Begun> {
    let lines = rig.envoy.wait_for_access_log(listener, requests, SOON).await.unwrap();
    let mut begun: Vec<_> = lines
        .iter()
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let (at, retry_after) = (words.next().unwrap(), words.next().unwrap());
            let decision = words.next().unwrap().to_owned();
            Begun { at: at.parse().unwrap(), retry_after: retry_after.parse().ok(), decision }
        })
        .collect();
    begun.sort_by(|one, other| one.at.total_cmp(&other.at));
    begun
}
