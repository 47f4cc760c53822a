//! Metrics of a host that has none.

use tidegate::engine::stats::{Kind, MetricId, Metrics};

/// A host without metrics.
pub struct Nothing;

impl Metrics for Nothing {
    fn define(&self, _: Kind, _: &str) -> Option<MetricId> {
        None
    }

    fn add(&self, _: MetricId, _: i64) {}

    fn record(&self, _: MetricId, _: u64) {}
}
