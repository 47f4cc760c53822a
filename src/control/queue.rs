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
//!   5 ms. For a level the queue is what goes before it or with it: less important requests that always wait take no
//!   patience away from it.
//!
//! A full queue lets a more important request displace one of the least important level; of these the one that would be
//! served last.
//!
//! A request that needs places of other limits too may have its turn here and give it up, since it finds none there. When it
//! comes back it is *called*: it goes first within its level, and displaces one of its own level too, since it has waited here
//! already.
//!
//! A request with a deadline leaves when that comes, if it comes first.
//!
//! # Over all workers
//!
//! Each worker holds the requests of its own streams, and can displace or serve only those. How many wait at each level
//! is known to all, so that a worker *yields*: it leaves a free place alone for the moment if a more important request
//! waits elsewhere, or if others wait elsewhere at the same level and it owes them a place: each level's places go to the
//! workers in proportion to those that wait there (see `debts.rs`, also for how long somebody waits at most). The others look
//! every millisecond or two; a worker that does not take its turn within `TURN`, because it is busy or dead, loses it. Where
//! turns are lost again and again, more and more places are taken between one that is left and the next, unless more have
//! come to wait elsewhere: nobody is slowed for long by requests of a worker that has died, which count until that is noticed. So the order of levels holds over all workers, and of equal ones no
//! worker's requests starve, at the price of a place that is idle for a moment now and then. Within a level the order is
//! each worker's own.

mod bytes;
mod crowd;
mod debts;
mod request;
mod settings;

use std::collections::VecDeque;

use super::Nanos;
use super::counted::{Beat, Counted, Name};
use super::turns::{Turn, Turns};
use crate::share::{ShareError, SharedState};

pub use self::crowd::{Crowd, NUMBERS};
use self::debts::{Debts, Waiters};
pub use self::request::{Pushed, Standing, Waiting};
pub use self::settings::{Order, Settings};

/// The patience of a queue that stands is this part of the longest wait.
const IMPATIENCE: Nanos = 20;

/// How long a place is left for those who wait elsewhere: a few times the pause after which each worker looks.
const TURN: Nanos = 4_000_000;

/// The same where they are more important.
const TURN_OF_MORE_IMPORTANT: Nanos = 20_000_000;

/// The limit that a queue is for, as those who wait for its places see it.
pub trait Places {
    /// A place.
    type Place;
    /// Whether so many seem free for a level.
    fn free(&mut self, level: usize, places: i64) -> bool;
    /// Takes one for a level, if it can.
    fn enter(&mut self, level: usize) -> Option<Self::Place>;
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
    /// By level: when nobody of it or above was last seen waiting, or the first of them came since.
    empty_at: Vec<Nanos>,
    /// Nobody's time is over before.
    look_at: Nanos,
    /// Places that are left to others.
    turns: Turns,
    debts: Debts,
}

impl Queue {
    /// An empty queue of this name. `length` is the name of its length over all workers.
    ///
    /// # Errors
    /// [`ShareError`] where numbers are not shared.
    pub fn new(settings: Settings, share: &dyn SharedState, name: &str, length: &str) -> Result<Self, ShareError> {
        let levels = vec![VecDeque::new(); settings.levels.max(1)];
        let by_level = format!("{name}.level").into();
        let counted = |level| Counted::open(share, Name::of(&by_level, level), &format!("{length}.level.{level}"));
        let several = if levels.len() > 1 { u32::try_from(levels.len()).unwrap_or(u32::MAX) } else { 0 };
        Ok(Self {
            settings,
            length: Counted::open(share, name.into(), length)?,
            by_level: (0..several).map(counted).collect::<Result<_, _>>()?,
            empty_at: vec![0; levels.len()],
            look_at: Nanos::MAX,
            turns: Turns::default(),
            debts: Debts::new(share, name, levels.len())?,
            levels,
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
        self.note_empty(now);
        let most = i64::from(self.settings.max_length);
        // What can fail does so before anybody is out of the queue, or counted.
        if let Some(count) = self.by_level.get_mut(level) {
            count.join(share, worker)?;
        }
        // Who displaces another takes over its count.
        let displaced = match self.length.enter(share, worker, |length| length <= most)? {
            Ok(_) => None,
            Err(_) => match self.least_important(level, request.called, now) {
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
        if self.here(level) == 0 {
            self.debts.begins(share, level, now);
        }
        if let Some(queue) = self.levels.get_mut(level) {
            // Who has waited elsewhere comes before those who came later.
            let at = queue.partition_point(|waiting| waiting.since <= request.since);
            queue.insert(at, Waiting { level, ..request });
        }
        let over_at = request.deadline.min(request.since.saturating_add(self.patience(level, now)));
        self.look_at =
            if first { self.next_look(now) } else { self.look_at.min(over_at).min(self.stands_at(level, now)) };
        Ok(displaced.map_or(Pushed::Queued, Pushed::Displaced))
    }

    /// Whether a request of this level could wait now: it has room, or somebody to displace.
    pub fn has_room(&self, share: &dyn SharedState, level: usize, called: bool) -> bool {
        let mut below = self.levels.iter().skip(displaces_from(level, called)).flatten();
        self.length(share) < i64::from(self.settings.max_length) || below.any(|waiting| !waiting.called)
    }

    /// Takes the next request out if its level has a place; a less important one never goes before it. To be called when
    /// a place may be free until it gives none.
    pub fn pop<P: Places>(
        &mut self,
        share: &dyn SharedState,
        now: Nanos,
        places: &mut P,
    ) -> Option<(Waiting, P::Place)> {
        let waits = |queue: &VecDeque<Waiting>, patience| queue.iter().any(|waiting| !over(waiting, patience, now));
        let mut levels = self.levels.iter().enumerate();
        let (level, queue) = levels.find(|(level, queue)| waits(queue, self.patience(*level, now)))?;
        let (newest, patience) = (self.newest_first(level, now), self.patience(level, now));
        let mut positions = 0..queue.len();
        let live = |at: &usize| queue.get(*at).is_some_and(|waiting| !over(waiting, patience, now));
        let called = |at: &usize| live(at) && queue.get(*at).is_some_and(|waiting| waiting.called);
        let first = positions.clone().find(called);
        let at = first.or_else(|| if newest { positions.rfind(live) } else { positions.find(live) })?;
        if !places.free(level, 1) {
            self.turns.taken();
            return None;
        }
        let waiters = self.waiters(share, level);
        let one_is_theirs = self.yields(share, level, waiters, now)?;
        if one_is_theirs && !places.free(level, 2) {
            return None;
        }
        let place = places.enter(level)?;
        if !one_is_theirs {
            self.turns.over();
        }
        self.debts.serves(share, level, waiters);
        let taken = self.levels.get_mut(level)?.remove(at)?;
        self.left(share, level, now);
        Some((taken, place))
    }

    /// Whether a free place is left to those who wait elsewhere, this time; none where all are, to more important ones.
    fn yields(&mut self, share: &dyn SharedState, level: usize, waiters: Waiters, now: Nanos) -> Option<bool> {
        // Nobody has 2^63 requests that wait.
        let more_important = (0..level).map(|level| self.elsewhere(share, level)).fold(0, i64::saturating_add);
        if more_important > 0 {
            let turn = self.turns.leaves(more_important, TURN_OF_MORE_IMPORTANT, now);
            return (turn != Turn::Left).then_some(false);
        }
        if waiters.elsewhere <= 0 || !self.debts.heed(share, level, waiters, now) {
            self.turns.over();
            return Some(false);
        }
        let turn = self.turns.leaves(waiters.elsewhere, TURN, now);
        if turn == Turn::Lost {
            self.debts.forgive(level);
        }
        Some(turn == Turn::Left)
    }

    fn here(&self, level: usize) -> i64 {
        self.levels.get(level).and_then(|queue| i64::try_from(queue.len()).ok()).unwrap_or(0)
    }

    /// How many wait at a level, at other workers.
    fn elsewhere(&self, share: &dyn SharedState, level: usize) -> i64 {
        self.at_level(share, level).saturating_sub(self.here(level))
    }

    fn waiters(&self, share: &dyn SharedState, level: usize) -> Waiters {
        Waiters { here: self.here(level), elsewhere: self.elsewhere(share, level) }
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
        let before = expired.len();
        for level in 0..self.levels.len() {
            let patience = self.patience(level, now);
            let Some(queue) = self.levels.get_mut(level) else { break };
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
        let looks = self.levels.iter().enumerate().filter(|(_, queue)| !queue.is_empty()).map(|(level, queue)| {
            let patience = self.patience(level, now);
            let over_at = |waiting: &Waiting| waiting.deadline.min(waiting.since.saturating_add(patience));
            queue.iter().map(over_at).fold(self.stands_at(level, now), Nanos::min)
        });
        looks.min().unwrap_or(Nanos::MAX)
    }

    /// When the queue begins to stand for a level, if it may.
    fn stands_at(&self, level: usize, now: Nanos) -> Nanos {
        if self.settings.order != Order::AdaptiveLifo || self.stands(level, now) {
            return Nanos::MAX;
        }
        let empty_at = self.empty_at.get(level).copied().unwrap_or(now);
        empty_at.saturating_add(self.settings.max_wait).saturating_add(1)
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

    /// How many of those that wait, over all workers, are to be served before a request of this level that asks now.
    /// While there are any it waits too, though there may be a place. Of those at other workers it is not known since when
    /// they wait: they go before whoever has not been called.
    pub fn ahead(&self, share: &dyn SharedState, level: usize, standing: Standing, now: Nanos) -> i64 {
        let more_important = |level| (0..level).map(|level| self.at_level(share, level)).fold(0, i64::saturating_add);
        match standing {
            Standing::New if !self.newest_first(level, now) => {
                let below = level.saturating_add(1);
                if below >= self.levels.len() { self.length(share) } else { more_important(below) }
            }
            Standing::Since(since) if !self.newest_first(level, now) => {
                let older = self.levels.get(level).map_or(0, |queue| queue.partition_point(|one| one.since < since));
                // Nobody has 2^63 requests that wait.
                let older = i64::try_from(older).unwrap_or(i64::MAX).saturating_add(self.elsewhere(share, level));
                more_important(level).saturating_add(older)
            }
            // Nor does it pass by those who are owed the next place.
            _ if self.debts.owes(level) => more_important(level).saturating_add(self.elsewhere(share, level)),
            _ => more_important(level),
        }
    }

    /// Whether a request of this level has waited for too long already to wait here.
    pub fn is_late(&self, level: usize, standing: Standing, now: Nanos) -> bool {
        matches!(standing, Standing::Since(since) | Standing::Called(since)
            if now.saturating_sub(since) >= self.patience(level, now))
    }

    /// Corrects the length by what [`super::Workers::beat`] found.
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

    /// The longest a request of a level may wait now.
    pub fn patience(&self, level: usize, now: Nanos) -> Nanos {
        if self.settings.order == Order::AdaptiveLifo && self.stands(level, now) {
            self.settings.max_wait / IMPATIENCE
        } else {
            self.settings.max_wait
        }
    }

    fn newest_first(&self, level: usize, now: Nanos) -> bool {
        match self.settings.order {
            Order::Fifo => false,
            Order::Lifo => true,
            Order::AdaptiveLifo => self.stands(level, now),
        }
    }

    fn stands(&self, level: usize, now: Nanos) -> bool {
        let since = self.empty_at.get(level).filter(|_| !self.is_empty_down_to(level));
        since.is_some_and(|since| now.saturating_sub(*since) > self.settings.max_wait)
    }

    fn is_empty_down_to(&self, level: usize) -> bool {
        self.levels.iter().take(level.saturating_add(1)).all(VecDeque::is_empty)
    }

    /// Notes for which levels the queue is empty now.
    fn note_empty(&mut self, now: Nanos) {
        for (queue, empty_at) in self.levels.iter().zip(&mut self.empty_at) {
            if !queue.is_empty() {
                break;
            }
            *empty_at = now;
        }
    }

    fn left(&mut self, share: &dyn SharedState, level: usize, now: Nanos) {
        self.length.leave(share);
        if let Some(count) = self.by_level.get_mut(level) {
            count.leave(share);
        }
        self.note_empty(now);
    }

    /// Takes out the one who would be served last of the least important level here that gives way to a request of this one.
    fn least_important(&mut self, level: usize, called: bool, now: Nanos) -> Option<Waiting> {
        (displaces_from(level, called)..self.levels.len()).rev().find_map(|level| {
            let newest_first = self.newest_first(level, now);
            let queue = self.levels.get_mut(level)?;
            let mut waiting = queue.iter();
            let at = if newest_first {
                waiting.position(|waiting| !waiting.called)
            } else {
                waiting.rposition(|waiting| !waiting.called)
            };
            queue.remove(at?)
        })
    }
}

/// The most important level that gives way to a request of this one; but nobody does who was called.
fn displaces_from(level: usize, called: bool) -> usize {
    if called { level } else { level.saturating_add(1) }
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
