//! A policy's load shedding: which limit and level a request belongs to, places taken and given back, the limit told.
//!
//! - With a *key* each of its values has a limit of its own, a bulkhead. Requests without a value have one together: to
//!   leave a header out is no way around a limit.
//! - A request's *level* is the first whose match holds, else the default. A level enters only while in-flight is below
//!   its share of the limit, so that the most important one is the last to go.
//! - Where there is a *queue*, a request that finds no place waits for one, and so does one that comes while others wait
//!   who go before it.
//! - A request with a *deadline* is rejected on arrival if its wait and what requests usually take together are longer
//!   than the time it has left, and whenever it has none left. While nothing is in flight it is let through: what was usual
//!   may have passed; but not where a rate limit is to hold it, for then others go first and find out.
//! - A place is *released* when the stream ends, or with its response headers; whichever it is, a stream that ends before
//!   that gives its place back.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::{self, Outcomes, Release};
use crate::control::Nanos;
use crate::control::concurrency::{ConcurrencyLimits, Ended, Place, Share, SlotId};
use crate::control::queue::{self, Standing, answered_in};
use crate::matching::{KeyBuf, KeyExtractor, Matcher, Request};

use super::Env;
use super::compile::Policy;
use super::deadline::Deadline;
use super::decide::{Refusal, hash};
use super::gauges::Told;
use super::limits::{MadeOf, Opened};
use super::outcome::Ending;
use super::permit::What;
use super::queues::{Line, Queues, Turn};
use super::rates::tell_place;
use super::rejection::Reason;
use super::stats::{self, MetricId};

/// A policy's load shedding.
#[derive(Debug)]
pub(super) struct Concurrency {
    made_of: MadeOf,
    limits: Rc<RefCell<ConcurrencyLimits>>,
    key: KeyExtractor,
    levels: Option<Levels>,
    queues: Option<Rc<RefCell<Queues>>>,
    deadline: Option<Deadline>,
    release: Release,
    inflight: Option<MetricId>,
    limit: Told,
    failures: Outcomes,
}

/// Priority levels, ready.
#[derive(Debug)]
struct Levels {
    /// Most important first. Without a match nobody belongs to a level but by default.
    all: Vec<(Option<Matcher>, Share)>,
    default: usize,
}

/// What a policy's load shedding says to a request.
pub(super) enum Answer {
    /// It has a place.
    Enters(What),
    /// It finds none, and may wait for one; else it is refused with this.
    MayWait(Line, Refusal),
    /// It finds none.
    Refused(Refusal),
}

/// What a request brings along that asks for a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub arrived: Nanos,
    /// It can be held.
    pub may_wait: bool,
    /// What it has behind it.
    pub standing: Standing,
}

/// There is no time left, and none to come back after.
const PAST_DEADLINE: Refusal = Refusal { reason: Reason::PastDeadline, limit: None, wait: None, left: None };

/// Which limit of a policy a request counts under, and how important it is: 0 is the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub slot: SlotId,
    pub level: usize,
}

impl Levels {
    fn new(priority: &config::Priority) -> Result<Self, String> {
        let level =
            |level: &config::Level| Ok((level.matches.as_ref().map(Matcher::new).transpose()?, Share(level.share.0)));
        Ok(Self { all: priority.levels.iter().map(level).collect::<Result<_, String>>()?, default: priority.default })
    }

    fn of(&self, request: &Request<'_>) -> usize {
        let matches = |level: &(Option<Matcher>, Share)| level.0.as_ref().is_some_and(|level| level.matches(request));
        self.all.iter().position(matches).unwrap_or(self.default)
    }
}

impl Concurrency {
    /// Opens the limits of a policy, or takes them over from the engine before: a worker that left its records while its
    /// requests are in flight would be taken for dead by the others, and what it holds for free.
    ///
    /// # Errors
    /// A sentence, when the host shares nothing or a pattern cannot be compiled.
    pub fn new(
        settings: &config::LoadShedding,
        (policy, shadow): (&str, bool),
        scope: &str,
        before: Option<&Policy>,
        env: &mut Env<'_>,
    ) -> Result<Self, String> {
        let levels = settings.priority.as_ref().map(Levels::new).transpose()?;
        let made_of = MadeOf::new(settings, shadow);
        let kept = before.and_then(|before| before.concurrency.as_ref()).filter(|kept| kept.made_of == made_of);
        let Opened { limits, queues } = match kept {
            Some(kept) => Opened { limits: Rc::clone(&kept.limits), queues: kept.queues.clone() },
            None => made_of.open(policy, scope, env)?,
        };
        let concurrency = Self {
            made_of,
            limits,
            key: KeyExtractor::new(&settings.key),
            levels,
            queues,
            deadline: settings.deadline_header.as_deref().map(Deadline::new),
            release: settings.release,
            inflight: env.stats.id(env.metrics, stats::INFLIGHT, &[policy]),
            limit: Told::new(env.stats.id(env.metrics, stats::CONCURRENCY_LIMIT, &[policy])),
            failures: Outcomes::failures(),
        };
        concurrency.tell_place(policy, env);
        concurrency.tell(env);
        Ok(concurrency)
    }

    /// Where a request belongs.
    pub fn seat(&self, request: &Request<'_>, key: &mut KeyBuf, env: &Env<'_>) -> Seat {
        let level = self.levels.as_ref().map_or(0, |levels| levels.of(request));
        if self.key.is_empty() {
            return Seat { slot: SlotId::ONLY, level };
        }
        // Without all of its parts it is left empty: one limit for all such requests.
        let _ = self.key.extract(request, key);
        let hash = hash(env.hash_key, key) as u64;
        let slot = self.limits.try_borrow_mut().map_or(SlotId::ONLY, |mut limits| limits.slot(env.share, hash));
        Seat { slot, level }
    }

    /// What a request is told.
    pub fn ask(&self, request: &Request<'_>, asker: Asker, key: &mut KeyBuf, env: &mut Env<'_>) -> Answer {
        let seat = self.seat(request, key, env);
        let left = self.time_left(request, asker.arrived, env.now);
        if let Some(left) = left
            && (left == 0 || self.answered_in(seat, 0) > left && !self.may_try(seat, env))
        {
            return Answer::Refused(PAST_DEADLINE);
        }
        let queues = self.queues.as_ref().filter(|_| asker.may_wait);
        let ahead = queues.and_then(|queues| Some(queues.try_borrow_mut().ok()?.ahead(seat, asker.standing, env)));
        if ahead.is_none_or(|ahead| ahead <= 0) {
            if let Some(place) = self.enter(seat, env) {
                return Answer::Enters(place);
            }
        } else if let Ok(mut limits) = self.limits.try_borrow_mut() {
            limits.waits(env.share, seat.slot, self.share(seat.level), env.now, env.random);
        }
        let refusal = self.refusal(Reason::Overloaded, seat.slot, env);
        let Some(ahead) = ahead else { return Answer::Refused(refusal) };
        let needed = self.answered_in(seat, ahead.saturating_add(1));
        let over = left.and_then(|left| needed.checked_sub(left)).filter(|over| *over > 0);
        if over.is_some() {
            // Once so much of the queue has been served it would be in time.
            return Answer::Refused(Refusal { wait: over, ..PAST_DEADLINE });
        }
        // Else it would be charged for a moment by rate limits, for nothing.
        let called = matches!(asker.standing, Standing::Called(_));
        let Some(mut queues) = queues.and_then(|queues| queues.try_borrow_mut().ok()) else {
            return Answer::Refused(refusal);
        };
        if queues.is_late(seat, asker.standing, env) {
            // It would displace another, and go itself at once.
            return Answer::Refused(Refusal { reason: Reason::QueueTimeout, ..refusal });
        }
        if !queues.has_room(seat, called, env) {
            return Answer::Refused(refusal);
        }
        let until = match left {
            None => Nanos::MAX,
            Some(left) => env.now.saturating_add(left).saturating_sub(self.answered_in(seat, 0)),
        };
        Answer::MayWait(Line { seat, until, called }, refusal)
    }

    /// How much time a request has left that came at `arrived`, if it says so.
    fn time_left(&self, request: &Request<'_>, arrived: Nanos, now: Nanos) -> Option<Nanos> {
        let left = self.deadline.as_ref()?.remaining(request)?;
        Some(left.saturating_sub(now.saturating_sub(arrived)))
    }

    /// What a request is told that has a place already, if its time is over.
    pub fn too_late(&self, request: &Request<'_>, arrived: Nanos, now: Nanos) -> Option<Refusal> {
        (self.time_left(request, arrived, now)? == 0).then_some(PAST_DEADLINE)
    }

    /// What a request is told that is to be held for so long by a rate limit, if it could not be answered in time then.
    pub fn outlasted(
        &self,
        request: &Request<'_>,
        arrived: Nanos,
        held_for: Nanos,
        key: &mut KeyBuf,
        env: &Env<'_>,
    ) -> Option<Refusal> {
        let left = self.time_left(request, arrived, env.now)?;
        let usual = self.answered_in(self.seat(request, key, env), 0);
        // What passes 584 years is too late by any clock.
        let over = held_for.saturating_add(usual).saturating_sub(left);
        // Once so much of the line has gone on it would be in time, unless it never is.
        let wait = (left > usual).then_some(over.max(1));
        (over > 0 || held_for >= left).then_some(Refusal { wait, ..PAST_DEADLINE })
    }

    /// A refusal for want of a place, with the time in which those who wait now will have been served, where that is known.
    pub fn refusal(&self, reason: Reason, slot: SlotId, env: &Env<'_>) -> Refusal {
        let waiting = self.queues.as_ref().and_then(|queues| Some(queues.try_borrow_mut().ok()?.length(slot, env)));
        let wait = waiting.zip(self.every(slot)).map(|(waiting, every)| answered_in(waiting.max(1), Some(every), None));
        Refusal { reason, limit: None, wait, left: None }
    }

    /// After how long a request is answered that waits until so many have been served.
    fn answered_in(&self, seat: Seat, ahead: i64) -> Nanos {
        let usual = self.limits.try_borrow().ok().and_then(|limits| limits.usual_latency(seat.slot));
        answered_in(ahead, self.every(seat.slot), usual)
    }

    /// How long it is from one free place to the next while all are taken.
    fn every(&self, slot: SlotId) -> Option<Nanos> {
        let limits = self.limits.try_borrow().ok()?;
        limits.usual_latency(slot)?.checked_div(u64::from(limits.limit(slot)))
    }

    /// Whether a request is to be tried that has no time by what is known: where nothing is in flight, or nothing has been
    /// answered lately, what is known may be no longer so, and nobody else would find out.
    fn may_try(&self, seat: Seat, env: &mut Env<'_>) -> bool {
        let Ok(mut limits) = self.limits.try_borrow_mut() else { return true };
        let free = limits.free(env.share, seat.slot, (Share::ALL, 1), env.now, env.random);
        free == Some(0) || limits.tries(seat.slot, env.now)
    }

    /// A request begins to wait, or fails to.
    pub fn line_up(&self, line: Line, stream: u32, since: Nanos, env: &mut Env<'_>) -> bool {
        let Some(queues) = &self.queues else { return false };
        let Ok(mut queues) = queues.try_borrow_mut() else { return false };
        match queues.line_up(line, (stream, since), env) {
            Ok(waits) => waits,
            Err(_) => {
                env.count_errors("load_shedding", 1);
                false
            }
        }
    }

    /// A request waits no more, though its turn has not come.
    pub fn quit(&self, seat: Seat, stream: u32, env: &Env<'_>) {
        if let Some(queues) = &self.queues
            && let Ok(mut queues) = queues.try_borrow_mut()
        {
            queues.leave(seat.slot, stream, env);
        }
    }

    /// Whose turn it is in one of the queues, if anybody's.
    pub fn wake(&self, env: &mut Env<'_>) -> Option<(u32, Turn)> {
        self.queues.as_ref()?.try_borrow_mut().ok()?.next(self, env)
    }

    fn share(&self, level: usize) -> Share {
        self.levels.as_ref().and_then(|levels| levels.all.get(level)).map_or(Share::ALL, |(_, share)| *share)
    }

    /// A place in flight, or none when all are taken.
    fn enter(&self, seat: Seat, env: &mut Env<'_>) -> Option<What> {
        let share = self.share(seat.level);
        let place = self.limits.try_borrow_mut().ok()?.acquire(env.share, seat.slot, share, env.now, env.random)?;
        self.count(1, env);
        Some(What::Place { place, learns: self.learns(), release: self.release })
    }

    /// Gives a place back that was held for `took`. `ending` is how its request ended, if that is known and of use.
    pub fn leave(&self, place: Place, ending: Option<&Ending>, took: Nanos, env: &mut Env<'_>) {
        let ended = ending.map_or(Ended::Ignored, |ending| ending.ended(&self.failures));
        if let Some(queues) = &self.queues
            && let Ok(mut queues) = queues.try_borrow_mut()
        {
            queues.freed(place.slot());
        }
        if let Ok(mut limits) = self.limits.try_borrow_mut() {
            limits.release(env.share, place, ended, took, env.now, env.random);
        }
        self.count(-1, env);
    }

    /// Whether it learns from how requests end. What a response says is read for those that do only.
    fn learns(&self) -> bool {
        self.made_of.measure || matches!(self.made_of.limit, config::ConcurrencyLimit::Dynamic { .. })
    }

    /// What time alone changes.
    pub fn tick(&self, policy: &str, env: &mut Env<'_>) {
        let Ok(mut limits) = self.limits.try_borrow_mut() else { return };
        limits.tick(env.share, env.now, env.random);
        let corrected = limits.take_corrected();
        if let Some(queues) = &self.queues
            && let Ok(mut queues) = queues.try_borrow_mut()
            && queues.tick(&mut limits, env).is_err()
        {
            env.count_errors("load_shedding", 1);
        }
        drop(limits);
        if corrected != 0 {
            self.count(corrected, env);
        }
        self.tell_place(policy, env);
        self.tell(env);
    }

    /// How many bytes the limits and queues of its keys take at most, in each worker.
    pub fn bytes(&self) -> u64 {
        self.made_of.bytes()
    }

    /// Counts what failed, and logs that a limit to be found has no place among what workers share, or has one again, and that
    /// there are more keys than limits.
    fn tell_place(&self, policy: &str, env: &Env<'_>) {
        let Ok(mut limits) = self.limits.try_borrow_mut() else { return };
        env.count_errors("load_shedding", limits.take_errors());
        if let Some(alone) = limits.take_news() {
            tell_place("concurrency limit", policy, alone);
        }
        if let Some(keys) = limits.take_overflow(env.share) {
            log::warn!(
                "concurrency limit {policy}: {keys} keys have limits of their own; all others share one from now on"
            );
        }
    }

    /// Nobody uses it any more: its place is free for other settings, unless others still use it and say so.
    pub fn release_place(&self, env: &Env<'_>) {
        if let Ok(limits) = self.limits.try_borrow() {
            limits.release_place(env.share, env.now);
        }
    }

    /// Tells the limit.
    fn tell(&self, env: &Env<'_>) {
        if let Ok(limits) = self.limits.try_borrow() {
            self.limit.tell(u64::from(limits.lowest()), env);
        }
    }

    /// The gauge of the limit.
    pub fn told(&self) -> &Told {
        &self.limit
    }

    /// Counts places taken and given back, over all workers.
    fn count(&self, delta: i64, env: &Env<'_>) {
        if let Some(id) = self.inflight {
            env.metrics.add(id, delta);
        }
    }
}

/// The places of one limit, for those who wait for them.
pub(super) struct Places<'a, 'e> {
    pub concurrency: &'a Concurrency,
    pub slot: SlotId,
    pub env: &'a mut Env<'e>,
}

impl queue::Places for Places<'_, '_> {
    type Place = What;

    fn free(&mut self, level: usize, places: i64) -> bool {
        let share = self.concurrency.share(level);
        let Ok(mut limits) = self.concurrency.limits.try_borrow_mut() else { return false };
        limits.free(self.env.share, self.slot, (share, places), self.env.now, self.env.random).is_some()
    }

    fn enter(&mut self, level: usize) -> Option<What> {
        self.concurrency.enter(Seat { slot: self.slot, level }, self.env)
    }
}
