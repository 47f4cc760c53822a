//! Concurrency limits: so many requests in flight at once, over all workers; one limit, or one for each key
//! (bulkheads).
//!
//! Three things are kept apart: *enforcement* and *measurement* (who may enter, and what is seen of those that did)
//! and the *algorithm* that makes a limit of what is seen ([`Limit`]): fixed, [`aimd`], [`vegas`], [`gradient2`], or
//! [`adaptive`].
//!
//! A level of less importance has a *share*: it enters only while in-flight is below that share of the limit, so that
//! the most important one is the last to go.
//!
//! A place is held until it is released; whoever takes one must release it exactly once, however its request ends.
//! What a worker held whose VM died is taken back by the others some seconds later, at their
//! [`tick`](ConcurrencyLimits::tick).
//!
//! Limits: of more than `max_keys` keys, those first seen last share one limit, for as long as the proxy runs.

pub mod adaptive;
pub mod aimd;
mod gauge;
mod gauges;
pub mod gradient2;
pub mod limit;
mod measured;
mod record;
pub mod vegas;

#[cfg(test)]
mod fixtures;

use self::gauge::Gauge;
use self::gauges::Gauges;
use super::counted::Beat;
use super::directory::Directory;
use super::workers::Workers;
use super::{Nanos, Random};
use crate::share::{ShareError, SharedState};

pub use self::limit::{Algorithm, Bounds, Limit, Window};

/// Windows of the published algorithms (Netflix concurrency-limits, `WindowedLimit`).
const WINDOW: Nanos = 1_000_000_000;

/// The most limits one policy may have.
pub const MAX_KEYS: u32 = 65_536;

/// A level's share of the limit, in ten-thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u16);

impl Share {
    /// The whole limit.
    pub const ALL: Self = Self(10_000);

    /// Whether a request may stay that has taken a place and then read this many in flight, itself included.
    fn admits(self, limit: u32, inflight: i64) -> bool {
        // Nobody has 2^49 requests in flight; saturated, the comparison still says no.
        inflight.saturating_sub(1).saturating_mul(10_000) < i64::from(limit).saturating_mul(i64::from(self.0))
    }
}

/// How a request ended, as far as it tells of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Work was done: its time counts.
    Success,
    /// It failed. Its time counts if it took as long as work does.
    Failure,
    /// The upstream refused it for overload, or it timed out. As a failure, and a sign of overload for [`aimd`]
    /// and [`vegas`].
    Dropped,
    /// The client gave up before it was answered: it tells nothing of how long work takes.
    Left,
    /// It was a tunnel, the client left an answer, another control or filter answered: it tells nothing.
    Ignored,
}

/// Which limit of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotId(pub u32);

impl SlotId {
    /// The limit of a policy without a key.
    pub const ONLY: Self = Self(0);
}

/// What a policy's limits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How they are found.
    pub algorithm: Algorithm,
    /// One for each key, at most so many, and one more for the others; 0 is one limit without a key.
    pub max_keys: u32,
    /// Measure latency under a fixed limit too, for [`ConcurrencyLimits::usual_latency`].
    pub measure: bool,
    /// Not all requests have the whole share: those that have are spared when the limit is lowered for a moment.
    pub levels: bool,
}

impl Settings {
    fn bounded(self) -> Self {
        Self { max_keys: self.max_keys.min(MAX_KEYS), ..self }
    }
}

/// A place in flight. It must go back through [`ConcurrencyLimits::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place that is not released is lost"]
pub struct Place(SlotId);

impl Place {
    /// The limit it belongs to.
    pub fn slot(&self) -> SlotId {
        self.0
    }
}

/// The concurrency limits of one policy, as one worker sees them.
#[derive(Debug)]
pub struct ConcurrencyLimits {
    gauges: Gauges,
    directory: Option<Directory>,
    /// Who holds places. Under the name of the number in flight, as keys are: what a worker holds that dies is taken back by
    /// workers whose limits have other settings by then.
    holders: Workers,
    errors: u64,
    corrected: i64,
    /// A key has come for which there was no limit of its own; and that was told, if not by this worker.
    overflow: (bool, bool),
}

impl ConcurrencyLimits {
    /// Opens the limits of this name. At configure time: it creates their shared pages, one of 4 KiB, and where
    /// limits are measured one a key of about 200 bytes. `inflight` names what is in flight, which limits with different
    /// settings may share that have the same keys.
    ///
    /// # Errors
    /// [`ShareError`] where numbers or pages are not shared; open them in [`crate::share::Memory`] then, per worker.
    pub fn new(settings: Settings, share: &dyn SharedState, name: &str, inflight: &str) -> Result<Self, ShareError> {
        let gauges = Gauges::new(settings.bounded(), share, name, inflight)?;
        Self::with(gauges, share, inflight)
    }

    /// The same where settings change and the host never forgets a name: those with the same `owner`, a digest of the settings,
    /// find limits together, and others of the same number in flight have a place of their own. A place that nobody uses any
    /// more is used again. [`tick`](Self::tick) tells that this one is in use.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn reusing(
        settings: Settings,
        share: &dyn SharedState,
        inflight: &str,
        owner: u64,
        now: Nanos,
    ) -> Result<Self, ShareError> {
        let place = format!("{inflight}/limits");
        let gauges = Gauges::reusing(settings.bounded(), share, (place, owner), inflight, now)?;
        Self::with(gauges, share, inflight)
    }

    fn with(gauges: Gauges, share: &dyn SharedState, inflight: &str) -> Result<Self, ShareError> {
        let max_keys = gauges.settings.max_keys;
        let directory = if max_keys > 0 { Some(Directory::open(share, inflight, max_keys, 0)?) } else { None };
        let holders = Workers::open(share, inflight)?;
        let mut limits = Self { gauges, directory, holders, errors: 0, corrected: 0, overflow: (false, false) };
        if max_keys == 0 {
            limits.gauges.open(share, SlotId::ONLY)?;
        }
        Ok(limits)
    }

    /// How many bytes limits of these settings take at most, in each worker, once all keys have been seen there.
    pub fn bytes(settings: Settings) -> u64 {
        let settings = settings.bounded();
        // Keys are 65 536 at most: neither comes near 2^64.
        let keys = Directory::KEY_BYTES.saturating_mul(settings.max_keys.into());
        Gauges::bytes(settings).saturating_add(keys)
    }

    /// How many keys have limits of their own, if more than these have come and nobody has said so. One worker is told, of
    /// two that ask in the same moment both.
    pub fn take_overflow(&mut self, share: &dyn SharedState) -> Option<u32> {
        let (true, false) = self.overflow else { return None };
        self.overflow.1 = true;
        let told = share.cell(&format!("{}.overflow", self.gauges.inflight())).map_or(0, |times| {
            let told = share.read(times);
            share.add(times, 1);
            told
        });
        (told == 0).then_some(self.gauges.settings.max_keys)
    }

    /// Whether there is one for each key.
    pub fn is_keyed(&self) -> bool {
        self.directory.is_some()
    }

    /// The name of the place that these limits have now, for what goes with them.
    pub fn place(&self) -> String {
        self.gauges.place()
    }

    /// Nobody on this worker uses them any more.
    pub fn release_place(&self, share: &dyn SharedState, now: Nanos) {
        self.gauges.release(share, now);
    }

    /// Whether each worker finds limits by itself, if that has changed since this was last asked.
    pub fn take_news(&mut self) -> Option<bool> {
        self.gauges.take_news()
    }

    /// The limit of a key, by the key's hash (keyed, so that nobody can choose two keys of one hash). A known key costs
    /// no host call.
    pub fn slot(&mut self, share: &dyn SharedState, key_hash: u64) -> SlotId {
        let Some(directory) = &mut self.directory else { return SlotId::ONLY };
        match directory.slot(share, key_hash) {
            Ok(slot) => {
                self.overflow.0 |= slot >= self.gauges.settings.max_keys;
                SlotId(slot)
            }
            Err(_) => {
                self.errors = self.errors.saturating_add(1);
                SlotId(self.gauges.settings.max_keys)
            }
        }
    }

    /// Takes a place, or none when the level's share of the limit is taken. Where shared state fails the request has
    /// its place, uncounted.
    pub fn acquire(
        &mut self,
        share: &dyn SharedState,
        slot: SlotId,
        level: Share,
        now: Nanos,
        random: &mut dyn Random,
    ) -> Option<Place> {
        let worker = self.holders.own(share, random);
        let mut acquire = |gauges: &mut Gauges, worker| {
            let (gauge, shares) = gauges.open(share, slot)?;
            gauge.acquire(shares, level, worker, now, random)
        };
        let mut admitted = worker.and_then(|worker| acquire(&mut self.gauges, worker));
        // Its pages may be another's by now.
        if admitted.is_err() && self.gauges.recover(share, now) {
            admitted = worker.and_then(|worker| acquire(&mut self.gauges, worker));
        }
        match admitted {
            Ok(true) => Some(Place(slot)),
            Ok(false) => None,
            Err(_) => {
                self.errors = self.errors.saturating_add(1);
                Some(Place(UNCOUNTED))
            }
        }
    }

    /// Whether so many places seem free for a level, without taking them; then how many are taken. For those who wait for one.
    pub fn free(
        &mut self,
        share: &dyn SharedState,
        slot: SlotId,
        (level, places): (Share, i64),
        now: Nanos,
        random: &mut dyn Random,
    ) -> Option<i64> {
        // Where shared state fails, taking a place does too, and is what counts the error.
        let gauge = self.gauges.open(share, slot);
        let free = gauge.and_then(|(gauge, shares)| gauge.free(shares, (level, places), now, random));
        free.unwrap_or(Some(0))
    }

    /// A request of a level does not ask for a place, since others go before it: a limit that is found learns of it as of one
    /// that asked, or it would stay where it was for as long as somebody waits.
    pub fn waits(&mut self, share: &dyn SharedState, slot: SlotId, level: Share, now: Nanos, random: &mut dyn Random) {
        let gauge = self.gauges.open(share, slot);
        if gauge.and_then(|(gauge, shares)| gauge.waits(shares, level, now, random)).is_err() {
            self.errors = self.errors.saturating_add(1);
        }
    }

    /// Gives a place back, and tells how its request ended and how long it was in flight.
    pub fn release(
        &mut self,
        share: &dyn SharedState,
        place: Place,
        ended: Ended,
        took: Nanos,
        now: Nanos,
        random: &mut dyn Random,
    ) {
        if let Some((gauge, shares)) = self.gauges.seen(share, place.0)
            && gauge.release(shares, ended, took, now, random).is_err()
        {
            self.errors = self.errors.saturating_add(1);
        }
    }

    /// What time alone changes: samples are handed on, windows end, what dead workers held is taken back. To be called
    /// every half second or more often, by every worker, also by one without traffic.
    pub fn tick(&mut self, share: &dyn SharedState, now: Nanos, random: &mut dyn Random) {
        let kept = self.gauges.keep(share, now);
        let (gauges, shares) = self.gauges.each(share);
        let failed = gauges.map(|gauge| gauge.tick(shares, now, random)).filter(Result::is_err).count();
        let holding = self.holders.beat(share, now, random).and_then(|beat| self.heed(share, &beat));
        for failed in [u64::try_from(failed).unwrap_or(u64::MAX), u64::from(kept.is_err()), u64::from(holding.is_err())]
        {
            self.errors = self.errors.saturating_add(failed);
        }
    }

    /// Corrects what is in flight by what a heartbeat found. On an error the next one finds the same.
    fn heed(&mut self, share: &dyn SharedState, beat: &Beat) -> Result<(), ShareError> {
        if !beat.dead.is_empty() {
            // The dead may have held places of limits this worker has not seen.
            for slot in self.slots(share)? {
                self.gauges.open(share, slot)?;
            }
        }
        if *beat != Beat::default() {
            for gauge in self.gauges.each(share).0 {
                self.corrected = self.corrected.saturating_add(gauge.heed(share, beat)?);
            }
            self.holders.heeded(beat);
        }
        Ok(())
    }

    /// The limits that any worker has seen.
    ///
    /// # Errors
    /// Those of the shared pages that hold the keys.
    pub fn slots(&mut self, share: &dyn SharedState) -> Result<impl Iterator<Item = SlotId> + use<>, ShareError> {
        let keys = match &mut self.directory {
            None => 0,
            Some(directory) => directory.taken(share)?,
        };
        Ok((0..keys).chain([self.gauges.settings.max_keys]).map(SlotId))
    }

    /// The lowest of the present limits this worker has seen; what they begin with before it has seen any.
    pub fn lowest(&self) -> u32 {
        let limits = self.gauges.iter().map(Gauge::limit);
        limits.min().unwrap_or_else(|| self.gauges.settings.algorithm.initial())
    }

    /// The present limit.
    pub fn limit(&self, slot: SlotId) -> u32 {
        self.gauges.get(slot).map_or(0, Gauge::limit)
    }

    /// Requests in flight, over all workers and all limits this worker has seen.
    pub fn inflight(&self, share: &dyn SharedState) -> i64 {
        self.gauges.iter().map(|gauge| gauge.inflight(share)).fold(0, i64::saturating_add)
    }

    /// How long requests took lately, over all workers; `None` before anything was measured.
    pub fn usual_latency(&self, slot: SlotId) -> Option<Nanos> {
        self.gauges.get(slot)?.usual()
    }

    /// Whether a request that would be refused for [`usual_latency`](Self::usual_latency) is to be let through, since nothing
    /// has been measured lately: one a second at each worker.
    pub fn tries(&mut self, slot: SlotId, now: Nanos) -> bool {
        self.gauges.get_mut(slot).is_some_and(|gauge| gauge.tries(now))
    }

    /// How often shared state failed since the last time this was asked.
    pub fn take_errors(&mut self) -> u64 {
        std::mem::take(&mut self.errors).saturating_add(self.gauges.take_missed())
    }

    /// By how much in-flight was changed for workers' deaths since the last time this was asked.
    pub fn take_corrected(&mut self) -> i64 {
        std::mem::take(&mut self.corrected)
    }
}

/// The slot of a place that was given while shared state failed.
const UNCOUNTED: SlotId = SlotId(u32::MAX);
