//! What a run found.

use std::time::Duration;

use super::budgets::Budget;
use super::statistics::Spread;
use crate::client::Latencies;

/// What a variant added to a request, in microseconds of the worker's time.
#[derive(Debug, Clone)]
pub struct Added {
    /// The variant.
    pub title: &'static str,
    /// What the same round's request cost without a filter.
    pub base: Vec<f64>,
    /// What it cost more with this one, round by round.
    pub rounds: Vec<f64>,
}

impl Added {
    /// What it adds.
    pub fn spread(&self) -> Spread {
        Spread::of(&self.rounds)
    }
}

/// A variant under load at a fixed rate.
#[derive(Debug, Clone)]
pub struct AtRate {
    /// The variant.
    pub title: &'static str,
    /// Requests per second, as intended.
    pub rate: f64,
    /// As answered.
    pub throughput: f64,
    /// Of the worker's core, in percent.
    pub busy: f64,
    /// From the moment each request was meant to leave.
    pub latencies: Latencies,
}

/// What one call to the host costs inside the VM.
#[derive(Debug, Clone)]
pub struct HostCall {
    /// What it does.
    pub name: String,
    /// Nanoseconds.
    pub nanos: Spread,
}

/// Everything.
#[derive(Debug)]
pub struct Results {
    /// Names and values: versions, seed, machine.
    pub method: Vec<(String, String)>,
    /// What each variant costs without a filter.
    pub base: Spread,
    /// What each adds, in the order of the variants.
    pub added: Vec<Added>,
    /// Load at fixed rates.
    pub at_rates: Vec<AtRate>,
    /// What calls to the host cost.
    pub host_calls: Vec<HostCall>,
    /// The bounds.
    pub budgets: Vec<Budget>,
    /// How long it took.
    pub took: Duration,
}
