//! What a report is made from: acts, each performed twice, and what became of every request.

use std::time::Duration;

use crate::client::Latencies;

/// How one request ended, in the words of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The upstream answered 2xx within the client's patience.
    Served,
    /// Rejected by a rate limit.
    RateLimited,
    /// Rejected by an open circuit breaker.
    CircuitOpen,
    /// Rejected by the concurrency limit.
    Overloaded,
    /// Another status, a broken connection, or no answer in time.
    Failed,
}

/// Which clients a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// One of the many that keep to their rate.
    Crowd,
    /// The one that does not.
    Greedy,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When it was meant to leave, since the act began.
    pub intended: Duration,
    /// From then to its end.
    pub latency: Duration,
    /// Who sent it.
    pub group: Group,
    /// How it ended.
    pub fate: Fate,
}

/// The state of a circuit breaker, as its gauge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests are rejected.
    Open,
    /// Probes pass.
    HalfOpen,
}

/// How often a circuit breaker changed to each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transitions {
    /// To Open.
    pub open: u64,
    /// To HalfOpen.
    pub half_open: u64,
    /// To Closed.
    pub closed: u64,
}

/// One act, performed once.
#[derive(Debug, Clone, Default)]
pub struct Performance {
    /// Every request.
    pub samples: Vec<Sample>,
    /// The breaker's state at moments since the act began, in order; empty when there is no breaker.
    pub breaker: Vec<(Duration, BreakerState)>,
    /// What the breaker's counters say of the act.
    pub transitions: Transitions,
    /// How many requests reached the upstream while it was failing.
    pub reached_failing: usize,
}

/// A stretch of an act that is marked in the charts.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Its begin, in seconds since the act began.
    pub from: f64,
    /// Its end.
    pub to: f64,
    /// What happens then.
    pub label: String,
}

/// One figure of both runs, for people.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// What it is.
    pub label: String,
    /// Without Tidegate.
    pub without: String,
    /// With it.
    pub with: String,
}

/// One act and its two performances.
#[derive(Debug, Clone)]
pub struct Act {
    /// A few words.
    pub title: String,
    /// What happens in it.
    pub story: String,
    /// How long it lasts, in seconds.
    pub seconds: f64,
    /// What is marked.
    pub mark: Option<Mark>,
    /// Whether there is a greedy client.
    pub greedy: bool,
    /// Whether the breaker's state is shown.
    pub shows_breaker: bool,
    /// The control run.
    pub without: Performance,
    /// The run with the policy.
    pub with: Performance,
    /// One sentence with the measured figures.
    pub claim: String,
    /// The figures that matter in this act.
    pub comparisons: Vec<Comparison>,
}

/// Everything a page shows.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the acts are played in front of, in a sentence.
    pub setting: String,
    /// The acts, in order.
    pub acts: Vec<Act>,
    /// The policy, as it was written.
    pub policy: String,
    /// What the acts promise and did not show.
    pub missing: Vec<String>,
    /// How it was measured: names and values.
    pub method: Vec<(String, String)>,
}

/// What some requests add up to.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// All of them.
    pub sent: usize,
    /// Good answers.
    pub served: usize,
    /// Rejected by a rate limit.
    pub rate_limited: usize,
    /// Rejected by a breaker.
    pub circuit_open: usize,
    /// Rejected by a concurrency limit.
    pub overloaded: usize,
    /// Errors.
    pub failed: usize,
    latencies: Latencies,
    refusals: Latencies,
    seconds: f64,
}

impl Performance {
    /// The figures of a group over the whole act; none: of everybody.
    pub fn figures(&self, group: Option<Group>, seconds: f64) -> Figures {
        self.between(group, 0.0, seconds)
    }

    /// The figures of the requests meant to leave between two moments.
    pub fn between(&self, group: Option<Group>, from: f64, to: f64) -> Figures {
        let of_group = |sample: &&Sample| group.is_none_or(|group| sample.group == group);
        let inside = |sample: &&Sample| (from..to).contains(&sample.intended.as_secs_f64());
        Figures::of(self.samples.iter().filter(of_group).filter(inside), to - from)
    }
}

impl Figures {
    /// Adds up requests that were sent over so many seconds.
    pub fn of<'a>(samples: impl Iterator<Item = &'a Sample>, seconds: f64) -> Self {
        let mut figures = Self { seconds, ..Self::default() };
        for sample in samples {
            figures.sent += 1;
            if sample.fate != Fate::Served {
                figures.refusals.record(sample.latency);
            }
            match sample.fate {
                Fate::Served => {
                    figures.served += 1;
                    figures.latencies.record(sample.latency);
                }
                Fate::RateLimited => figures.rate_limited += 1,
                Fate::CircuitOpen => figures.circuit_open += 1,
                Fate::Overloaded => figures.overloaded += 1,
                Fate::Failed => figures.failed += 1,
            }
        }
        figures
    }

    /// All that were not rejected.
    pub fn admitted(&self) -> usize {
        self.sent - self.rejected()
    }

    /// All that were.
    pub fn rejected(&self) -> usize {
        self.rate_limited + self.circuit_open + self.overloaded
    }

    /// Good answers per second.
    pub fn goodput(&self) -> f64 {
        self.served as f64 / self.seconds
    }

    /// Good answers in percent of what was sent; 0 when nothing was.
    pub fn served_percent(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { 100.0 * self.served as f64 / self.sent as f64 }
    }

    /// A percentile of the good answers' latency, in milliseconds; none without a good answer.
    pub fn latency_ms(&self, percent: f64) -> Option<f64> {
        (self.served > 0).then(|| self.latencies.percentile(percent).as_secs_f64() * 1000.0)
    }

    /// A percentile of the time after which those that were not served knew, in milliseconds; none when all were served.
    pub fn refusal_ms(&self, percent: f64) -> Option<f64> {
        (self.refusals.count() > 0).then(|| self.refusals.percentile(percent).as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, latency_ms: u64, group: Group, fate: Fate) -> Sample {
        Sample { intended: Duration::from_millis(at_ms), latency: Duration::from_millis(latency_ms), group, fate }
    }

    #[test]
    fn figures_count_each_fate_once_and_take_latency_from_good_answers_only() {
        let samples = [
            sample(0, 10, Group::Crowd, Fate::Served),
            sample(500, 30, Group::Crowd, Fate::Served),
            sample(600, 900, Group::Crowd, Fate::Failed),
            sample(700, 1, Group::Greedy, Fate::RateLimited),
            sample(900, 1, Group::Greedy, Fate::Overloaded),
            sample(1500, 1, Group::Greedy, Fate::CircuitOpen),
        ];
        let performance = Performance { samples: samples.into(), ..Performance::default() };
        let all = performance.figures(None, 2.0);
        assert_eq!((all.sent, all.served, all.failed, all.rejected(), all.admitted()), (6, 2, 1, 3, 3));
        assert_eq!(all.goodput(), 1.0);
        assert_eq!(all.latency_ms(99.0).map(f64::round), Some(30.0));
        assert_eq!([50.0, 99.0].map(|percent| all.refusal_ms(percent).map(f64::round)), [Some(1.0), Some(900.0)]);
        let greedy = performance.between(Some(Group::Greedy), 0.0, 1.0);
        assert_eq!((greedy.sent, greedy.rate_limited, greedy.overloaded, greedy.circuit_open), (2, 1, 1, 0));
        assert_eq!((greedy.latency_ms(50.0), greedy.served_percent()), (None, 0.0));
    }
}
