//! How long a free place is left to those who wait elsewhere, and how often once nobody comes for it. When one is due to them
//! is not decided here.

use super::Nanos;

/// How many turns in a row that were lost make a difference: then fifteen places are taken before another is left.
const LOST: u32 = 4;

/// What has become of the places that were left.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Since when one is left.
    since: Option<Nanos>,
    /// How many turns in a row the others have lost, and how many of them waited at the last one.
    lost: u32,
    waited: i64,
    /// How many places are taken before another is left.
    passes: u32,
}

/// Whose a free place is that others are to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Theirs, still.
    Left,
    /// They have not come for it.
    Lost,
    /// They have not come for others before.
    Passed,
}

impl Turns {
    /// Whether a free place is left to so many who wait elsewhere, for as long as their turn lasts.
    pub fn leaves(&mut self, others: i64, turn: Nanos, now: Nanos) -> Turn {
        // Of those who did not come the last times nobody may be alive. One who has come since may.
        if self.passes > 0 && others <= self.waited {
            self.passes = self.passes.saturating_sub(1);
            return Turn::Passed;
        }
        if now.saturating_sub(*self.since.get_or_insert(now)) < turn {
            return Turn::Left;
        }
        (self.passes, self.waited) = ((1 << self.lost) - 1, others);
        self.lost = self.lost.saturating_add(1).min(LOST);
        Turn::Lost
    }

    /// The place is none of theirs, or was taken here.
    pub fn over(&mut self) {
        self.since = None;
    }

    /// No place is free: what was left has been taken.
    pub fn taken(&mut self) {
        if self.since.is_some() {
            *self = Self::default();
        }
    }
}
