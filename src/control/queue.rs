//! A bounded queue for requests that found no place: who waits, for how long, who is served next, who gives way.
//!
//! The queue is bounded in length over all workers, and in time. More important levels are served first; within a
//! level the order says who is next:
//!
//! - `Fifo`: the oldest.
//! - `Lifo`: the newest, since it has the most time left.
//! - `AdaptiveLifo` (Facebook, "Fail at Scale", and CoDel): the oldest while the queue drains. When it has not been
//!   empty for as long as a request may wait, it *stands*: then the newest is next, and nobody waits longer than a
//!   twentieth of that time, since who waits long in a queue that stands waits in vain. As published, with 100 ms and
//!   5 ms.
//!
//! A full queue lets a more important request displace one of the least important level; of these the one that would be
//! served last.
//!
//! A request with a deadline leaves when that comes, if it comes first.
//!
//! # Over all workers
//!
//! Each worker holds the requests of its own streams, and can displace or serve only those. How many wait at each level
//! is known to all, so that a worker *yields*: it leaves a free place alone for the moment if a more important request
//! waits elsewhere, or if others wait elsewhere at the same level and it holds more places already than its share of
//! those that wait, plus one. The others look every millisecond or two; a worker that does not take its turn within
//! `TURN`, because it is busy or dead, loses it. So the order of levels holds over all workers, and of equal ones no
//! worker's requests starve, at the price of a place that is idle for a moment now and then. Within a level the order is
//! each worker's own.

use std::collections::VecDeque;

use super::Nanos;
use super::counted::{Beat, Counted};
use crate::share::{ShareError, SharedState};

/// Who is served first within a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newest first and short patience while the queue does not drain.
    AdaptiveLifo,
    /// Oldest first.
    Fifo,
    /// Newest first.
    Lifo,
}

/// What a queue is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Requests waiting at most, over all workers.
    pub max_length: u32,
    /// The longest a request waits.
    pub max_wait: Nanos,
    /// Who is served first within a level.
    pub order: Order,
    /// Levels of importance, at least 1; level 0 is the most important.
    pub levels: usize,
}

/// The patience of a queue that stands is this part of the longest wait.
const IMPATIENCE: Nanos = 20;

/// How long a place is left for those who wait elsewhere: a few times the pause after which each worker looks.
const TURN: Nanos = 4_000_000;

/// The same where they are more important.
const TURN_OF_MORE_IMPORTANT: Nanos = 20_000_000;

/// Places of the limit that a queue is for: what this worker holds, and what all do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stake {
    /// This worker's.
    pub held: i64,
    /// All workers'.
    pub inflight: i64,
}

/// The limit that a queue is for, as those who wait for its places see it.
pub trait Places {
    /// A place.
    type Place;
    /// Whether one seems free for a level; then who holds how many.
    fn free(&mut self, level: usize) -> Option<Stake>;
    /// Takes one for a level, if it can.
    fn enter(&mut self, level: usize) -> Option<Self::Place>;
}

/// A request that waits or waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The request, by its stream's id.
    pub id: u32,
    /// How important it is: 0 is the most.
    pub level: usize,
    /// When it came.
    pub since: Nanos,
    /// When it is of no more use; [`Nanos::MAX`] if that is not known.
    pub deadline: Nanos,
}

/// What became of a request that wanted to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits.
    Queued,
    /// It waits in the place of this less important one, which is to be rejected.
    Displaced(Waiting),
    /// The queue is full of requests at least as important.
    Full,
}

/// One worker's part of a queue.
#[derive(Debug)]
pub struct Queue {
    settings: Settings,
    length: Counted,
    /// The same for each level, where there are several.
    by_level: Vec<Counted>,
    /// Oldest in front.
    levels: Vec<VecDeque<Waiting>>,
    /// When the queue was last seen empty, or got its first request since.
    empty_at: Nanos,
    /// Nobody's time is over before.
    look_at: Nanos,
    /// Since when a free place is left to others.
    yields_since: Option<Nanos>,
}

impl Queue {
    /// An empty queue of this name. `length` is the name of its length over all workers.
    ///
    /// # Errors
    /// [`ShareError`] where numbers are not shared.
    pub fn new(settings: Settings, share: &dyn SharedState, name: &str, length: &str) -> Result<Self, ShareError> {
        let levels = vec![VecDeque::new(); settings.levels.max(1)];
        let counted = |level: usize| {
            let [name, total] = [name, length].map(|name| format!("{name}.level.{level}"));
            Counted::open(share, &name, &total)
        };
        let several = if levels.len() > 1 { levels.len() } else { 0 };
        Ok(Self {
            settings,
            length: Counted::open(share, name, length)?,
            by_level: (0..several).map(counted).collect::<Result<_, _>>()?,
            levels,
            empty_at: 0,
            look_at: Nanos::MAX,
            yields_since: None,
        })
    }

    /// A request wants to wait, at this worker. Levels beyond the least important are that one.
    ///
    /// # Errors
    /// [`ShareError`] where the length cannot be counted; it does not wait then.
    pub fn push(
        &mut self,
        share: &dyn SharedState,
        worker: u32,
        request: Waiting,
        now: Nanos,
    ) -> Result<Pushed, ShareError> {
        let level = request.level.min(self.levels.len().saturating_sub(1));
        let first = self.is_empty();
        if first {
            self.empty_at = now;
        }
        let most = i64::from(self.settings.max_length);
        // Who displaces another takes over its count.
        let displaced = match self.length.enter(share, worker, |length| length <= most)? {
            Ok(_) => None,
            Err(_) => match self.least_important_below(level, now) {
                Some(displaced) => Some(displaced),
                None => return Ok(Pushed::Full),
            },
        };
        if let Some(displaced) = displaced
            && let Some(count) = self.by_level.get_mut(displaced.level)
        {
            count.leave(share);
        }
        if let Some(count) = self.by_level.get_mut(level) {
            // Any number will do: the length of the whole queue is what is bounded.
            let _ = count.enter(share, worker, |_| true)?;
        }
        if let Some(queue) = self.levels.get_mut(level) {
            queue.push_back(Waiting { level, ..request });
        }
        let over_at = request.deadline.min(request.since.saturating_add(self.patience(now)));
        self.look_at = if first { self.next_look(now) } else { self.look_at.min(over_at) };
        Ok(displaced.map_or(Pushed::Queued, Pushed::Displaced))
    }

    /// Takes the next request out if its level has a place; a less important one never goes before it. To be called when
    /// a place may be free until it gives none.
    pub fn pop<P: Places>(
        &mut self,
        share: &dyn SharedState,
        now: Nanos,
        places: &mut P,
    ) -> Option<(Waiting, P::Place)> {
        let newest = self.newest_first(now);
        let patience = self.patience(now);
        let queue = self.levels.iter().find(|queue| queue.iter().any(|waiting| !over(waiting, patience, now)))?;
        let mut positions = 0..queue.len();
        let live = |at: &usize| queue.get(*at).is_some_and(|waiting| !over(waiting, patience, now));
        let at = if newest { positions.rfind(live) } else { positions.find(live) }?;
        let level = queue.get(at)?.level;
        let Some(stake) = places.free(level) else {
            self.yields_since = None;
            return None;
        };
        if self.yields(share, level, stake, now) {
            return None;
        }
        let place = places.enter(level)?;
        self.yields_since = None;
        let taken = self.levels.get_mut(level)?.remove(at)?;
        self.left(share, level, now);
        Some((taken, place))
    }

    /// Whether a free place is left to those who wait elsewhere, this time.
    fn yields(&mut self, share: &dyn SharedState, level: usize, stake: Stake, now: Nanos) -> bool {
        let turn = if (0..level).any(|level| self.elsewhere(share, level) > 0) {
            TURN_OF_MORE_IMPORTANT
        } else if self.has_its_share(share, level, stake) {
            TURN
        } else {
            self.yields_since = None;
            return false;
        };
        now.saturating_sub(*self.yields_since.get_or_insert(now)) < turn
    }

    /// Whether others wait elsewhere at this level, and this worker holds more places than its share of them and one.
    fn has_its_share(&self, share: &dyn SharedState, level: usize, stake: Stake) -> bool {
        let elsewhere = self.elsewhere(share, level);
        let here = self.here(level);
        // Nobody has 2^32 places and as many requests that wait.
        let all = here.saturating_add(elsewhere);
        elsewhere > 0 && stake.held.saturating_sub(1).saturating_mul(all) > stake.inflight.saturating_mul(here)
    }

    fn here(&self, level: usize) -> i64 {
        self.levels.get(level).and_then(|queue| i64::try_from(queue.len()).ok()).unwrap_or(0)
    }

    /// How many wait at a level, at other workers.
    fn elsewhere(&self, share: &dyn SharedState, level: usize) -> i64 {
        self.at_level(share, level).saturating_sub(self.here(level))
    }

    fn at_level(&self, share: &dyn SharedState, level: usize) -> i64 {
        self.by_level.get(level).unwrap_or(&self.length).total(share)
    }

    /// Takes out those that have waited for too long or whose deadline has come. To be called every few milliseconds
    /// while somebody waits; it costs next to nothing before the first of them has.
    pub fn expire(&mut self, share: &dyn SharedState, now: Nanos, expired: &mut Vec<Waiting>) {
        if now < self.look_at {
            return;
        }
        let patience = self.patience(now);
        let before = expired.len();
        for queue in &mut self.levels {
            queue.retain(|waiting| {
                let over = over(waiting, patience, now);
                if over {
                    expired.push(*waiting);
                }
                !over
            });
        }
        for waiting in expired.iter().skip(before) {
            self.left(share, waiting.level, now);
        }
        self.look_at = self.next_look(now);
    }

    /// When somebody's time is over next, or may become so because the queue begins to stand.
    fn next_look(&self, now: Nanos) -> Nanos {
        let patience = self.patience(now);
        let over_at = |waiting: &Waiting| waiting.deadline.min(waiting.since.saturating_add(patience));
        let next = self.levels.iter().flatten().map(over_at).min().unwrap_or(Nanos::MAX);
        if patience < self.settings.max_wait || self.settings.order != Order::AdaptiveLifo {
            return next;
        }
        next.min(self.empty_at.saturating_add(self.settings.max_wait).saturating_add(1))
    }

    /// The request waits no more: its client left. Whether it waited here.
    pub fn remove(&mut self, share: &dyn SharedState, id: u32, now: Nanos) -> bool {
        for queue in &mut self.levels {
            if let Some(at) = queue.iter().position(|waiting| waiting.id == id) {
                let level = queue.remove(at).map_or(0, |waiting| waiting.level);
                self.left(share, level, now);
                return true;
            }
        }
        false
    }

    /// How many of those that wait, over all workers, are to be served before a request of this level that comes now.
    /// While there are any it waits too, though there may be a place.
    pub fn ahead(&self, share: &dyn SharedState, level: usize, now: Nanos) -> i64 {
        let before = if self.newest_first(now) { level } else { level.saturating_add(1) };
        if before >= self.levels.len() {
            return self.length(share);
        }
        (0..before).map(|level| self.at_level(share, level)).fold(0, i64::saturating_add)
    }

    /// Corrects the length by what [`super::concurrency::ConcurrencyLimits::tick`] found.
    ///
    /// # Errors
    /// [`ShareError`] where the length cannot be counted.
    pub fn heed(&mut self, share: &dyn SharedState, beat: &Beat) -> Result<(), ShareError> {
        for count in self.by_level.iter_mut().chain([&mut self.length]) {
            count.heed(share, beat)?;
        }
        Ok(())
    }

    /// Whether nobody waits here.
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(VecDeque::is_empty)
    }

    /// How many wait, over all workers.
    pub fn length(&self, share: &dyn SharedState) -> i64 {
        self.length.total(share)
    }

    /// The longest a request may wait now.
    pub fn patience(&self, now: Nanos) -> Nanos {
        if self.settings.order == Order::AdaptiveLifo && self.stands(now) {
            self.settings.max_wait / IMPATIENCE
        } else {
            self.settings.max_wait
        }
    }

    fn newest_first(&self, now: Nanos) -> bool {
        match self.settings.order {
            Order::Fifo => false,
            Order::Lifo => true,
            Order::AdaptiveLifo => self.stands(now),
        }
    }

    fn stands(&self, now: Nanos) -> bool {
        !self.is_empty() && now.saturating_sub(self.empty_at) > self.settings.max_wait
    }

    fn left(&mut self, share: &dyn SharedState, level: usize, now: Nanos) {
        self.length.leave(share);
        if let Some(count) = self.by_level.get_mut(level) {
            count.leave(share);
        }
        if self.is_empty() {
            self.empty_at = now;
        }
    }

    /// Takes out the one who would be served last of the least important level here that is less important than this.
    fn least_important_below(&mut self, level: usize, now: Nanos) -> Option<Waiting> {
        let newest_first = self.newest_first(now);
        let below = self.levels.iter_mut().skip(level.saturating_add(1));
        let queue = below.rev().find(|queue| !queue.is_empty())?;
        if newest_first { queue.pop_front() } else { queue.pop_back() }
    }
}

fn over(waiting: &Waiting, patience: Nanos, now: Nanos) -> bool {
    now.saturating_sub(waiting.since) >= patience || now >= waiting.deadline
}

/// After how long a request would be answered that waits until `ahead` others have been served, one every `every`, and
/// then takes as long as is `usual`. What is not known takes no time.
pub fn answered_in(ahead: i64, every: Option<Nanos>, usual: Option<Nanos>) -> Nanos {
    let ahead = u64::try_from(ahead).unwrap_or(0);
    // What passes 584 years counts as that: no deadline is so far away.
    every.unwrap_or(0).saturating_mul(ahead).saturating_add(usual.unwrap_or(0))
}
