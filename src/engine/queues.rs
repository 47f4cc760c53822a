//! The queues of a policy, one for each of its limits, and who of them goes on.
//!
//! A queue knows requests by their streams; what a request holds stays with its stream. So its turn is a thing to be
//! handed over: [`Engine::wake`] says whose it is, [`Permit::grant`] takes it, and [`Engine::resume`] acts on it.

use std::collections::VecDeque;

use crate::control::concurrency::{ConcurrencyLimits, SlotId};
use crate::control::queue::{self, Pushed, Queue, Settings};
use crate::control::{Beat, Nanos};
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
}

/// The queues of a policy, as one worker sees them.
#[derive(Debug)]
pub(super) struct Queues {
    settings: Settings,
    name: String,
    /// By slot; `None` where nobody has waited at this worker.
    queues: Vec<Option<Box<Queue>>>,
    /// Where somebody waits at this worker.
    busy: Vec<SlotId>,
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

impl Queues {
    /// Queues of this name.
    pub fn new(settings: Settings, name: String) -> Self {
        Self { settings, name, queues: Vec::new(), busy: Vec::new(), leaving: VecDeque::new(), expired: Vec::new() }
    }

    /// How many are to be served before a request that comes now.
    pub fn ahead(&mut self, seat: Seat, env: &Env<'_>) -> i64 {
        self.open(seat.slot, env).map_or(0, |queue| queue.ahead(env.share, seat.level, env.now))
    }

    /// How many wait for the places of a limit, over all workers.
    pub fn length(&mut self, slot: SlotId, env: &Env<'_>) -> i64 {
        self.open(slot, env).map_or(0, |queue| queue.length(env.share))
    }

    /// A request wants to wait from now on, or since it first waited in another queue. Whether it does.
    pub fn line_up(
        &mut self,
        line: Line,
        (stream, since): (u32, Nanos),
        limits: &mut ConcurrencyLimits,
        env: &mut Env<'_>,
    ) -> Result<bool, ShareError> {
        let Line { seat: Seat { slot, level }, until } = line;
        let worker = limits.worker(env.share, env.random)?;
        let queue = self.open(slot, env)?;
        let request = queue::Waiting { id: stream, level, since, deadline: until };
        let pushed = queue.push(env.share, worker, request, env.now)?;
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
        if !waited {
            self.leaving.retain(|(leaving, _)| *leaving != stream);
        }
    }

    /// Whose turn it is, if anybody's.
    pub fn next(&mut self, concurrency: &Concurrency, env: &mut Env<'_>) -> Option<(u32, Turn)> {
        let (share, now) = (env.share, env.now);
        let mut expired = std::mem::take(&mut self.expired);
        let mut at = 0usize;
        let mut turn = None;
        while let Some(&slot) = self.busy.get(at)
            && turn.is_none()
        {
            let Some(queue) = self.queue(slot) else { break };
            queue.expire(share, now, &mut expired);
            turn = queue.pop(share, now, &mut Places { concurrency, slot, env: &mut *env });
            if queue.is_empty() {
                self.busy.swap_remove(at);
            } else {
                at = at.saturating_add(1);
            }
        }
        self.leaving.extend(expired.drain(..).map(|waiting| (waiting.id, Turn::Late)));
        self.expired = expired;
        turn.map(|(waiting, place)| (waiting.id, Turn::Enters(place))).or_else(|| self.leaving.pop_front())
    }

    /// Corrects the lengths by what a heartbeat found.
    pub fn heed(&mut self, beat: &Beat, limits: &mut ConcurrencyLimits, env: &Env<'_>) -> Result<(), ShareError> {
        if !beat.dead.is_empty() {
            // The dead may have had requests waiting where nobody has at this worker.
            for slot in limits.slots(env.share)? {
                self.open(slot, env)?;
            }
        }
        self.queues.iter_mut().flatten().try_for_each(|queue| queue.heed(env.share, beat))
    }

    fn queue(&mut self, slot: SlotId) -> Option<&mut Queue> {
        self.queues.get_mut(usize::try_from(slot.0).ok()?)?.as_deref_mut()
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

    /// The request has to wait for a place: in the queue it keeps its charges and nothing else.
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
