//! When the machine stood still: measured beside a load by requests that nobody queues or limits, to the same upstream but through
//! an Envoy of their own, of as many workers. A filter that keeps its worker busy makes its own requests late, not these. What the
//! machine took is not held against what is tested, up to a bound: beyond it nothing is excused.

use std::ops::Range;
use std::time::Duration;

use tidegate_harness::client::{Call, Load, Outcome, Outcomes, Schedule};
use tidegate_harness::envoy::{Cluster, Envoy, Listener};
use tidegate_harness::upstream::{Asked, Behaviour};

use crate::support::Rig;

/// What a request takes that nobody is in the way of, at most: less is no stall.
pub const AT_ONCE: Duration = Duration::from_millis(5);
/// What is served within a moment of this length is served in time still.
pub const LONG: Duration = Duration::from_millis(50);
/// How much of a time is not asked for at most where the machine stood still, as a share.
pub const MOST: f64 = 0.2;
/// In how much of a time latencies and rejections are excused at most, as a share: in more nothing is.
pub const MOST_FELT: f64 = 0.5;
const EVERY_SECOND: f64 = 100.0;

/// What is measured through: an Envoy without a filter.
pub struct Bystander {
    envoy: Envoy,
    workers: u32,
}

impl Bystander {
    /// Beside the Envoy that is tested, before the same upstream.
    pub async fn beside(rig: &Rig) -> Self {
        let (workers, upstream) = (rig.envoy.workers(), rig.upstream.address());
        let builder = Envoy::builder().concurrency(workers).cluster(Cluster::new("upstream", upstream));
        let envoy = builder.listener(Listener::new("probe").balanced()).start().await.unwrap();
        Self { envoy, workers }
    }

    /// Measures for so long, at each worker in turn.
    pub async fn probe(&self, lasts: Duration) -> Outcomes {
        let probes = Load::new(self.envoy.listener(), Schedule::constant(EVERY_SECOND, lasts)).name("probe");
        probes.http2(self.workers as usize).calls(|_, _| Call::get("/probe")).run().await
    }
}

/// What the upstream does with the probes: they do not stand in its queue.
pub fn script(asked: &Asked<'_>) -> Behaviour {
    if asked.path == "/probe" { Behaviour::respond(200).outside_model() } else { Behaviour::default() }
}

/// Times in which the machine stood still, since the load began: sorted, and none overlaps another.
#[derive(Debug, Clone, Default)]
pub struct Stalls(Vec<Range<Duration>>);

impl Stalls {
    /// What those of these requests had to wait for that took longer than this.
    pub fn longer_than(time: Duration, probes: &Outcomes) -> Self {
        let late = probes.all.iter().filter(|probe| probe.latency > time);
        Self::of(late.map(|probe| probe.intended..probe.intended + probe.latency))
    }

    /// Times that begin one after the other.
    fn of(times: impl Iterator<Item = Range<Duration>>) -> Self {
        let mut stalls: Vec<Range<Duration>> = Vec::new();
        for time in times {
            match stalls.last_mut() {
                Some(last) if time.start <= last.end => last.end = last.end.max(time.end),
                _ => stalls.push(time),
            }
        }
        Self(stalls)
    }

    /// The same, each with the time after it in which it is still felt.
    pub fn felt_for(&self, after: Duration) -> Self {
        Self::of(self.0.iter().map(|stall| stall.start..stall.end + after))
    }

    /// How long of a time the machine stood still.
    pub fn within(&self, time: Range<Duration>) -> Duration {
        self.0.iter().map(|stall| stall.end.min(time.end).saturating_sub(stall.start.max(time.start))).sum()
    }

    /// How much of a time it stood still, as a share.
    pub fn share(&self, time: Range<Duration>) -> f64 {
        self.within(time.clone()).as_secs_f64() / (time.end - time.start).as_secs_f64()
    }

    /// A request's latency, less what the machine stood still meanwhile.
    pub fn latency(&self, outcome: &Outcome) -> Duration {
        outcome.latency - self.within(outcome.intended..outcome.intended + outcome.latency)
    }

    /// Whether it stood still at a moment.
    pub fn contain(&self, moment: Duration) -> bool {
        self.0.iter().any(|stall| stall.contains(&moment))
    }

    /// The same, or none where it would excuse more of a time than this share.
    pub fn unless_beyond(self, most: f64, time: Range<Duration>) -> Self {
        if self.share(time) > most { Self::default() } else { self }
    }
}
