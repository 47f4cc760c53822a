//! What is played: rates over time, and when the upstream fails.

use std::time::Duration;

use crate::client::Schedule;
use crate::upstream::Model;

/// How many well-behaved clients share the load.
pub(super) const CLIENTS: usize = 50;
/// How long a client waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long a failing upstream takes to say so, beyond its service time.
pub(super) const FAILING_DELAY: Duration = Duration::from_millis(150);

/// The upstream of all acts: 500 requests per second, and like most servers it does not notice that a client has gone.
pub(super) fn upstream() -> Model {
    Model { serves_the_gone: true, ..Model::new(10, Duration::from_millis(20)) }
}

/// One act.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) key: Key,
    pub(super) title: &'static str,
    pub(super) story: &'static str,
    pub(super) phases: &'static [Phase],
    /// The phase that makes the act, and what its mark says.
    pub(super) trouble: Option<(usize, &'static str)>,
}

/// Which act it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Baseline,
    Greedy,
    Failing,
    Overload,
}

/// Constant rates for a time.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) seconds: u32,
    /// Requests per second of all well-behaved clients together.
    pub(super) crowd: f64,
    /// Requests per second of the greedy client.
    pub(super) greedy: f64,
}

const fn phase(seconds: u32, crowd: f64, greedy: f64) -> Phase {
    Phase { seconds, crowd, greedy }
}

/// The programme.
pub(super) const SCRIPTS: [Script; 4] = [
    Script {
        key: Key::Baseline,
        title: "Baseline",
        story: "50 clients send 200 requests a second to an upstream that can serve 500. Nothing is wrong, so nothing \
                should change.",
        phases: &[phase(5, 200.0, 0.0)],
        trouble: None,
    },
    Script {
        key: Key::Greedy,
        title: "A greedy client",
        story: "One more client joins for four seconds and sends 600 requests a second by itself. Together that is more than \
                the upstream can serve.",
        phases: &[phase(2, 200.0, 0.0), phase(4, 200.0, 600.0), phase(2, 200.0, 0.0)],
        trouble: Some((1, "greedy client")),
    },
    Script {
        key: Key::Failing,
        title: "A failing upstream",
        story: "For four seconds the upstream answers every request with 503, and takes its time to do so. Then it is well \
                again.",
        phases: &[phase(2, 200.0, 0.0), phase(4, 200.0, 0.0), phase(4, 200.0, 0.0)],
        trouble: Some((1, "upstream fails")),
    },
    Script {
        key: Key::Overload,
        title: "Overload",
        story: "For four seconds all clients together send 1000 requests a second, twice what the upstream can serve. Nobody \
                is greedy: each keeps to its rate. A client waits one second for an answer; the upstream goes on \
                working for those who have left.",
        phases: &[phase(2, 200.0, 0.0), phase(4, 1000.0, 0.0), phase(4, 200.0, 0.0)],
        trouble: Some((1, "1000 requests/s")),
    },
];

impl Script {
    /// How long the act lasts, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.phases.iter().map(|phase| f64::from(phase.seconds)).sum()
    }

    /// When the trouble begins and ends, in seconds; the whole act when there is none.
    pub(super) fn trouble(&self) -> (f64, f64) {
        let Some((index, _)) = self.trouble else { return (0.0, self.seconds()) };
        let before = self.phases.iter().take(index).map(|phase| f64::from(phase.seconds)).sum();
        let lasts = self.phases.get(index).map_or(0.0, |phase| f64::from(phase.seconds));
        (before, before + lasts)
    }

    /// Whether there is a greedy client.
    pub(super) fn greedy(&self) -> bool {
        self.phases.iter().any(|phase| phase.greedy > 0.0)
    }

    /// When the requests are sent whose rate `rate` gives.
    pub(super) fn schedule(&self, rate: impl Fn(&Phase) -> f64) -> Schedule {
        let then = |schedule: Schedule, phase: &Phase| {
            schedule.then(rate(phase), Duration::from_secs(u64::from(phase.seconds)))
        };
        self.phases.iter().fold(Schedule::default(), then).jitter(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trouble_of_every_act_lies_within_it() {
        for script in &SCRIPTS {
            let (from, to) = script.trouble();
            assert!(0.0 <= from && from < to && to <= script.seconds(), "{script:?}");
        }
    }

    #[test]
    fn only_the_acts_about_too_much_load_send_more_than_the_upstream_carries() {
        for script in &SCRIPTS {
            let most = script.phases.iter().map(|phase| phase.crowd + phase.greedy).fold(0.0, f64::max);
            let too_much = matches!(script.key, Key::Greedy | Key::Overload);
            assert_eq!(most > upstream().capacity(), too_much, "{script:?}");
        }
    }
}
