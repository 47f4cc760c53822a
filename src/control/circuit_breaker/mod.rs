//! Circuit breakers: stop sending requests to an upstream that fails, try it with a few, and come back.
//!
//! One breaker a key, one state over all workers. A worker's [`CircuitBreakers`] is a view of what the workers share.
//!
//! - **Closed**: requests pass, and outcomes are judged as they arrive: first the run of consecutive failures, then,
//!   from `minimum_calls` on, the failure rate and the slow-call rate over the window. A threshold reached or passed
//!   trips. All comparisons are in whole numbers.
//! - **Open**: requests are rejected for `open_duration`, doubled for each failed probe round since the breaker was
//!   last closed, a tenth of jitter either way, lengthened by what the upstream asked for in `Retry-After`, and never
//!   above `open_duration_max`. The first request after that is the first probe.
//! - **HalfOpen**: at most `probes` requests pass, over all workers. All answered well closes; one failure, one that
//!   is unanswered after `probe_timeout`, or a round whose share of slow answers reaches its threshold opens again. A
//!   cancelled probe gives its place back. A probe with good response headers whose body goes on for longer than the
//!   timeout, a stream, counts as answered well from then on.
//! - After closing, `recovery_ramp` admits a tenth of the requests at first and all at its end, at random.
//!
//! Each state has a generation, and so has each permit: an outcome of another generation changes nothing.
//!
//! # What is shared
//!
//! A page per breaker holds the state, changed by compare-and-set only, so that the worker that makes a change is the
//! only one to report it. A cell grows with each change: while it stands still a worker goes by its copy, so a request
//! through a closed breaker, or turned away by an open one, costs one cell read. A change reaches every worker at its
//! next request; a worker that joins late or lost its VM reads the page first and stands where the others do.
//!
//! *Time windows* are counted in cells, and the page remembers their totals at the start of ten buckets: all workers
//! judge the same window. A success costs two reads and an addition. Where a bucket ends, a call per worker may fall
//! on either side. *Count windows* are a ring in the page, exact over all workers, for one compare-and-set a call.
//!
//! Where shared state fails at request time the request is admitted and not counted, and
//! [`CircuitBreakers::take_errors`] says so.
//!
//! Vocabulary and window semantics follow resilience4j; the two signals, exact quotients and the treatment of 429 follow
//! linkerd's unified breaker; generations follow gobreaker.

mod breaker;
mod machine;
mod page;
mod settings;
mod state;
mod window;

use std::collections::VecDeque;
use std::fmt::Display;

use self::breaker::{At, Breaker};
use self::machine::{Ending, Record};
use self::state::{Grant, Heard, Probe};
use crate::control::directory::Directory;
use crate::control::{Nanos, Random};
use crate::share::{Pages, ShareError, SharedState};

pub use self::settings::{MAX_COUNT_WINDOW, MAX_KEYS, MAX_PROBES, Mode, Settings, Window};
pub use self::state::{Counts, Denied, Outcome, Permit, SlotId, State, Transition, TripReason};

/// The label of the breaker that the keys beyond `max_keys` share.
pub const OVERFLOW_LABEL: &str = "_overflow";

/// The breakers of one policy, as one worker sees them.
#[derive(Debug)]
pub struct CircuitBreakers {
    settings: Settings,
    name: String,
    pages: Pages,
    directory: Directory,
    /// By slot; `None` where this worker has not seen the key.
    breakers: Vec<Option<Box<Breaker>>>,
    transitions: VecDeque<(SlotId, Transition)>,
    errors: u64,
}

impl CircuitBreakers {
    /// Opens the breakers of this name. At configure time: it creates their shared pages, one a key and one more, of
    /// about 300 bytes. Breakers of the same name must have the same settings on all workers.
    ///
    /// # Errors
    /// [`ShareError`] where the pages cannot be had; open them in [`crate::share::Memory`] then, per worker.
    pub fn new(settings: Settings, share: &dyn SharedState, name: &str) -> Result<Self, ShareError> {
        let settings = settings.bounded();
        let count = settings.max_keys.saturating_add(1);
        let pages = share.pages(&format!("{name}.breakers"), count, &vec![0; page::length(&settings)])?;
        let directory = Directory::open(share, name, settings.max_keys)?;
        Ok(Self {
            settings,
            name: name.to_owned(),
            pages,
            directory,
            breakers: Vec::new(),
            transitions: VecDeque::new(),
            errors: 0,
        })
    }

    /// The breaker of a key, by the key's hash (keyed, so that nobody can choose two keys of one hash), allocated on
    /// first sight. `label` names it to people from then on, and is only written then; make it short. A
    /// known key costs no host call.
    pub fn slot(&mut self, share: &dyn SharedState, key_hash: u64, label: impl Display) -> SlotId {
        let Ok(slot) = self.directory.slot(share, key_hash).map(SlotId) else {
            // Not the shared breaker: what this key's requests come to says nothing about the keys that share it.
            self.errors = self.errors.saturating_add(1);
            return NOWHERE;
        };
        let at = usize::try_from(slot.0).unwrap_or(usize::MAX);
        if self.breakers.len() <= at {
            self.breakers.resize_with(at.saturating_add(1), || None);
        }
        if let Some(place @ None) = self.breakers.get_mut(at) {
            let label = if slot.0 == self.settings.max_keys { OVERFLOW_LABEL.to_owned() } else { label.to_string() };
            match Breaker::open(&self.settings, share, (&self.name, self.pages), slot, &label) {
                Ok(breaker) => *place = Some(Box::new(breaker)),
                Err(_) => self.errors = self.errors.saturating_add(1),
            }
        }
        slot
    }

    /// What people call this breaker; `None` if this worker has not seen its key.
    pub fn label(&self, slot: SlotId) -> Option<&str> {
        let at = usize::try_from(slot.0).ok()?;
        self.breakers.get(at)?.as_ref().map(|breaker| breaker.label.as_str())
    }

    /// Decides about a request. The permit is to be settled or cancelled exactly once.
    ///
    /// # Errors
    /// [`Denied`] says which state stopped the request, why, and how long to wait.
    pub fn acquire(
        &mut self,
        share: &dyn SharedState,
        slot: SlotId,
        now: Nanos,
        rng: &mut dyn Random,
    ) -> Result<Permit, Denied> {
        let unwatched = Permit { slot, generation: 0, grant: Grant::Unwatched };
        match self.settings.mode {
            Mode::Disabled => return Ok(unwatched),
            Mode::ForcedOpen => return Err(Denied::ForcedOpen),
            Mode::Auto => {}
        }
        let decision = self.with(slot, share, now, rng, |breaker, at| breaker.acquire(at));
        let Some((decision, transition)) = decision else { return Ok(unwatched) };
        self.report(slot, transition);
        decision.map(|(generation, grant)| Permit { slot, generation, grant })
    }

    /// The request was not sent after all, its client left, or its outcome is to be ignored: as though it had never
    /// asked. A probe's place is free again.
    pub fn cancel(&mut self, share: &dyn SharedState, permit: Permit) {
        if let Grant::Probe(probe) = permit.grant {
            let _ = self.with(permit.slot, share, probe.at, &mut Never, |breaker, at| {
                breaker.cancel(at, permit.generation, probe)
            });
        }
    }

    /// A probe has good response headers, after `took`, and its body is still to come: once its timeout is over it counts
    /// as answered well, whatever becomes of the body. For other permits nothing.
    pub fn hear(&mut self, share: &dyn SharedState, permit: &mut Permit, took: Nanos) {
        let Grant::Probe(probe) = permit.grant else { return };
        let heard = if self.settings.is_slow(took) { Heard::Slow } else { Heard::Good };
        let noted = self.with(permit.slot, share, probe.at, &mut Never, |breaker, at| {
            breaker.hear(at, permit.generation, probe, heard)
        });
        if noted == Some(true) {
            permit.grant = Grant::Probe(Probe { heard, ..probe });
        }
    }

    /// The request ended. `took` is its time to response headers. An outcome of an earlier generation changes nothing.
    pub fn settle(
        &mut self,
        share: &dyn SharedState,
        permit: Permit,
        outcome: Outcome,
        took: Nanos,
        now: Nanos,
        rng: &mut dyn Random,
    ) {
        let ending = Ending { outcome, slow: self.settings.is_slow(took) };
        let generation = permit.generation;
        let transition = self.with(permit.slot, share, now, rng, |breaker, at| match permit.grant {
            Grant::Call => breaker.settle(at, generation, ending),
            Grant::Probe(probe) => breaker.answer(at, generation, probe, ending),
            Grant::Unwatched => Ok(None),
        });
        self.report(permit.slot, transition.flatten());
    }

    /// The state of a breaker, for its gauge. About one read of a cell.
    pub fn state(&mut self, share: &dyn SharedState, slot: SlotId) -> State {
        match self.settings.mode {
            Mode::ForcedOpen => State::Open,
            Mode::Disabled => State::Closed,
            Mode::Auto => {
                let state = self.with(slot, share, 0, &mut Never, |breaker, at| {
                    breaker.record(at.settings, at.share).map(Record::state)
                });
                state.unwrap_or(State::Closed)
            }
        }
    }

    /// Ends half-open states whose probes are past their timeout, where no request comes to do it. Any number of workers may
    /// call it at any time.
    pub fn tick(&mut self, share: &dyn SharedState, now: Nanos, rng: &mut dyn Random) {
        if self.settings.mode != Mode::Auto {
            return;
        }
        for slot in self.slots() {
            if self.label(slot).is_some() {
                let transition = self.with(slot, share, now, rng, |breaker, at| breaker.expire(at));
                self.report(slot, transition.flatten());
            }
        }
    }

    /// The breakers whose keys this worker may have seen; those it has not have no label.
    pub fn slots(&self) -> impl Iterator<Item = SlotId> + use<> {
        (0..=self.settings.max_keys).map(SlotId).take(self.breakers.len())
    }

    /// The next change of state that this worker made and nobody has heard of. To be asked after each
    /// [`acquire`](Self::acquire), [`settle`](Self::settle) and [`tick`](Self::tick) until there is none: over all
    /// workers each change is handed out once.
    pub fn take_transition(&mut self) -> Option<(SlotId, Transition)> {
        self.transitions.pop_front()
    }

    /// How often shared state failed since the last time this was asked. The requests concerned were admitted and not
    /// counted.
    pub fn take_errors(&mut self) -> u64 {
        std::mem::take(&mut self.errors)
    }

    fn report(&mut self, slot: SlotId, transition: Option<Transition>) {
        self.transitions.extend(transition.map(|transition| (slot, transition)));
    }

    /// Does something with a breaker; `None`, and an error counted, when it or what is shared is out of reach.
    fn with<T>(
        &mut self,
        slot: SlotId,
        share: &dyn SharedState,
        now: Nanos,
        rng: &mut dyn Random,
        act: impl FnOnce(&mut Breaker, &mut At<'_>) -> Result<T, ShareError>,
    ) -> Option<T> {
        let at = usize::try_from(slot.0).unwrap_or(usize::MAX);
        let done = match self.breakers.get_mut(at) {
            Some(Some(breaker)) => act(breaker, &mut At { settings: &self.settings, share, now, rng }).ok(),
            _ => None,
        };
        if done.is_none() {
            self.errors = self.errors.saturating_add(1);
        }
        done
    }
}

/// Where requests go whose breaker cannot be had: no policy has so many, so they pass and are not counted.
const NOWHERE: SlotId = SlotId(u32::MAX);

/// For what needs no chance.
struct Never;

impl Random for Never {
    fn next_u64(&mut self) -> u64 {
        0
    }
}
