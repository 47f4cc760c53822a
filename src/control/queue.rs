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
//! Each worker holds the requests of its own streams, and a worker can displace or serve only those. A request with a
//! deadline leaves when that comes, if it comes first.

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
    /// Oldest in front.
    levels: Vec<VecDeque<Waiting>>,
    /// When the queue was last seen empty, or got its first request since.
    empty_at: Nanos,
}

impl Queue {
    /// An empty queue of this name. `length` is the name of its length over all workers.
    ///
    /// # Errors
    /// [`ShareError`] where numbers are not shared.
    pub fn new(settings: Settings, share: &dyn SharedState, name: &str, length: &str) -> Result<Self, ShareError> {
        let levels = vec![VecDeque::new(); settings.levels.max(1)];
        Ok(Self { settings, length: Counted::open(share, name, length)?, levels, empty_at: 0 })
    }

    /// A request wants to wait, at this worker. Levels beyond the least important are that one.
    ///
    /// # Errors
    /// [`ShareError`] where the length cannot be counted; it does not wait then.
    pub fn push(&mut self, share: &dyn SharedState, worker: u32, request: Waiting) -> Result<Pushed, ShareError> {
        let level = request.level.min(self.levels.len().saturating_sub(1));
        if self.is_empty() {
            self.empty_at = request.since;
        }
        let most = i64::from(self.settings.max_length);
        // Who displaces another takes over its count.
        let displaced = match self.length.enter(share, worker, |length| length <= most)? {
            Ok(_) => None,
            Err(_) => match self.least_important_below(level, request.since) {
                Some(displaced) => Some(displaced),
                None => return Ok(Pushed::Full),
            },
        };
        if let Some(queue) = self.levels.get_mut(level) {
            queue.push_back(Waiting { level, ..request });
        }
        Ok(displaced.map_or(Pushed::Queued, Pushed::Displaced))
    }

    /// Takes the next request out, if its level may have a place; a less important one never goes before it. To be
    /// called when a place may be free until it gives none. `admits` takes a place for a level, or says no.
    pub fn pop(&mut self, share: &dyn SharedState, now: Nanos, admits: impl FnOnce(usize) -> bool) -> Option<Waiting> {
        let newest = self.newest_first(now);
        let patience = self.patience(now);
        let queue = self.levels.iter_mut().find(|queue| queue.iter().any(|waiting| !over(waiting, patience, now)))?;
        let mut places = 0..queue.len();
        let live = |at: &usize| queue.get(*at).is_some_and(|waiting| !over(waiting, patience, now));
        let at = if newest { places.rfind(live) } else { places.find(live) }?;
        if !admits(queue.get(at)?.level) {
            return None;
        }
        let taken = queue.remove(at)?;
        self.left(share, now, 1);
        Some(taken)
    }

    /// Takes out those that have waited for too long or whose deadline has come. To be called every few milliseconds
    /// while somebody waits.
    pub fn expire(&mut self, share: &dyn SharedState, now: Nanos, expired: &mut Vec<Waiting>) {
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
        self.left(share, now, expired.len().saturating_sub(before));
    }

    /// The request waits no more: its client left. Whether it waited here.
    pub fn remove(&mut self, share: &dyn SharedState, id: u32, now: Nanos) -> bool {
        for queue in &mut self.levels {
            if let Some(at) = queue.iter().position(|waiting| waiting.id == id) {
                queue.remove(at);
                self.left(share, now, 1);
                return true;
            }
        }
        false
    }

    /// How many of those that wait here would be served before a request of this level that comes now. While there are
    /// any it waits too, though there may be a place.
    pub fn ahead(&self, level: usize, now: Nanos) -> usize {
        let before = if self.newest_first(now) { level } else { level.saturating_add(1) };
        self.levels.iter().take(before).map(VecDeque::len).fold(0, usize::saturating_add)
    }

    /// Corrects the length by what [`super::concurrency::ConcurrencyLimits::tick`] found.
    ///
    /// # Errors
    /// [`ShareError`] where the length cannot be counted.
    pub fn heed(&mut self, share: &dyn SharedState, beat: &Beat) -> Result<(), ShareError> {
        self.length.heed(share, beat).map(|_| ())
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

    fn left(&mut self, share: &dyn SharedState, now: Nanos, count: usize) {
        for _ in 0..count {
            self.length.leave(share);
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

/// Whether a request can be answered in time: it waits until `ahead` others have been served, one every `every`, and
/// then takes as long as is `usual`. What is not known takes no time.
pub fn in_time(remaining: Nanos, ahead: usize, every: Option<Nanos>, usual: Option<Nanos>) -> bool {
    let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
    let wait = every.unwrap_or(0).saturating_mul(ahead);
    wait.saturating_add(usual.unwrap_or(0)) <= remaining
}
