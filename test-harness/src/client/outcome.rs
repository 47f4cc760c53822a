//! What became of each request of a load, and what they add up to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use hyper::HeaderMap;

use super::reason::Reason;

/// One request of a load.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its place in the schedule.
    pub index: usize,
    /// What tells it from every other request of the run.
    pub id: String,
    /// When it was meant to leave, since the load began.
    pub intended: Duration,
    /// When it was taken up.
    pub sent: Duration,
    /// From the intended moment to the end.
    pub latency: Duration,
    /// How it ended.
    pub ending: Ending,
    /// The response's headers.
    pub headers: HeaderMap,
}

/// How a request ended, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The upstream answered, with this status.
    Answered(u16),
    /// Tidegate rejected it.
    Rejected {
        /// The status of the rejection.
        status: u16,
        /// What Tidegate says of it.
        reason: Reason,
    },
    /// The proxy itself answered, with this status, and it was not Tidegate: a timeout, a dead upstream, another filter.
    Local(u16),
    /// The client went away, with the status it had seen by then.
    Cancelled(Option<u16>),
    /// There was no answer, or half of one.
    Errored(String),
}

/// Everything that became of a load.
#[derive(Debug, Clone)]
pub struct Outcomes {
    /// The load's name.
    pub name: String,
    /// The seed that makes the same load again.
    pub seed: u64,
    /// One entry per request, in the order of the schedule.
    pub all: Vec<Outcome>,
}

/// How many requests ended how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub sent: usize,
    /// Answered by the upstream, by status.
    pub answered: BTreeMap<u16, usize>,
    /// Rejected by Tidegate, by reason.
    pub rejected: BTreeMap<Reason, usize>,
    /// Answered by another part of the proxy, by status.
    pub local: BTreeMap<u16, usize>,
    /// Given up by the client.
    pub cancelled: usize,
    /// Without an answer.
    pub errored: usize,
}

// === impl Outcomes ===

impl Outcomes {
    /// Counts them by ending.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.all.iter().for_each(|outcome| tally.count(&outcome.ending));
        tally
    }

    /// The latencies, in microseconds, of the requests `chosen` holds for.
    pub fn latencies(&self, chosen: impl Fn(&Outcome) -> bool) -> Latencies {
        let mut latencies = Latencies::default();
        self.all.iter().filter(|outcome| chosen(outcome)).for_each(|outcome| latencies.record(outcome.latency));
        latencies
    }

    /// Good answers (2xx by the upstream) per second of each interval, by the moment they arrived; for charts.
    pub fn goodput(&self, interval: Duration) -> Vec<f64> {
        self.per_second(interval, |outcome| matches!(outcome.ending, Ending::Answered(200..=299)))
    }

    /// The requests `chosen` holds for, per second of each interval, by the moment they ended.
    pub fn per_second(&self, interval: Duration, chosen: impl Fn(&Outcome) -> bool) -> Vec<f64> {
        let mut counts = Vec::new();
        for outcome in self.all.iter().filter(|outcome| chosen(outcome)) {
            let slot = ((outcome.intended + outcome.latency).as_secs_f64() / interval.as_secs_f64()) as usize;
            counts.resize(counts.len().max(slot + 1), 0.0);
            counts[slot] += 1.0 / interval.as_secs_f64();
        }
        counts
    }
}

// === impl Outcome ===

impl Outcome {
    /// A response header's first value, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

// === impl Tally ===

impl Tally {
    /// Adds one ending.
    pub fn count(&mut self, ending: &Ending) {
        self.sent += 1;
        match ending {
            Ending::Answered(status) => *self.answered.entry(*status).or_default() += 1,
            Ending::Rejected { reason, .. } => *self.rejected.entry(reason.clone()).or_default() += 1,
            Ending::Local(status) => *self.local.entry(*status).or_default() += 1,
            Ending::Cancelled(_) => self.cancelled += 1,
            Ending::Errored(_) => self.errored += 1,
        }
    }

    /// All the upstream answered.
    pub fn admitted(&self) -> usize {
        self.answered.values().sum()
    }

    /// All Tidegate rejected.
    pub fn rejections(&self) -> usize {
        self.rejected.values().sum()
    }

    /// All a policy rejected for this reason.
    pub fn rejected_by(&self, policy: &str, decision: &str) -> usize {
        let of_policy = |reason: &Reason| reason.policy.as_deref() == Some(policy) && reason.decision == decision;
        self.rejected.iter().filter(|(reason, _)| of_policy(reason)).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sent {}", self.sent)?;
        for (status, count) in &self.answered {
            writeln!(f, "  answered {status}: {count}")?;
        }
        for (reason, count) in &self.rejected {
            writeln!(f, "  rejected {reason}: {count}")?;
        }
        for (status, count) in &self.local {
            writeln!(f, "  answered {status} by the proxy itself: {count}")?;
        }
        write!(f, "  cancelled: {}\n  errored: {}", self.cancelled, self.errored)
    }
}

// === latencies ===

/// A histogram of latencies, to three significant figures.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        // The only other errors are those of bounds, which growing ones do not have.
        Self(Histogram::new(3).expect("three figures are within what a histogram can hold"))
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        // The histogram grows with what it is given, so nothing is out of its range.
        let _ = self.0.record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// The latency that this share of requests, in percent, stays below.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        let (count, max) = (self.count(), ms(100.0));
        write!(
            f,
            "p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {max:.1} ms over {count}",
            ms(50.0),
            ms(99.0),
            ms(99.9)
        )
    }
}
