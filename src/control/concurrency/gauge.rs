//! One concurrency limit: who may enter, and what the limit is.
//!
//! In-flight is one number that every worker adds to. A request takes its place first and looks second: when the
//! number it then reads is above its share of the limit it gives the place back and is rejected. Two workers can so
//! bump into one another at the last free place; who finds that place free again after giving way tries anew, a few
//! times. The limit is never passed, and a free place is not left empty while somebody asks for it.
//!
//! Beside it each worker keeps in a number of its own what it holds, so that others can take it back when its VM dies.

use crate::control::counted::{Beat, Counted, Name};
use crate::control::{Nanos, Random};
use crate::share::{ShareError, SharedState};

use super::gauges::Shares;
use super::limit::Algorithm;
use super::measured::Measured;
use super::{Ended, Settings, Share};

/// How often a request tries for a place that it found free after giving way, or that the limit was raised for. Workers
/// are few and the window is two host calls wide, so a second collision is rare; from 1 by halves to a million are 35
/// raises, and each lets other requests in too.
const ATTEMPTS: u32 = 40;

/// One concurrency limit, as one worker sees it.
#[derive(Debug)]
pub(super) struct Gauge {
    inflight: Counted,
    fixed: Option<u32>,
    /// Requests differ in importance: the most important are spared when the limit is lowered for a moment.
    levels: bool,
    measured: Option<Measured>,
}

impl Gauge {
    /// Opens the limit of those whose number in flight has this name.
    pub fn open(
        Settings { algorithm, levels, .. }: Settings,
        share: &dyn SharedState,
        inflight: Name,
        measured: Option<Measured>,
    ) -> Result<Self, ShareError> {
        let fixed = match algorithm {
            Algorithm::Fixed(limit) => Some(limit.max(1)),
            _ => None,
        };
        let total = inflight.to_string();
        let inflight = Counted::open(share, inflight, &total)?;
        Ok(Self { inflight, fixed, levels, measured })
    }

    /// What is seen is so elsewhere from now on.
    pub fn measure_with(&mut self, measured: Measured) {
        self.measured = Some(measured);
    }

    /// Takes a place, or none when its share of the limit is taken.
    pub fn acquire(
        &mut self,
        shares: Shares<'_>,
        level: Share,
        worker: u32,
        now: Nanos,
        random: &mut dyn Random,
    ) -> Result<bool, ShareError> {
        if let Some(measured) = &mut self.measured {
            measured.look(shares.found, || self.inflight.total(shares.all), now, random)?;
        }
        for _ in 0..ATTEMPTS {
            let limit = self.limit_for(level);
            let next = match self.inflight.enter(shares.all, worker, |inflight| level.admits(limit, inflight))? {
                Ok(inflight) => {
                    if let Some(measured) = &mut self.measured {
                        measured.peak = measured.peak.max(inflight);
                    }
                    return Ok(true);
                }
                Err(next) => next,
            };
            if level.admits(limit, next) {
                continue;
            }
            let Some(measured) = &mut self.measured else { return Ok(false) };
            if !measured.raised(shares.found, next, now)? {
                measured.refused(shares.found);
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// A request has to wait because others are ahead of it. If there is no place for it either it tells what one does that
    /// tried: the limit is raised, or has proved too low.
    pub fn waits(
        &mut self,
        shares: Shares<'_>,
        level: Share,
        now: Nanos,
        random: &mut dyn Random,
    ) -> Result<(), ShareError> {
        if self.measured.is_none() || self.free(shares, (level, 1), now, random)?.is_some() {
            return Ok(());
        }
        let Some(measured) = &mut self.measured else { return Ok(()) };
        if !measured.raised(shares.found, self.inflight.total(shares.all).saturating_add(1), now)? {
            measured.refused(shares.found);
        }
        Ok(())
    }

    /// Whether so many places seem free, without taking them; then how many are taken. What may be taken by another in the next
    /// moment is asked for in this way again and again by those who wait, and costs one read.
    pub fn free(
        &mut self,
        shares: Shares<'_>,
        (level, places): (Share, i64),
        now: Nanos,
        random: &mut dyn Random,
    ) -> Result<Option<i64>, ShareError> {
        if let Some(measured) = &mut self.measured {
            measured.look(shares.found, || self.inflight.total(shares.all), now, random)?;
        }
        let inflight = self.inflight.total(shares.all);
        let admits = level.admits(self.limit_for(level), inflight.saturating_add(places));
        Ok(admits.then_some(inflight))
    }

    /// Gives a place back, and tells how its request ended and how long it took.
    pub fn release(
        &mut self,
        shares: Shares<'_>,
        ended: Ended,
        took: Nanos,
        now: Nanos,
        random: &mut dyn Random,
    ) -> Result<(), ShareError> {
        self.inflight.leave(shares.all);
        let Some(measured) = &mut self.measured else { return Ok(()) };
        measured.sample(shares.found, ended, took, now);
        measured.look(shares.found, || self.inflight.total(shares.all), now, random)
    }

    /// What time alone changes.
    pub fn tick(&mut self, shares: Shares<'_>, now: Nanos, random: &mut dyn Random) -> Result<(), ShareError> {
        let Some(measured) = &mut self.measured else { return Ok(()) };
        measured.flush(shares.found);
        measured.look(shares.found, || self.inflight.total(shares.all), now, random)
    }

    fn limit_for(&self, level: Share) -> u32 {
        match &self.measured {
            Some(measured) if self.fixed.is_none() && self.levels && level == Share::ALL => {
                measured.spared.max(measured.limit)
            }
            _ => self.limit(),
        }
    }

    /// The present limit.
    pub fn limit(&self) -> u32 {
        self.fixed.or(self.measured.as_ref().map(|measured| measured.limit)).unwrap_or(u32::MAX)
    }

    /// Requests in flight, over all workers.
    pub fn inflight(&self, share: &dyn SharedState) -> i64 {
        self.inflight.total(share)
    }

    /// Mean latency of late.
    pub fn usual(&self) -> Option<Nanos> {
        self.measured.as_ref().map(Measured::latency).filter(|latency| *latency > 0)
    }

    /// Whether a request is to be let through since nothing tells how long requests take now: see [`Measured::tries`].
    pub fn tries(&mut self, now: Nanos) -> bool {
        self.measured.as_mut().is_some_and(|measured| measured.tries(now))
    }

    /// Takes back what dead workers held, and counts anew what this one holds if it was taken for dead.
    /// By how much in-flight changed.
    pub fn heed(&mut self, share: &dyn SharedState, beat: &Beat) -> Result<i64, ShareError> {
        self.inflight.heed(share, beat)
    }
}
