//! A policy's load shedding: which limit and level a request belongs to, places taken and given back, the limit told.
//!
//! - With a *key* each of its values has a limit of its own, a bulkhead. Requests without a value have one together: to
//!   leave a header out is no way around a limit.
//! - A request's *level* is the first whose match holds, else the default. A level enters only while in-flight is below
//!   its share of the limit, so that the most important one is the last to go.
//! - Where there is a *queue*, a request that finds no place waits for one, and so does one that comes while others wait
//!   who go before it.
//! - A request with a *deadline* is rejected on arrival if its wait and what requests usually take together are longer
//!   than the time it has left. While nothing is in flight it is let through: what was usual may have passed.
//! - A place is *released* when the stream ends, or with its response headers; whichever it is, a stream that ends before
//!   that gives its place back.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::{self, KeySource, LimitAlgorithm, Outcomes, Release};
use crate::control::concurrency::{Algorithm, Bounds, ConcurrencyLimits, Ended, Place, Settings, Share, SlotId};
use crate::control::queue::{self, Stake, answered_in};
use crate::control::{Beat, Nanos};
use crate::matching::{KeyBuf, KeyExtractor, Matcher, Request};

use super::Env;
use super::compile::{Policy, digest, nanos};
use super::deadline::Deadline;
use super::decide::{Refusal, hash};
use super::gauges::Told;
use super::outcome::Ending;
use super::permit::What;
use super::queues::{Line, Queues, Turn};
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

/// What the limits depend on: while all of it stays the same an update leaves them alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct MadeOf {
    limit: config::ConcurrencyLimit,
    key: Vec<KeySource>,
    max_keys: u32,
    /// Some levels have less than the whole share.
    shares: bool,
    levels: usize,
    queue: Option<config::Queue>,
    /// Latency is measured, whatever the limit.
    measure: bool,
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
        policy: &str,
        scope: &str,
        before: Option<&Policy>,
        env: &mut Env<'_>,
    ) -> Result<Self, String> {
        let levels = settings.priority.as_ref().map(Levels::new).transpose()?;
        let made_of = MadeOf {
            limit: settings.limit,
            key: settings.key.clone(),
            max_keys: if settings.key.is_empty() { 0 } else { settings.max_keys },
            shares: levels.as_ref().is_some_and(|levels| levels.all.iter().any(|(_, share)| *share != Share::ALL)),
            levels: levels.as_ref().map_or(1, |levels| levels.all.len()),
            queue: settings.queue,
            measure: settings.deadline_header.is_some(),
        };
        let kept = before.and_then(|before| before.concurrency.as_ref()).filter(|kept| kept.made_of == made_of);
        let (limits, queues) = match kept {
            Some(kept) => (Rc::clone(&kept.limits), kept.queues.clone()),
            None => {
                // What is found stays while the limits are the same, whatever changes around them.
                let MadeOf { limit, key, max_keys, .. } = &made_of;
                let place = format!("{scope}/{policy}/load_shedding/{:016x}", digest(&(limit, key, max_keys)));
                // Whatever the limit, what is in flight stays so. Not the stat itself: plugins of other scopes may have
                // a policy of this name, and add to the same stat.
                let inflight = format!("{scope}/{policy}/inflight");
                let opened = ConcurrencyLimits::new(made_of.settings(), env.share, &place, &inflight);
                let opened = opened.map_err(|error| {
                    format!("policy {policy}: the host keeps no shared state for the concurrency limit ({error:?})")
                })?;
                let queues = made_of.queue_settings().map(|settings| Queues::new(settings, format!("{place}.queue")));
                (Rc::new(RefCell::new(opened)), queues.map(|queues| Rc::new(RefCell::new(queues))))
            }
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

    /// What a request is told that came at `arrived`. `may_wait`: it can be held.
    pub fn ask(
        &self,
        request: &Request<'_>,
        arrived: Nanos,
        key: &mut KeyBuf,
        may_wait: bool,
        env: &mut Env<'_>,
    ) -> Answer {
        let seat = self.seat(request, key, env);
        let left = self.deadline.as_ref().and_then(|deadline| deadline.remaining(request));
        let left = left.map(|left| left.saturating_sub(env.now.saturating_sub(arrived)));
        let late = |wait| Answer::Refused(Refusal { reason: Reason::PastDeadline, limit: None, wait, left: None });
        if let Some(left) = left
            && self.answered_in(seat, 0) > left
            && !self.may_try(seat, env)
        {
            return late(None);
        }
        let queues = self.queues.as_ref().filter(|_| may_wait);
        let ahead = queues.and_then(|queues| Some(queues.try_borrow_mut().ok()?.ahead(seat, env)));
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
            return late(over);
        }
        let until = match left {
            None => Nanos::MAX,
            Some(left) => env.now.saturating_add(left).saturating_sub(self.answered_in(seat, 0)),
        };
        Answer::MayWait(Line { seat, until }, refusal)
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
        let free = limits.free(env.share, seat.slot, Share::ALL, env.now, env.random);
        free.is_some_and(|(_, inflight)| inflight == 0) || limits.tries(seat.slot, env.now)
    }

    /// A request begins to wait, or fails to.
    pub fn line_up(&self, line: Line, stream: u32, since: Nanos, env: &mut Env<'_>) -> bool {
        let Some(queues) = &self.queues else { return false };
        let (Ok(mut queues), Ok(mut limits)) = (queues.try_borrow_mut(), self.limits.try_borrow_mut()) else {
            return false;
        };
        match queues.line_up(line, (stream, since), &mut limits, env) {
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
    pub fn tick(&self, env: &mut Env<'_>) {
        let Ok(mut limits) = self.limits.try_borrow_mut() else { return };
        let beat = limits.tick(env.share, env.now, env.random);
        let (corrected, mut errors) = (limits.take_corrected(), limits.take_errors());
        if let Some(queues) = &self.queues
            && beat != Beat::default()
            && let Ok(mut queues) = queues.try_borrow_mut()
        {
            errors = errors.saturating_add(u64::from(queues.heed(&beat, &mut limits, env).is_err()));
        }
        drop(limits);
        if corrected != 0 {
            self.count(corrected, env);
        }
        env.count_errors("load_shedding", errors);
        self.tell(env);
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

    fn free(&mut self, level: usize) -> Option<Stake> {
        let share = self.concurrency.share(level);
        let mut limits = self.concurrency.limits.try_borrow_mut().ok()?;
        let (held, inflight) = limits.free(self.env.share, self.slot, share, self.env.now, self.env.random)?;
        Some(Stake { held, inflight })
    }

    fn enter(&mut self, level: usize) -> Option<What> {
        self.concurrency.enter(Seat { slot: self.slot, level }, self.env)
    }
}

impl MadeOf {
    fn settings(&self) -> Settings {
        let algorithm = match self.limit {
            config::ConcurrencyLimit::Fixed(limit) => Algorithm::Fixed(limit),
            config::ConcurrencyLimit::Dynamic { algorithm, initial, min, max } => {
                let bounds = Bounds { initial, min, max };
                match algorithm {
                    LimitAlgorithm::Adaptive => Algorithm::Adaptive(bounds),
                    LimitAlgorithm::Gradient2 => Algorithm::Gradient2(bounds),
                    LimitAlgorithm::Vegas => Algorithm::Vegas(bounds),
                    LimitAlgorithm::Aimd => Algorithm::Aimd(bounds),
                }
            }
        };
        Settings { algorithm, max_keys: self.max_keys, measure: self.measure, levels: self.shares }
    }

    fn queue_settings(&self) -> Option<queue::Settings> {
        let config::Queue { max_length, max_wait, order } = self.queue?;
        let order = match order {
            config::QueueOrder::AdaptiveLifo => queue::Order::AdaptiveLifo,
            config::QueueOrder::Fifo => queue::Order::Fifo,
            config::QueueOrder::Lifo => queue::Order::Lifo,
        };
        Some(queue::Settings { max_length, max_wait: nanos(max_wait), order, levels: self.levels })
    }
}
