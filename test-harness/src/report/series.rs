//! Requests taken together in equal intervals of time, for charts.

use std::time::Duration;

use super::model::{Fate, Group, Sample};
use crate::client::Latencies;

/// The width of an interval, in seconds.
pub const INTERVAL: f64 = 0.25;

/// What requests of one interval became, per second, by the moment they were meant to leave: their sum is the offered load.
pub fn per_second(samples: &[Sample], seconds: f64, chosen: impl Fn(&Sample) -> bool) -> Vec<f64> {
    let mut counts = vec![0.0; intervals(seconds)];
    for sample in samples.iter().filter(|sample| chosen(sample)) {
        if let Some(count) = counts.get_mut(interval(sample.intended)) {
            *count += 1.0 / INTERVAL;
        }
    }
    counts
}

/// A percentile of the latency, in milliseconds, of a group's requests served in each interval; none where there were none.
pub fn latency(samples: &[Sample], seconds: f64, group: Group, percent: f64) -> Vec<Option<f64>> {
    let mut all = vec![Latencies::default(); intervals(seconds)];
    for sample in samples.iter().filter(|sample| sample.fate == Fate::Served && sample.group == group) {
        if let Some(latencies) = all.get_mut(interval(sample.intended)) {
            latencies.record(sample.latency);
        }
    }
    let value = |latencies: &Latencies| latencies.percentile(percent).as_secs_f64() * 1000.0;
    all.iter().map(|latencies| (latencies.count() > 0).then(|| value(latencies))).collect()
}

fn intervals(seconds: f64) -> usize {
    (seconds / INTERVAL).round() as usize
}

fn interval(at: Duration) -> usize {
    (at.as_secs_f64() / INTERVAL) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(at_ms: u64, latency_ms: u64) -> Sample {
        let (intended, latency) = (Duration::from_millis(at_ms), Duration::from_millis(latency_ms));
        Sample { intended, latency, group: Group::Crowd, fate: Fate::Served }
    }

    #[test]
    fn a_request_counts_in_the_interval_it_was_meant_to_leave_in() {
        let samples = [served(0, 900), served(249, 1), served(250, 1), served(999, 1), served(1000, 1)];
        assert_eq!(per_second(&samples, 1.0, |_| true), [8.0, 4.0, 0.0, 4.0]);
        assert_eq!(per_second(&samples, 1.0, |sample| sample.fate == Fate::Failed), [0.0; 4]);
    }

    #[test]
    fn an_interval_in_which_nothing_was_served_has_no_latency() {
        let samples = [served(0, 10), served(10, 20), served(800, 40)];
        let p99: Vec<_> = latency(&samples, 1.0, Group::Crowd, 99.0).iter().map(|ms| ms.map(f64::round)).collect();
        assert_eq!(p99, [Some(20.0), None, None, Some(40.0)]);
        assert_eq!(latency(&samples, 1.0, Group::Greedy, 99.0), [None; 4]);
    }
}
