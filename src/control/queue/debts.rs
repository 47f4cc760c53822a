//! Turns within a level: what this worker owes to those who wait at others.
//!
//! Everybody who waits at a level is due the same part of its places. While `h` of the `w` that wait there do so at this worker
//! and others elsewhere, each place that it gives to one of its own makes it owe `1 - h/w` of a place, and each that goes to
//! somebody elsewhere takes `h/w` off again, below nothing too: then it is owed something. Who owes a whole place leaves the
//! next to the others. So each worker is served in proportion to those that wait there, however few places there are, and
//! where nobody has more than it is due nothing changes hands: a place that does is idle until the other worker looks.
//!
//! How many were served at a level is known to all. What is owed stays while nobody waits, or requests that come one by one
//! and wait for less than their part takes would never have a turn.
//!
//! # How long somebody waits
//!
//! `w` wait, `h` of them at a worker that owes nothing, and at `m` others somebody always does. Of `t` places that all go to
//! these each of them owes its own less its part of them, together `t h/w`. None owes less than minus [`MOST`] before, and none
//! takes one that owes a place, so none comes to owe two. So `t` is less than `4 m w/h`: who waits alone beside a hundred at
//! one other worker has its turn before 404 more, and two that wait equally long at two workers before eight. To each place that
//! is left the moment comes in which it is, [`super::TURN`] at most. A turn that is lost begins it all anew.

use crate::share::{Cell, ShareError, SharedState};

/// A place, in parts. With fewer what is rounded off would count where thousands wait; rounding down favours nobody for long.
const PLACE: i64 = 1 << 20;

/// Who owes so much leaves the next place. With less more places are idle for a moment, with more somebody waits longer.
const TURN_DUE: i64 = PLACE;

/// Nobody owes more, or is owed more: what was long ago counts no more.
const MOST: i64 = 2 * PLACE;

/// What this worker owes, by level.
#[derive(Debug)]
pub(super) struct Debts(Vec<Debt>);

/// The same of one level.
#[derive(Debug)]
pub(super) struct Debt {
    /// How many were served while others waited elsewhere, over all workers.
    served: Cell,
    /// How many of them have been counted here, or went while nobody waited here.
    seen: i64,
    owed: i64,
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
        let debt = |level| Ok(Debt { served: share.cell(&format!("{name}.served.{level}"))?, seen: 0, owed: 0 });
        Ok(Self((0..levels).map(debt).collect::<Result<_, _>>()?))
    }

    /// Somebody begins to wait here, where nobody did.
    pub fn begins(&mut self, share: &dyn SharedState, level: usize) {
        if let Some(debt) = self.0.get_mut(level) {
            debt.seen = share.read(debt.served);
        }
    }

    /// Takes off what went to others. Whether the next place is theirs.
    pub fn heed(&mut self, share: &dyn SharedState, level: usize, waiters: Waiters) -> bool {
        if let Some(debt) = self.0.get_mut(level)
            && waiters.elsewhere > 0
        {
            let served = share.read(debt.served);
            let others = served.saturating_sub(std::mem::replace(&mut debt.seen, served));
            debt.owes(others.saturating_neg(), waiters.here, waiters);
        }
        self.owes(level)
    }

    /// A place goes to somebody here.
    pub fn serves(&mut self, share: &dyn SharedState, level: usize, waiters: Waiters) {
        if let Some(debt) = self.0.get_mut(level)
            && waiters.elsewhere > 0
        {
            share.add(debt.served, 1);
            debt.seen = debt.seen.saturating_add(1);
            debt.owes(1, waiters.elsewhere, waiters);
        }
    }

    /// Those it owes to have not come for it.
    pub fn forgive(&mut self, level: usize) {
        if let Some(debt) = self.0.get_mut(level) {
            debt.owed = 0;
        }
    }

    /// Whether a place is owed, by what was last seen.
    pub fn owes(&self, level: usize) -> bool {
        self.0.get(level).is_some_and(|debt| debt.owed >= TURN_DUE)
    }
}

impl Debt {
    /// Owes so many places more, each of them the part of the waiters that `due` are.
    fn owes(&mut self, places: i64, due: i64, Waiters { here, elsewhere }: Waiters) {
        // Counts that others are changing may be anything for a moment. What would wrap is far beyond MOST, where it ends anyhow.
        let all = here.saturating_add(elsewhere).max(1);
        let more = places.saturating_mul(PLACE).saturating_mul(due) / all;
        self.owed = self.owed.saturating_add(more).clamp(-MOST, MOST);
    }
}
