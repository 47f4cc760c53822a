//! When the machine stood still: measured beside a load by requests that nobody queues or limits, through the same proxy to the
//! same upstream. What the machine took is not held against what is tested; nothing else is left out.

use std::ops::Range;
use std::time::Duration;

use tidegate_harness::client::{Call, Load, Outcome, Outcomes, Schedule};
use tidegate_harness::envoy::Listener;
use tidegate_harness::upstream::{Asked, Behaviour};

use crate::support::Rig;

/// The listener that is measured through, without a filter.
pub const PROBE: &str = "probe";
/// What a request takes that nobody is in the way of, at most: less is no stall.
pub const AT_ONCE: Duration = Duration::from_millis(5);
/// What is served within a moment of this length is served in time still.
pub const LONG: Duration = Duration::from_millis(50);
const EVERY_SECOND: f64 = 100.0;

/// The listener to measure through.
pub fn listener() -> Listener {
    Listener::new(PROBE)
}

/// What the upstream does with the probes: they do not stand in its queue.
pub fn script(asked: &Asked<'_>) -> Behaviour {
    if asked.path == "/probe" { Behaviour::respond(200).outside_model() } else { Behaviour::default() }
}

/// Times in which the machine stood still, since the load began: sorted, and none overlaps another.
#[derive(Debug, Default)]
pub struct Stalls(Vec<Range<Duration>>);

/// Measures for so long.
pub async fn probe(rig: &Rig, lasts: Duration) -> Outcomes {
    let probes = Load::new(rig.envoy.address(PROBE), Schedule::constant(EVERY_SECOND, lasts)).name("probe");
    probes.calls(|_, _| Call::get("/probe")).run().await
}

impl Stalls {
    /// What those of these requests had to wait for that took longer than this.
    pub fn longer_than(time: Duration, probes: &Outcomes) -> Self {
        let mut stalls: Vec<Range<Duration>> = Vec::new();
        for probe in probes.all.iter().filter(|probe| probe.latency > time) {
            let end = probe.intended + probe.latency;
            match stalls.last_mut() {
                Some(last) if probe.intended <= last.end => last.end = last.end.max(end),
                _ => stalls.push(probe.intended..end),
            }
        }
        Self(stalls)
    }

    /// How long of a time the machine stood still.
    pub fn within(&self, time: Range<Duration>) -> Duration {
        self.0.iter().map(|stall| stall.end.min(time.end).saturating_sub(stall.start.max(time.start))).sum()
    }

    /// A request's latency, less what the machine stood still meanwhile.
    pub fn latency(&self, outcome: &Outcome) -> Duration {
        outcome.latency - self.within(outcome.intended..outcome.intended + outcome.latency)
    }

    /// Whether one began, or was not over, so long before a moment.
    pub fn before(&self, moment: Duration, by: Duration) -> bool {
        self.0.iter().any(|stall| (stall.start..stall.end + by).contains(&moment))
    }
}
