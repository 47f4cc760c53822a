//! Turns within a level: what this worker owes to those who wait at others.
//!
//! Everybody who waits at a level is due the same part of its places. While `h` of the `w` that wait there do so at this worker
//! and others elsewhere, each place that it gives to one of its own makes it owe `1 - h/w` of a place, and each that goes to
//! somebody elsewhere takes `h/w` off again, below nothing too: then it is owed something. So each worker is served in proportion to
//! those that wait there, however few places there are, and where nobody has more than it is due nothing changes hands.
//!
//! A place that changes hands is idle until the other worker looks, for a millisecond or so. So it is not done for each, where work is
//! shorter than that: a worker that owes as many as are served in [`SPELL`], and one at least, leaves *one* free place to the
//! others, and takes only what is free beside it, until it owes less than one.
//!
//! How many were served at a level is known to all. What is owed stays while nobody waits, or requests that come one by one
//! and wait for less than their part takes would never have a turn.
//!
//! # How long somebody waits
//!
//! `w` wait, `h` of them at a worker that owes nothing, and at `m` others somebody always does; `s` are served in a spell. Of `t` places
//! that all go to these each of them owes its own less its part of them, together `t h/w`. None owes less than `-2 s` before
//! ([`MOST`]), and once each owes `s` a place is left. So that is before `t` is `m (3 s + 1) w/h`: with 5 ms of work and a limit of 1,
//! where `s` is 2, who waits alone beside a hundred at one other worker has its turn before 707 more, and two that wait equally long at
//! two workers before 14. To each place that is left the moment comes in which it is, [`super::TURN`] at most. A turn that is
//! lost begins it all anew.

use crate::control::Nanos;
use crate::share::{Cell, ShareError, SharedState};

/// A place, in parts. With fewer what is rounded off would count where thousands wait; rounding down favours nobody for long.
const PLACE: i64 = 1 << 20;

/// Who owes as many places as are served in so many milliseconds, or one, gives them back until it owes less than one. With
/// less time more places are idle for a moment, with more somebody waits longer.
const SPELL: u32 = 10;

/// So many are not served in a spell: 100 million a second.
const MOST_IN_SPELL: u32 = 1_000_000;

/// Nobody owes more than so often what is served in a spell, or is owed more: what was long ago counts no more.
const MOST: i64 = 2 * PLACE;

/// What this worker owes, by level.
#[derive(Debug)]
pub(super) struct Debts(Vec<Debt>);

/// The same of one level. Small, since there may be a million of them; what only differences are taken of is kept to its
/// lower half.
#[derive(Debug)]
pub(super) struct Debt {
    owed: i64,
    /// How many were served while others waited elsewhere, over all workers.
    served: Cell,
    /// How many of them have been counted here, or went while nobody waited here.
    seen: u32,
    /// As many places are served in [`SPELL`]: 1 at least.
    spell: u32,
    /// How many have been counted for the next, since when, in milliseconds.
    counted: u32,
    since: u32,
    /// What is owed is being given back.
    leaving: bool,
}

/// Who waits at a level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiters {
    pub here: i64,
    pub elsewhere: i64,
}

impl Debts {
    /// Nothing is owed. `name` is for what workers share.
    ///
    /// # Errors
    /// [`ShareError`] where numbers are not shared.
    pub fn new(share: &dyn SharedState, name: &str, levels: usize) -> Result<Self, ShareError> {
        let debt = |level| {
            let served = share.cell(&format!("{name}.served.{level}"))?;
            Ok(Debt { owed: 0, served, seen: 0, spell: 1, counted: 0, since: 0, leaving: false })
        };
        Ok(Self((0..levels).map(debt).collect::<Result<_, _>>()?))
    }

    /// Somebody begins to wait here, where nobody did.
    pub fn begins(&mut self, share: &dyn SharedState, level: usize, now: Nanos) {
        if let Some(debt) = self.0.get_mut(level) {
            debt.seen = low(share.read(debt.served));
            (debt.since, debt.counted) = (millis(now), 0);
        }
    }

    /// Takes off what went to others. Whether the next place is theirs.
    pub fn heed(&mut self, share: &dyn SharedState, level: usize, waiters: Waiters, now: Nanos) -> bool {
        let Some(debt) = self.0.get_mut(level) else { return false };
        if waiters.elsewhere > 0 {
            let served = low(share.read(debt.served));
            let others = served.wrapping_sub(std::mem::replace(&mut debt.seen, served));
            debt.measure(others, now);
            debt.charge(i64::from(others).saturating_neg(), waiters.here, waiters);
        }
        debt.leaving = debt.owed >= if debt.leaving { PLACE } else { PLACE.saturating_mul(debt.spell.into()) };
        debt.leaving
    }

    /// A place goes to somebody here.
    pub fn serves(&mut self, share: &dyn SharedState, level: usize, waiters: Waiters) {
        if let Some(debt) = self.0.get_mut(level)
            && waiters.elsewhere > 0
        {
            share.add(debt.served, 1);
            debt.seen = debt.seen.wrapping_add(1);
            debt.counted = debt.counted.saturating_add(1);
            debt.charge(1, waiters.elsewhere, waiters);
        }
    }

    /// Those it owes to have not come for it.
    pub fn forgive(&mut self, level: usize) {
        if let Some(debt) = self.0.get_mut(level) {
            (debt.owed, debt.leaving) = (0, false);
        }
    }

    /// Whether a place is owed, by what was last seen.
    pub fn owes(&self, level: usize) -> bool {
        self.0.get(level).is_some_and(|debt| debt.leaving)
    }
}

impl Debt {
    /// Counts how many are served in a spell.
    fn measure(&mut self, more: u32, now: Nanos) {
        self.counted = self.counted.saturating_add(more);
        let now = millis(now);
        if let Some(spells @ 1..) = now.wrapping_sub(self.since).checked_div(SPELL) {
            self.spell = self.counted.checked_div(spells).unwrap_or(1).clamp(1, MOST_IN_SPELL);
            (self.since, self.counted) = (now, 0);
        }
    }

    /// Owes so many places more, each of them the part of the waiters that `due` are.
    fn charge(&mut self, places: i64, due: i64, Waiters { here, elsewhere }: Waiters) {
        // Counts that others are changing may be anything for a moment. What would wrap is far beyond MOST, where it ends anyhow.
        let all = here.saturating_add(elsewhere).max(1);
        let most = MOST.saturating_mul(self.spell.into());
        let more = places.saturating_mul(PLACE).saturating_mul(due) / all;
        self.owed = self.owed.saturating_add(more).clamp(-most, most);
    }
}

/// The lower half.
fn low(number: i64) -> u32 {
    (number & i64::from(u32::MAX)) as u32
}

/// Milliseconds, which come round after seven weeks.
fn millis(now: Nanos) -> u32 {
    ((now / 1_000_000) & u64::from(u32::MAX)) as u32
}
