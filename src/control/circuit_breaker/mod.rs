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
//!   cancelled probe gives its place back and is neither good nor bad; but where clients leave before an upstream that
//!   hangs could time out, the time that it let them wait adds up, and opens again at a cancel that makes it
//!   `probe_timeout` since the upstream was last heard of. A probe with good response headers, a stream, counts as answered
//!   well once its client leaves, or its body goes on for longer than the timeout.
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
//! Pages outlive settings on a host that never forgets a name, so they are leased (see [`crate::share::Lease`]): breakers
//! of other settings begin with empty pages, and so do those of the same settings once nobody has used them for a while.
//! What was granted before that changes nothing any more. Where other settings use all there are, or have taken the pages
//! of breakers that were silent for too long, each worker has breakers of its own until there is room (see
//! [`crate::share::Tenant`]).
//!
//! Where shared state fails at request time the request is admitted and not counted, and
//! [`CircuitBreakers::take_errors`] says so.
//!
//! Vocabulary and window semantics follow resilience4j; the two signals, exact quotients and the treatment of 429 follow
//! linkerd's unified breaker; generations follow gobreaker.

mod breaker;
mod machine;
mod places;
mod record;
mod settings;
mod state;
mod window;

use std::collections::VecDeque;
use std::fmt::Display;

use self::breaker::{At, Breaker, Place};
use self::machine::Ending;
use self::places::Places;
use self::record::Record;
use self::state::{Grant, Heard, Probe, Unjudged};
use crate::control::{Nanos, Random};
use crate::share::{ShareError, SharedState};

pub use self::settings::{MAX_COUNT_WINDOW, MAX_KEYS, MAX_PROBES, Mode, Settings, Window};
pub use self::state::{Counts, Denied, Outcome, Permit, SlotId, State, Transition, TripReason};

/// The label of the breaker that the keys beyond `max_keys` share.
pub const OVERFLOW_LABEL: &str = "_overflow";

/// The breakers of one policy, as one worker sees them.
#[derive(Debug)]
pub struct CircuitBreakers {
    settings: Settings,
    places: Places,
    /// By slot; `None` where this worker has not seen the key.
    breakers: Vec<Option<Box<Breaker>>>,
    transitions: VecDeque<(SlotId, Transition)>,
    /// Seen for the first time by this worker, and not closed.
    met: VecDeque<SlotId>,
    errors: u64,
}

impl CircuitBreakers {
    /// Opens the breakers of this name. At configure time: it creates their shared pages, one a key and one more, of
    /// 512 bytes (up to 3 KiB with a long count window). Breakers of the same name must have the same settings on all
    /// workers.
    ///
    /// # Errors
    /// [`ShareError`] where the pages cannot be had; open them in [`crate::share::Memory`] then, per worker.
    pub fn new(settings: Settings, share: &dyn SharedState, name: &str) -> Result<Self, ShareError> {
        let settings = settings.bounded();
        let places = Places::new(&settings, share, name.to_owned())?;
        Ok(Self::in_places(settings, places))
    }

    /// The same where settings change and the host never forgets a name: those with the same `owner`, a digest of the
    /// settings, share their breakers for as long as any of them says that it is there, by [`tick`](Self::tick); after
    /// that, and with other settings, they begin anew. Pages that nobody uses any more are used again.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn reusing(
        settings: Settings,
        share: &dyn SharedState,
        name: &str,
        owner: u64,
        now: Nanos,
    ) -> Result<Self, ShareError> {
        let settings = settings.bounded();
        let places = Places::reusing(&settings, share, name, owner, now)?;
        Ok(Self::in_places(settings, places))
    }

    fn in_places(settings: Settings, places: Places) -> Self {
        Self { settings, places, breakers: Vec::new(), transitions: VecDeque::new(), met: VecDeque::new(), errors: 0 }
    }

    /// If other workers have begun anew, so does this one.
    fn follow(&mut self, share: &dyn SharedState) -> bool {
        let moved = self.places.follow(share);
        if moved {
            self.begin_anew(share);
        }
        moved
    }

    /// Says that the breakers are in use. Where they have got other pages they begin anew there.
    fn keep(&mut self, share: &dyn SharedState, now: Nanos) {
        if self.places.keep(&self.settings, share, now) {
            self.begin_anew(share);
        }
        self.errors = self.errors.saturating_add(self.places.take_missed());
    }

    /// The keys that this worker knows have breakers in the pages that there are now, so that their gauges tell.
    fn begin_anew(&mut self, share: &dyn SharedState) {
        for old in std::mem::take(&mut self.breakers).into_iter().flatten() {
            let slot = match old.key_hash {
                // Which may find that they begin anew once more: not without end, since each time takes a silence.
                Some(key_hash) => self.slot(share, key_hash, &old.label),
                None => {
                    let overflow = SlotId(self.settings.max_keys);
                    self.meet(share, overflow, None, &old.label);
                    overflow
                }
            };
            self.met.push_back(slot);
        }
    }

    /// Whether each worker has breakers of its own, if that has changed since this was last asked.
    pub fn take_news(&mut self) -> Option<bool> {
        self.places.take_news()
    }

    /// Nobody on this worker uses the breakers any more: unless other workers do, they are forgotten at once.
    pub fn release(&self, share: &dyn SharedState, now: Nanos) {
        self.places.release(share, now);
    }

    /// The breaker of a key, by the key's hash (keyed, so that nobody can choose two keys of one hash), allocated on
    /// first sight. `label` names it to people from then on, and is only written then; make it short. A
    /// known key costs no host call.
    pub fn slot(&mut self, share: &dyn SharedState, key_hash: u64, label: impl Display) -> SlotId {
        let mut found = self.places.slot(share, key_hash);
        if found.is_err() && self.follow(share) {
            found = self.places.slot(share, key_hash);
        }
        let Ok(slot) = found.map(SlotId) else {
            // Not the shared breaker: what this key's requests come to says nothing about the keys that share it.
            self.errors = self.errors.saturating_add(1);
            return NOWHERE;
        };
        let own = slot.0 < self.settings.max_keys;
        self.meet(share, slot, own.then_some(key_hash), label);
        slot
    }

    /// The breaker of a key that some worker has seen already, by the key's hash or, where many share one, its label.
    pub fn find(&mut self, share: &dyn SharedState, key_hash: Option<u64>, label: &str) -> Option<SlotId> {
        let place = match key_hash {
            None => self.settings.max_keys,
            Some(key_hash) => self.places.find(share, key_hash).ok().flatten()?,
        };
        self.meet(share, SlotId(place), key_hash, label);
        Some(SlotId(place))
    }

    /// Opens a breaker on first sight.
    fn meet(&mut self, share: &dyn SharedState, slot: SlotId, key_hash: Option<u64>, label: impl Display) {
        let at = usize::try_from(slot.0).unwrap_or(usize::MAX);
        if self.breakers.len() <= at {
            self.breakers.resize_with(at.saturating_add(1), || None);
        }
        let place = Place { pages: self.places.pages, index: slot.0, epoch: self.places.epoch() };
        if let Some(empty @ None) = self.breakers.get_mut(at) {
            let label = if key_hash.is_none() { OVERFLOW_LABEL.to_owned() } else { label.to_string() };
            let share = self.places.share(share);
            match Breaker::open(&self.settings, share, (&self.places.name, place), (key_hash, label)) {
                Ok(breaker) => {
                    *empty = Some(Box::new(breaker));
                    if self.settings.mode == Mode::ForcedOpen {
                        self.met.push_back(slot);
                    }
                }
                Err(_) => self.errors = self.errors.saturating_add(1),
            }
        }
    }

    /// What people call this breaker; `None` if this worker has not seen its key.
    pub fn label(&self, slot: SlotId) -> Option<&str> {
        self.known(slot).map(|breaker| breaker.label.as_str())
    }

    /// The hash of the breaker's key; `None` also where many keys share it.
    pub fn key_hash(&self, slot: SlotId) -> Option<u64> {
        self.known(slot)?.key_hash
    }

    fn known(&self, slot: SlotId) -> Option<&Breaker> {
        self.breakers.get(usize::try_from(slot.0).ok()?)?.as_deref()
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
        let unwatched = Permit { slot, life: self.places.life(), generation: 0, grant: Grant::Unwatched };
        match self.settings.mode {
            Mode::Disabled => return Ok(unwatched),
            Mode::ForcedOpen => return Err(Denied::ForcedOpen),
            Mode::Auto => {}
        }
        let decision = self.with(slot, share, now, rng, |breaker, at| breaker.acquire(at));
        let Some((decision, transition)) = decision else { return Ok(unwatched) };
        self.report(slot, transition);
        decision.map(|(generation, grant)| Permit { generation, grant, ..unwatched })
    }

    /// The request ended without an answer, nobody knows by whose fault: a call is as though it had never asked, and a probe's
    /// place is free again. Probes that are cancelled after waiting in vain for `probe_timeout`, all together and with no
    /// answer to any, open the breaker. One of which good headers were [heard](Self::hear) has been answered well.
    pub fn cancel(&mut self, share: &dyn SharedState, permit: Permit, now: Nanos, rng: &mut dyn Random) {
        self.give_back(share, permit, Unjudged::Owed, now, rng);
    }

    /// The upstream answered, and the answer is to be ignored: the same, except that nobody waited in vain.
    pub fn ignore(&mut self, share: &dyn SharedState, permit: Permit, now: Nanos, rng: &mut dyn Random) {
        self.give_back(share, permit, Unjudged::Answered, now, rng);
    }

    /// The request was not sent after all, or somebody else put an end to it: the same, except that the upstream owed nothing.
    pub fn withdraw(&mut self, share: &dyn SharedState, permit: Permit, now: Nanos, rng: &mut dyn Random) {
        self.give_back(share, permit, Unjudged::Uninvolved, now, rng);
    }

    fn give_back(&mut self, share: &dyn SharedState, permit: Permit, why: Unjudged, now: Nanos, rng: &mut dyn Random) {
        let Grant::Probe(probe) = permit.grant else { return };
        if !self.is_current(&permit) {
            return;
        }
        let transition = self
            .with(permit.slot, share, now, rng, |breaker, at| breaker.give_back(at, (permit.generation, probe), why));
        self.report(permit.slot, transition.flatten());
    }

    /// A probe has good response headers, after `took`, and its body is still to come: once its timeout is over it counts
    /// as answered well, whatever becomes of the body. Headers that come after the timeout are none. For other permits
    /// nothing.
    pub fn hear(
        &mut self,
        share: &dyn SharedState,
        permit: &mut Permit,
        took: Nanos,
        now: Nanos,
        rng: &mut dyn Random,
    ) {
        let Grant::Probe(probe) = permit.grant else { return };
        if !self.is_current(permit) {
            return;
        }
        let heard = if self.settings.is_slow(took) { Heard::Slow } else { Heard::Good };
        let noted =
            self.with(permit.slot, share, now, rng, |breaker, at| breaker.hear(at, (permit.generation, probe), heard));
        let Some((noted, transition)) = noted else { return };
        if noted {
            permit.grant = Grant::Probe(Probe { heard, ..probe });
        }
        self.report(permit.slot, transition);
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
        if !self.is_current(&permit) {
            return;
        }
        let ending = Ending { outcome, slow: self.settings.is_slow(took) };
        let generation = permit.generation;
        let transition = self.with(permit.slot, share, now, rng, |breaker, at| match permit.grant {
            Grant::Call => breaker.settle(at, generation, ending),
            Grant::Probe(probe) => breaker.answer(at, (generation, probe), ending),
            Grant::Unwatched => Ok(None),
        });
        self.report(permit.slot, transition.flatten());
    }

    /// Whether it was granted in this life of the breakers.
    fn is_current(&self, permit: &Permit) -> bool {
        permit.life == self.places.life()
    }

    /// The state of a breaker that no request has come to.
    pub fn unused(&self) -> State {
        if self.settings.mode == Mode::ForcedOpen { State::Open } else { State::Closed }
    }

    /// The state of a breaker, for its gauge. About one read of a cell.
    pub fn state(&mut self, share: &dyn SharedState, slot: SlotId) -> State {
        match self.settings.mode {
            Mode::ForcedOpen | Mode::Disabled => self.unused(),
            Mode::Auto => {
                let state = self.with(slot, share, 0, &mut Never, |breaker, at| {
                    breaker.record(at.settings, at.share).map(Record::state)
                });
                state.unwrap_or(State::Closed)
            }
        }
    }

    /// Says that the breakers are in use, and ends half-open states whose probes are past their timeout, where no request
    /// comes to do it. Every second or so; any number of workers may call it at any time.
    pub fn tick(&mut self, share: &dyn SharedState, now: Nanos, rng: &mut dyn Random) {
        self.follow(share);
        self.keep(share, now);
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
    /// [`acquire`](Self::acquire), [`hear`](Self::hear), [`cancel`](Self::cancel), [`ignore`](Self::ignore),
    /// [`settle`](Self::settle) and [`tick`](Self::tick) until there is none: over all
    /// workers each change is handed out once.
    pub fn take_transition(&mut self) -> Option<(SlotId, Transition)> {
        self.transitions.pop_front()
    }

    /// The next breaker that this worker has met and that is not closed although nobody opened it: it is held open.
    pub fn take_met(&mut self) -> Option<SlotId> {
        self.met.pop_front()
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
            Some(Some(breaker)) => {
                let share = self.places.share(share);
                act(breaker, &mut At { settings: &self.settings, share, now, rng }).ok()
            }
            _ => None,
        };
        // Not an error where the page is of a later epoch: the next request is decided in that one.
        if done.is_none() && !self.follow(share) {
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
