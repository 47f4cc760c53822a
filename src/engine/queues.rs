//! The queues of a policy, one for each of its limits, and who of them goes on.
//!
//! A queue knows requests by their streams; what a request holds stays with its stream. So its turn is a thing to be
//! handed over: [`Engine::wake`] says whose it is, [`Permit::grant`] takes it, and [`Engine::resume`] acts on it.
//!
//! # Many limits
//!
//! With a key many limits may have somebody waiting. Where a place has been given back at this worker is looked at first, the
//! others in turn, [`LOOKS`] of them at a time: with more than that somebody may wait some milliseconds longer for a place that
//! another worker gave back, so that all of them together cost no more than so many.
//!
//! # Several queues
//!
//! A request that needs places of several policies waits in one queue at a time, without holding places meanwhile: those of
//! another limit would be idle for as long as it waits. So when its turn comes it may find none elsewhere, and has to wait
//! there. That this ends, and that nobody loses the time it has waited:
//!
//! - Where its turn has not come yet it stands back behind those who have waited there for longer, and lines up by when it
//!   first had to wait. It does not pass them by: they would never have a turn while others come from another queue.
//! - Where its turn has come before, it is called the next time: it passes by all but more important ones, and goes first. There
//!   it keeps the places that it has of policies before that one, in the order of their names, which no update changes; for it
//!   waits for a place or two to come free, not for a queue.
//!
//! So it waits in each queue once without holding anything, and after that only while it goes through them in order. Who holds a
//! place and waits does so for a later policy: no two wait for each other.

use std::collections::VecDeque;

use crate::control::concurrency::{ConcurrencyLimits, SlotId};
use crate::control::queue::{self, Crowd, Pushed, Queue, Settings, Standing};
use crate::control::{Beat, Nanos, Workers};
use crate::share::ShareError;

use super::decide::Refused;
use super::permit::{Come, Held, Permit, Waiting, What};
use super::rejection::Reason;
use super::shedding::{Concurrency, Places, Seat};
use super::{Engine, Env};

/// A turn that has come.
#[derive(Debug)]
pub struct Woken {
    stream: u32,
    policy: usize,
    turn: Turn,
}

/// What has become of a request that waited in a queue.
#[derive(Debug)]
pub(super) enum Turn {
    /// It has a place.
    Enters(What),
    /// It has waited for too long.
    Late,
    /// A more important one has its place in the queue.
    Displaced,
}

/// A request that is to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub seat: Seat,
    /// When it is of no more use.
    pub until: Nanos,
    /// Its turn has come here before.
    pub called: bool,
}

/// The queues of a policy, as one worker sees them.
#[derive(Debug)]
pub(super) struct Queues {
    settings: Settings,
    name: String,
    /// Who has requests waiting.
    waiters: Workers,
    /// Where somebody may wait at all; none if there is one limit only.
    crowd: Option<Crowd>,
    /// By slot; `None` where nobody has waited as far as this worker knows.
    queues: Vec<Option<Box<Queue>>>,
    /// Where somebody waits at this worker.
    busy: Vec<SlotId>,
    /// Which of these is looked at next.
    next: usize,
    /// Where a place was given back here and nobody has looked yet.
    freed: Vec<SlotId>,
    /// Those who wait no more and have not been told.
    leaving: VecDeque<(u32, Turn)>,
    expired: Vec<queue::Waiting>,
}

impl Woken {
    /// Whose turn it is.
    pub fn stream(&self) -> u32 {
        self.stream
    }
}

/// So many limits at most are looked at for somebody whose turn it is.
pub(super) const LOOKS: usize = 256;

/// The name of queues beside these limits. Those with other levels count others: when a worker dies, what it had waiting is
/// corrected by whoever has the same.
fn name(settings: Settings, limits: &ConcurrencyLimits) -> String {
    format!("{}.queue.{}", limits.place(), settings.levels)
}

impl Queues {
    /// Queues at the place of these limits.
    ///
    /// # Errors
    /// [`ShareError`] where pages are not shared.
    pub fn new(settings: Settings, limits: &ConcurrencyLimits, env: &Env<'_>) -> Result<Self, ShareError> {
        let name = name(settings, limits);
        let waiters = Workers::open(env.share, &name)?;
        let crowd = limits.is_keyed().then(|| Crowd::new(&format!("{name}.crowd")));
        let (queues, busy, freed, leaving, expired) = Default::default();
        Ok(Self { settings, name, waiters, crowd, queues, busy, next: 0, freed, leaving, expired })
    }

    /// How many are to be served before a request that asks now.
    pub fn ahead(&mut self, seat: Seat, standing: Standing, env: &Env<'_>) -> i64 {
        let queue = self.crowded(seat.slot, env);
        queue.map_or(0, |queue| queue.ahead(env.share, seat.level, standing, env.now))
    }

    /// Whether a request has waited for too long already.
    pub fn is_late(&mut self, seat: Seat, standing: Standing, env: &Env<'_>) -> bool {
        // Who has not waited yet is not late anywhere.
        let open = standing != Standing::New;
        open && self.open(seat.slot, env).is_ok_and(|queue| queue.is_late(seat.level, standing, env.now))
    }

    /// Whether a request could wait now.
    pub fn has_room(&mut self, seat: Seat, called: bool, env: &Env<'_>) -> bool {
        self.crowded(seat.slot, env).is_none_or(|queue| queue.has_room(env.share, seat.level, called))
    }

    /// How many wait for the places of a limit, over all workers.
    pub fn length(&mut self, slot: SlotId, env: &Env<'_>) -> i64 {
        self.crowded(slot, env).map_or(0, |queue| queue.length(env.share))
    }

    /// A request wants to wait from now on, or since it first waited in another queue. Whether it does.
    pub fn line_up(
        &mut self,
        line: Line,
        (stream, since): (u32, Nanos),
        env: &mut Env<'_>,
    ) -> Result<bool, ShareError> {
        let Line { seat: Seat { slot, level }, until, called } = line;
        let worker = self.waiters.own(env.share, env.random)?;
        let request = queue::Waiting { id: stream, level, since, deadline: until, called };
        self.open(slot, env)?;
        if let Some(crowd) = &mut self.crowd {
            crowd.enter(env.share, worker, slot.0)?;
        }
        let pushed = self.open(slot, env).and_then(|queue| queue.push(env.share, worker, request, env.now));
        if pushed != Ok(Pushed::Queued) {
            // It does not wait, or somebody else does no more.
            self.crowd_left(slot, 1, env);
        }
        let pushed = pushed?;
        if let Pushed::Displaced(displaced) = pushed {
            self.leaving.push_back((displaced.id, Turn::Displaced));
        }
        if pushed != Pushed::Full && !self.busy.contains(&slot) {
            self.busy.push(slot);
        }
        Ok(pushed != Pushed::Full)
    }

    /// A request waits no more, for its client left or something else answered it.
    pub fn leave(&mut self, slot: SlotId, stream: u32, env: &Env<'_>) {
        let waited = self.queue(slot).is_some_and(|queue| queue.remove(env.share, stream, env.now));
        if waited {
            self.crowd_left(slot, 1, env);
        } else {
            self.leaving.retain(|(leaving, _)| *leaving != stream);
        }
    }

    /// A place of a limit has been given back at this worker.
    pub fn freed(&mut self, slot: SlotId) {
        // Of fewer limits all are looked at anyhow.
        if self.busy.len() > LOOKS && self.freed.len() < LOOKS {
            self.freed.push(slot);
        }
    }

    /// Whose turn it is, if anybody's.
    pub fn next(&mut self, concurrency: &Concurrency, env: &mut Env<'_>) -> Option<(u32, Turn)> {
        let mut expired = std::mem::take(&mut self.expired);
        let mut turn = None;
        while turn.is_none()
            && let Some(slot) = self.freed.pop()
        {
            turn = self.look(slot, concurrency, &mut expired, env);
        }
        for _ in 0..self.busy.len().min(LOOKS) {
            if turn.is_some() {
                break;
            }
            let at = if self.next < self.busy.len() { self.next } else { 0 };
            let Some(&slot) = self.busy.get(at) else { break };
            turn = self.look(slot, concurrency, &mut expired, env);
            if self.queue(slot).is_none_or(|queue| queue.is_empty()) {
                // The last one stands here now.
                self.busy.swap_remove(at);
                self.next = at;
            } else {
                self.next = at.saturating_add(1);
            }
        }
        self.leaving.extend(expired.drain(..).map(|waiting| (waiting.id, Turn::Late)));
        self.expired = expired;
        turn.map(|(waiting, place)| (waiting.id, Turn::Enters(place))).or_else(|| self.leaving.pop_front())
    }

    /// Whose turn it is at one limit, and those who have waited there for too long.
    fn look(
        &mut self,
        slot: SlotId,
        concurrency: &Concurrency,
        expired: &mut Vec<queue::Waiting>,
        env: &mut Env<'_>,
    ) -> Option<(queue::Waiting, What)> {
        let (share, now) = (env.share, env.now);
        let before = expired.len();
        let queue = self.queue(slot)?;
        queue.expire(share, now, expired);
        let next = queue.pop(share, now, &mut Places { concurrency, slot, env });
        self.crowd_left(slot, expired.len().saturating_sub(before).saturating_add(usize::from(next.is_some())), env);
        next
    }

    /// So many of those who waited at a limit here do so no more.
    fn crowd_left(&mut self, slot: SlotId, many: usize, env: &Env<'_>) {
        if let Some(crowd) = &mut self.crowd {
            crowd.leave(env.share, slot.0, many);
        }
    }

    /// What time alone changes: the queues go where the limits are once nobody waits here, and lengths are corrected by what a
    /// heartbeat found.
    pub fn tick(&mut self, limits: &mut ConcurrencyLimits, env: &mut Env<'_>) -> Result<(), ShareError> {
        let idle = self.leaving.is_empty() && self.queues.iter().flatten().all(|queue| queue.is_empty());
        let mut moved = Ok(());
        if idle && self.name != name(self.settings, limits) {
            moved = Self::new(self.settings, limits, env).map(|there| *self = there);
        }
        // Whatever became of that: who does not show that it is alive is taken for dead.
        let due = self.waiters.is_due(env.now);
        let beat = self.waiters.beat(env.share, env.now, env.random)?;
        if beat != Beat::default() {
            self.heed(&beat, limits, env)?;
            self.waiters.heeded(&beat);
        }
        if due && self.crowd.is_some() {
            // Where nobody waits nothing need be kept. Not before it is known that nobody has taken this worker for dead: what is
            // made up for then is counted by the queue.
            self.queues.iter_mut().for_each(|place| drop(place.take_if(|queue| queue.is_empty())));
        }
        moved
    }

    /// Corrects lengths by what a heartbeat found. On an error the next one finds the same.
    fn heed(&mut self, beat: &Beat, limits: &mut ConcurrencyLimits, env: &Env<'_>) -> Result<(), ShareError> {
        if !beat.dead.is_empty() {
            // The dead may have had requests waiting where nobody has at this worker.
            for slot in limits.slots(env.share)? {
                if self.crowd.as_mut().map_or(Ok(true), |crowd| crowd.may_wait(env.share, slot.0))? {
                    self.open(slot, env)?;
                }
            }
        }
        self.queues.iter_mut().flatten().try_for_each(|queue| queue.heed(env.share, beat))?;
        // Last: it says where the others are.
        self.crowd.as_mut().map_or(Ok(()), |crowd| crowd.heed(env.share, beat))
    }

    fn queue(&mut self, slot: SlotId) -> Option<&mut Queue> {
        self.queues.get_mut(usize::try_from(slot.0).ok()?)?.as_deref_mut()
    }

    /// The queue of a limit where somebody may wait, at any worker. Where shared state fails nobody is ahead.
    fn crowded(&mut self, slot: SlotId, env: &Env<'_>) -> Option<&mut Queue> {
        if self.queue(slot).is_none()
            && let Some(crowd) = &mut self.crowd
            && crowd.may_wait(env.share, slot.0) == Ok(false)
        {
            return None;
        }
        self.open(slot, env).ok()
    }

    fn open(&mut self, slot: SlotId, env: &Env<'_>) -> Result<&mut Queue, ShareError> {
        let at = usize::try_from(slot.0).unwrap_or(usize::MAX);
        if self.queues.len() <= at {
            self.queues.resize_with(at.saturating_add(1), || None);
        }
        match self.queues.get_mut(at).ok_or(ShareError::Unavailable)? {
            Some(queue) => Ok(queue),
            place => {
                let name = format!("{}.{}", self.name, slot.0);
                let queue = Queue::new(self.settings, env.share, &name, &format!("{name}.length"))?;
                Ok(place.insert(Box::new(queue)))
            }
        }
    }
}

impl Permit {
    /// The stream that this is the permit of: what the permit's queues know it by.
    pub fn of_stream(&mut self, stream: u32) {
        self.stream = stream;
    }

    /// The turn of the permit's stream has come: [`Engine::resume`] is to be asked next. Given back if it does not wait.
    ///
    /// # Errors
    /// The turn, which [`Engine::forgo`] takes.
    #[expect(clippy::result_large_err, reason = "it is moved on whichever way it goes, and boxing it would allocate")]
    pub fn grant(&mut self, woken: Woken) -> Result<(), Woken> {
        let Some(waiting) = self.waiting.as_mut().filter(|waiting| waiting.seat.is_some() && waiting.turn.is_none())
        else {
            return Err(woken);
        };
        waiting.turn = Some(match woken.turn {
            Turn::Enters(what) => {
                self.held.push(Held { policy: waiting.policy, what });
                if !self.called.contains(&waiting.policy) {
                    self.called.push(waiting.policy);
                }
                Come::HasPlace
            }
            Turn::Late => Come::Late,
            Turn::Displaced => Come::Displaced,
        });
        Ok(())
    }
}

impl Engine {
    /// Whose turn it is in one of the queues, if anybody's. To be asked in callbacks that return nothing, while requests
    /// wait: when one has ended, and every millisecond or two.
    pub fn wake(&mut self, env: &mut Env<'_>) -> Option<Woken> {
        self.policies.iter().enumerate().find_map(|(policy, made)| {
            let (stream, turn) = made.concurrency.as_ref()?.wake(env)?;
            Some(Woken { stream, policy, turn })
        })
    }

    /// Nobody takes this turn.
    pub fn forgo(&self, woken: Woken, env: &mut Env<'_>) {
        if let Turn::Enters(What::Place { place, .. }) = woken.turn
            && let Some(concurrency) = self.policies.get(woken.policy).and_then(|policy| policy.concurrency.as_ref())
        {
            concurrency.leave(place, None, 0, env);
        }
    }

    /// The request has to wait for a place.
    pub(super) fn line_up(&mut self, at: usize, line: Line, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        let policy = self.work.applied.get(at)?.policy;
        let concurrency = self.policies.get(policy).and_then(|policy| policy.concurrency.as_ref())?;
        // Who waits in one queue after another has waited all the while.
        let since = *permit.queued_since.get_or_insert(env.now);
        if concurrency.line_up(line, permit.stream, since, env) {
            self.hold(policy, Some(line.seat), permit, env);
            return None;
        }
        let refusal = concurrency.refusal(Reason::Overloaded, line.seat.slot, env);
        // Chance had its say before it was to wait.
        self.reject(at, refusal, permit, env)
    }

    /// A request waits no more in the queue where it did, unless its turn has come there.
    pub(super) fn quit(&self, waiting: &Waiting, stream: u32, env: &Env<'_>) {
        if let (Some(seat), None) = (waiting.seat, waiting.turn)
            && let Some(concurrency) = self.policies.get(waiting.policy).and_then(|policy| policy.concurrency.as_ref())
        {
            concurrency.quit(seat, stream, env);
        }
    }

    /// A request that waited has been in the queue for too long, or was displaced.
    pub(super) fn turn_away(&mut self, waiting: &Waiting, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        let reason = match waiting.turn? {
            Come::HasPlace => return None,
            Come::Late => Reason::QueueTimeout,
            Come::Displaced => Reason::Displaced,
        };
        let at = self.work.applied.iter().position(|applied| applied.policy == waiting.policy)?;
        let concurrency = self.policies.get(waiting.policy)?.concurrency.as_ref()?;
        let refusal = concurrency.refusal(reason, waiting.seat?.slot, env);
        self.reject(at, refusal, permit, env)
    }
}
