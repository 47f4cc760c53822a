//! What a run found.

use std::time::Duration;

use super::budgets::Budget;
use super::statistics::{Range, Spread, median_range};
use super::timed::Timed;
use crate::client::Latencies;

/// What a burst cost, per request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Microseconds of the workers' time on their processors.
    pub ran: f64,
    /// Microseconds in which they were ready to run and others had the processors.
    pub waited: f64,
    /// Requests answered per second.
    pub speed: f64,
}

/// What a variant added to a request, in microseconds of the worker's time.
#[derive(Debug, Clone, Default)]
pub struct Added {
    /// The variant.
    pub title: &'static str,
    /// What the same round's request cost without a filter.
    pub base: Vec<f64>,
    /// What it cost more with this one, round by round.
    pub rounds: Vec<f64>,
    /// How long workers that were ready had to wait for a processor with this one, round by round.
    pub waited: Vec<f64>,
    /// Requests answered per second with this one, round by round.
    pub speed: Vec<f64>,
}

impl Added {
    /// How sure the median is.
    pub fn range(&self, seed: u64) -> Range {
        median_range(&self.rounds, seed)
    }

    /// What it adds, and how far apart rounds lie.
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
    /// As answered, turn by turn.
    pub throughput: Vec<f64>,
    /// Of the worker's core, in percent, turn by turn.
    pub busy: Vec<f64>,
    /// From the moment each request was meant to leave, in all turns together.
    pub latencies: Latencies,
    /// The same turn by turn.
    pub turns: Vec<Latencies>,
}

impl AtRate {
    /// Nothing yet.
    pub fn new(title: &'static str, rate: f64) -> Self {
        let latencies = Latencies::default();
        Self { title, rate, throughput: Vec::new(), busy: Vec::new(), latencies, turns: Vec::new() }
    }
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
    /// What a request costs inside the plugin, with all three controls.
    pub timed: Timed,
    /// What calls to the host cost in a loop.
    pub host_calls: Vec<HostCall>,
    /// The bounds.
    pub budgets: Vec<Budget>,
    /// The seed.
    pub seed: u64,
    /// How long it took.
    pub took: Duration,
}
