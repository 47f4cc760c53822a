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
pub mod gradient2;
pub mod limit;
mod measured;
pub mod vegas;

#[cfg(test)]
mod fixtures;

use self::gauge::Gauge;
use super::counted::Beat;
use super::directory::Directory;
use super::workers::Workers;
use super::{Nanos, Random};
use crate::share::{Pages, ShareError, SharedState};

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
    settings: Settings,
    name: String,
    inflight: String,
    pages: Option<Pages>,
    directory: Option<Directory>,
    /// Who holds places in limits with a key, or waits for places.
    workers: Workers,
    /// Who holds places where there is no key. Under the name of the number in flight, as that number is: what a worker
    /// holds that dies is taken back by workers whose limit has other settings by then.
    holders: Option<Workers>,
    /// By slot; `None` where this worker has not seen the key.
    gauges: Vec<Option<Box<Gauge>>>,
    errors: u64,
    corrected: i64,
}

impl ConcurrencyLimits {
    /// Opens the limits of this name. At configure time: it creates their shared pages, one of 1 KiB, and where
    /// limits are measured one a key of about 200 bytes. Without a key, `inflight` names the number in flight, and another
    /// page of 1 KiB: limits with different settings may share them.
    ///
    /// # Errors
    /// [`ShareError`] where numbers or pages are not shared; open them in [`crate::share::Memory`] then, per worker.
    pub fn new(settings: Settings, share: &dyn SharedState, name: &str, inflight: &str) -> Result<Self, ShareError> {
        let settings = Settings { max_keys: settings.max_keys.min(MAX_KEYS), ..settings };
        let measures = settings.measure || !matches!(settings.algorithm, Algorithm::Fixed(_));
        let count = settings.max_keys.saturating_add(1);
        let pages = if measures { Some(measured::pages(share, name, count)?) } else { None };
        let keyed = settings.max_keys > 0;
        let directory = if keyed { Some(Directory::open(share, name, settings.max_keys, 0)?) } else { None };
        let mut limits = Self {
            settings,
            name: name.to_owned(),
            inflight: inflight.to_owned(),
            pages,
            directory,
            workers: Workers::open(share, name)?,
            holders: if keyed { None } else { Some(Workers::open(share, inflight)?) },
            gauges: Vec::new(),
            errors: 0,
            corrected: 0,
        };
        if !keyed {
            limits.open(share, SlotId::ONLY)?;
        }
        Ok(limits)
    }

    /// The limit of a key, by the key's hash (keyed, so that nobody can choose two keys of one hash). A known key costs
    /// no host call.
    pub fn slot(&mut self, share: &dyn SharedState, key_hash: u64) -> SlotId {
        let Some(directory) = &mut self.directory else { return SlotId::ONLY };
        match directory.slot(share, key_hash) {
            Ok(slot) => SlotId(slot),
            Err(_) => {
                self.errors = self.errors.saturating_add(1);
                SlotId(self.settings.max_keys)
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
        let worker = self.holders.as_mut().unwrap_or(&mut self.workers).own(share, random);
        let admitted = worker.and_then(|worker| {
            let gauge = self.open(share, slot)?;
            gauge.acquire(share, level, worker, now, random)
        });
        match admitted {
            Ok(true) => Some(Place(slot)),
            Ok(false) => None,
            Err(_) => {
                self.errors = self.errors.saturating_add(1);
                Some(Place(UNCOUNTED))
            }
        }
    }

    /// Whether a place seems free for a level, without taking it; then how many this worker holds, and all do. For those
    /// who wait for one.
    pub fn free(
        &mut self,
        share: &dyn SharedState,
        slot: SlotId,
        level: Share,
        now: Nanos,
        random: &mut dyn Random,
    ) -> Option<(i64, i64)> {
        // Where shared state fails, taking a place does too, and is what counts the error.
        let free = self.open(share, slot).and_then(|gauge| gauge.free(share, level, now, random));
        free.unwrap_or(Some((0, 0)))
    }

    /// A request of a level does not ask for a place, since others go before it: a limit that is found learns of it as of one
    /// that asked, or it would stay where it was for as long as somebody waits.
    pub fn waits(&mut self, share: &dyn SharedState, slot: SlotId, level: Share, now: Nanos, random: &mut dyn Random) {
        if self.open(share, slot).and_then(|gauge| gauge.waits(share, level, now, random)).is_err() {
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
        if let Some(gauge) = self.gauge_mut(place.0)
            && gauge.release(share, ended, took, now, random).is_err()
        {
            self.errors = self.errors.saturating_add(1);
        }
    }

    /// What time alone changes: samples are handed on, windows end, what dead workers held is taken back. To be called
    /// every half second or more often, by every worker, also by one without traffic. What it found of those that wait is for
    /// the queue.
    pub fn tick(&mut self, share: &dyn SharedState, now: Nanos, random: &mut dyn Random) -> Beat {
        for gauge in self.gauges.iter_mut().flatten() {
            if gauge.tick(share, now, random).is_err() {
                self.errors = self.errors.saturating_add(1);
            }
        }
        let waiting = self.workers.beat(share, now, random);
        let holding = self.holders.as_mut().map(|holders| holders.beat(share, now, random));
        let heeded = match (&waiting, holding) {
            (_, Some(holding)) => holding.and_then(|holding| self.heed(share, &holding)),
            (Ok(waiting), None) => self.heed(share, waiting),
            (Err(_), None) => Ok(()),
        };
        let failed = u64::from(waiting.is_err()).saturating_add(u64::from(heeded.is_err()));
        self.errors = self.errors.saturating_add(failed);
        waiting.unwrap_or_default()
    }

    fn heed(&mut self, share: &dyn SharedState, beat: &Beat) -> Result<(), ShareError> {
        if !beat.dead.is_empty() {
            // The dead may have held places of limits this worker has not seen.
            for slot in self.slots(share)? {
                self.open(share, slot)?;
            }
        }
        if *beat != Beat::default() {
            for gauge in self.gauges.iter_mut().flatten() {
                self.corrected = self.corrected.saturating_add(gauge.heed(share, beat)?);
            }
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
        Ok((0..keys).chain([self.settings.max_keys]).map(SlotId))
    }

    /// As whom this worker counts, for [`super::queue::Queue::push`].
    ///
    /// # Errors
    /// Those of the shared page that tells workers apart.
    pub fn worker(&mut self, share: &dyn SharedState, random: &mut dyn Random) -> Result<u32, ShareError> {
        self.workers.own(share, random)
    }

    /// The lowest of the present limits this worker has seen; what they begin with before it has seen any.
    pub fn lowest(&self) -> u32 {
        let limits = self.gauges.iter().flatten().map(|gauge| gauge.limit());
        limits.min().unwrap_or_else(|| self.settings.algorithm.initial())
    }

    /// The present limit.
    pub fn limit(&self, slot: SlotId) -> u32 {
        self.gauge(slot).map_or(0, Gauge::limit)
    }

    /// Requests in flight, over all workers and all limits this worker has seen.
    pub fn inflight(&self, share: &dyn SharedState) -> i64 {
        self.gauges.iter().flatten().map(|gauge| gauge.inflight(share)).fold(0, i64::saturating_add)
    }

    /// How long requests took lately, over all workers; `None` before anything was measured.
    pub fn usual_latency(&self, slot: SlotId) -> Option<Nanos> {
        self.gauge(slot)?.usual()
    }

    /// Whether a request that would be refused for [`usual_latency`](Self::usual_latency) is to be let through, since nothing
    /// has been measured lately: one a second at each worker.
    pub fn tries(&mut self, slot: SlotId, now: Nanos) -> bool {
        self.gauge_mut(slot).is_some_and(|gauge| gauge.tries(now))
    }

    /// How often shared state failed since the last time this was asked.
    pub fn take_errors(&mut self) -> u64 {
        std::mem::take(&mut self.errors)
    }

    /// By how much in-flight was changed for workers' deaths since the last time this was asked.
    pub fn take_corrected(&mut self) -> i64 {
        std::mem::take(&mut self.corrected)
    }

    fn gauge(&self, slot: SlotId) -> Option<&Gauge> {
        self.gauges.get(usize::try_from(slot.0).ok()?)?.as_deref()
    }

    fn gauge_mut(&mut self, slot: SlotId) -> Option<&mut Gauge> {
        self.gauges.get_mut(usize::try_from(slot.0).ok()?)?.as_deref_mut()
    }

    fn open(&mut self, share: &dyn SharedState, slot: SlotId) -> Result<&mut Gauge, ShareError> {
        let at = usize::try_from(slot.0).unwrap_or(usize::MAX);
        if self.gauges.len() <= at {
            self.gauges.resize_with(at.saturating_add(1), || None);
        }
        let Some(place) = self.gauges.get_mut(at) else { return Err(ShareError::Unavailable) };
        match place {
            Some(gauge) => Ok(gauge),
            None => {
                let name = format!("{}.{}", self.name, slot.0);
                let own = format!("{name}.inflight");
                let inflight = if self.settings.max_keys == 0 { &self.inflight } else { &own };
                let pages = (self.pages, slot.0);
                let gauge = Gauge::open(self.settings, share, (&name, inflight), pages)?;
                Ok(place.insert(Box::new(gauge)))
            }
        }
    }
}

/// The slot of a place that was given while shared state failed.
const UNCOUNTED: SlotId = SlotId(u32::MAX);
