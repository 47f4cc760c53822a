//! The one table of stats: every name, kind and meaning, and the ids the host gave them.
//!
//! The ABI has no labels. A labelled stat's name is `<stat>.<label>.<value>...`; the proxy's `stats_tags` (see
//! `envoy/envoy.yaml`) cut the labels out again, so that it is scraped as `<stat>{<label>="<value>",...}`.

use std::cell::RefCell;
use std::collections::HashMap;

/// What a stat is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Collects samples.
    Histogram,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The name as scraped.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it says, for people.
    pub meaning: &'static str,
}

macro_rules! stats {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $id: Stat =
            Stat { name: $name, kind: Kind::$kind, labels: &[$($label),*], meaning: $meaning };)*
        /// Every stat there is.
        pub const ALL: &[Stat] = &[$($id),*];
    };
}

stats! {
    REQUESTS: Counter "tidegate_requests_total" ["policy", "decision"]
        "Requests by policy and decision; a rejected request counts once, at the policy that rejected it.";
    BREAKER_STATE: Gauge "tidegate_circuit_breaker_state" ["policy", "key"]
        "State of each circuit breaker: 0 closed, 1 open, 2 half-open.";
    BREAKER_TRANSITIONS: Counter "tidegate_circuit_breaker_transitions_total" ["policy", "to"]
        "Changes of circuit breaker state, by the new state.";
    BREAKER_TRIPS: Counter "tidegate_circuit_breaker_trips_total" ["policy", "reason"]
        "Trips of circuit breakers, failed rounds of probes included, by their reason.";
    CONCURRENCY_LIMIT: Gauge "tidegate_concurrency_limit" ["policy"]
        "Requests that may be in flight at once.";
    INFLIGHT: Gauge "tidegate_inflight" ["policy"]
        "Requests in flight, over all workers.";
    QUEUE_LENGTH: Gauge "tidegate_queue_length" ["policy"]
        "Requests held now, over all workers.";
    THROTTLE_REJECTION: Gauge "tidegate_throttle_rejection_percent" ["policy"]
        "Percentage of requests that the throttle rejects now.";
    QUEUE_WAIT: Histogram "tidegate_queue_wait_ms" []
        "How long requests were held, in milliseconds, whatever became of them.";
    RATE_LIMIT_OVERFLOW: Counter "tidegate_rate_limit_overflow_total" ["policy", "limit"]
        "Requests decided by the shared overflow bucket because the limit tracks its maximum of keys.";
    RATE_LIMIT_CONTENDED: Counter "tidegate_rate_limit_contended_total" ["policy", "limit"]
        "Requests refused, and refunds and response costs left out, because other workers changed the same page first too many times in a row.";
    RATE_LIMIT_UNCHARGED: Counter "tidegate_rate_limit_uncharged_total" ["policy", "limit"]
        "Costs told by responses that were charged to nobody because their key had lost its place in a full table.";
    BUILD_INFO: Gauge "tidegate_build_info" ["version"]
        "Always 1; the label is the plugin's version.";
    INTERNAL: Gauge "tidegate_internal" ["cell"]
        "Numbers the workers share that are no stats; their names change, those of circuit breakers with each process.";
    VM_MEMORY: Gauge "tidegate_vm_memory_bytes" []
        "Memory of the largest of the plugin's VMs, of which every worker has one; it never shrinks.";
    CONFIG_UPDATES: Counter "tidegate_config_updates_total" ["result"]
        "Updates of the configuration, by result: accepted, each once over all workers, or rejected.";
    ERRORS: Counter "tidegate_errors_total" ["kind"]
        "Internal errors; the request concerned was admitted.";
}

/// An id the host gave a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricId(pub u32);

/// Where stats go.
pub trait Metrics {
    /// Defines a metric. Every call makes a new one: each name once per VM. `None` where the host has no metrics.
    fn define(&self, kind: Kind, name: &str) -> Option<MetricId>;
    /// Adds to a counter or gauge.
    fn add(&self, id: MetricId, delta: i64);
    /// Sets a gauge, or gives a histogram a sample.
    fn record(&self, id: MetricId, value: u64);
}

/// The stats of one worker: defines each name on first use and keeps its id.
#[derive(Debug, Default)]
pub struct Registry {
    ids: RefCell<HashMap<String, Option<MetricId>>>,
}

/// The full name of a stat with these label values.
pub fn full_name(stat: Stat, values: &[&str]) -> String {
    let mut name = stat.name.to_owned();
    for (label, value) in stat.labels.iter().zip(values) {
        name.push('.');
        name.push_str(label);
        name.push('.');
        name.push_str(value);
    }
    name
}

impl Registry {
    /// The id of a stat with these label values. Allocates a name: look ids up once where it matters.
    pub fn id(&self, metrics: &dyn Metrics, stat: Stat, values: &[&str]) -> Option<MetricId> {
        let mut ids = self.ids.try_borrow_mut().ok()?;
        let name = full_name(stat, values);
        *ids.entry(name).or_insert_with_key(|name| metrics.define(stat.kind, name))
    }

    /// Adds to a stat that is seldom touched.
    pub fn add(&self, metrics: &dyn Metrics, stat: Stat, values: &[&str], delta: i64) {
        if let Some(id) = self.id(metrics, stat, values) {
            metrics.add(id, delta);
        }
    }

    /// Sets a gauge that is seldom touched.
    pub fn record(&self, metrics: &dyn Metrics, stat: Stat, values: &[&str], value: u64) {
        if let Some(id) = self.id(metrics, stat, values) {
            metrics.record(id, value);
        }
    }
}
