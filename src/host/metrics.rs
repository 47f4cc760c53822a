//! Stats on the host's metrics.

use crate::engine::stats::{Kind, MetricId, Metrics};

use super::abi::{self, MetricKind};

/// The host's metrics.
pub struct HostMetrics;

impl Metrics for HostMetrics {
    fn define(&self, kind: Kind, name: &str) -> Option<MetricId> {
        let kind = match kind {
            Kind::Counter => MetricKind::Counter,
            Kind::Gauge => MetricKind::Gauge,
            Kind::Histogram => MetricKind::Histogram,
        };
        abi::define_metric(kind, name).ok().map(MetricId)
    }

    fn add(&self, id: MetricId, delta: i64) {
        // A refusal leaves a stat behind the truth; there is nowhere else to say so.
        let _ = abi::increment_metric(id.0, delta);
    }

    fn record(&self, id: MetricId, value: u64) {
        let _ = abi::record_metric(id.0, value);
    }
}

/// Sets a gauge that says the most of what all workers tell, if this is more.
pub fn raise(id: MetricId, value: u64) {
    // Two workers may both find theirs to be more: the next time the lesser is told again.
    if abi::get_metric(id.0).is_ok_and(|most| most < value) {
        let _ = abi::record_metric(id.0, value);
    }
}
