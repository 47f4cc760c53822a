//! Fixed window: at most `count` in each window of one `period`, windows being aligned to multiples of the period on
//! the monotonic clock (not to wall clock minutes). Two windows' worth can pass back to back around a boundary; within
//! a window the count is exact.
//!
//! A window that has used more than its count (costs charged late, requests admitted for a later window) hands what is
//! too much on to the next: a debt is worked off, window by window.
//!
//! The state is what has been used from the current window on, and the time at which nothing is left of that. The
//! window it was counted in follows from both.

use super::rule::{Mark, Rule, Since, window_has_passed};
use super::{Nanos, Quota};
use crate::share::Words;

#[derive(Debug)]
pub(super) struct FixedWindow {
    limit: u64,
    period: Nanos,
}

impl FixedWindow {
    pub fn new(quota: &Quota) -> Self {
        Self { limit: quota.count.max(1), period: quota.period.max(1) }
    }

    /// The current window and what has been used from it on. A clock that went back stays in the window it had reached.
    fn current(&self, words: &Words, now: Nanos) -> (u64, u64) {
        let [fresh_at, used, _] = *words;
        let window = now / self.period;
        if now >= fresh_at {
            return (window, 0);
        }
        let counted_in = (fresh_at / self.period).saturating_sub(self.spans(used));
        let window = window.max(counted_in);
        (window, used.saturating_sub((window - counted_in).saturating_mul(self.limit)))
    }

    /// How many windows this much fills, at least the one it is counted in.
    fn spans(&self, used: u64) -> u64 {
        used.div_ceil(self.limit).max(1)
    }

    fn record(&self, words: &mut Words, window: u64, used: u64) {
        // Past the last window that has a time, a debt is cut off: that is in the year 2554.
        let windows = (Nanos::MAX / self.period).saturating_sub(window);
        let used = used.min(windows.saturating_mul(self.limit));
        *words = if used == 0 {
            Words::default()
        } else {
            [window.saturating_add(self.spans(used)).saturating_mul(self.period), used, 0]
        };
    }
}

impl Rule for FixedWindow {
    fn capacity(&self) -> u64 {
        self.limit
    }

    fn remaining(&self, words: &Words, now: Nanos) -> u64 {
        self.limit.saturating_sub(self.current(words, now).1)
    }

    fn wait(&self, words: &Words, cost: u64, now: Nanos) -> Option<Nanos> {
        let room = self.limit.checked_sub(cost)?;
        let (window, used) = self.current(words, now);
        let ahead = used.saturating_sub(room).div_ceil(self.limit);
        let admit_in = window.checked_add(ahead)?;
        // The window's end has to be a time, or the charge could not be recorded.
        admit_in.checked_add(1)?.checked_mul(self.period)?;
        if ahead == 0 { Some(0) } else { Some((admit_in * self.period).saturating_sub(now)) }
    }

    fn take(&self, words: &mut Words, cost: u64, now: Nanos, admit_at: Nanos) -> Mark {
        let (window, used) = self.current(words, now);
        let admit_in = (admit_at / self.period).max(window);
        // Admitted in a later window, it leaves nothing of those before to requests behind it.
        let skipped = (admit_in - window).saturating_mul(self.limit);
        self.record(words, window, used.max(skipped).saturating_add(cost));
        Mark(u128::from(admit_in))
    }

    fn has_passed(&self, _cost: u64, at: Nanos, now: Nanos) -> bool {
        window_has_passed(self.period, at, now)
    }

    /// Nothing is due once the window has ended, nor once a later request has been given a time that follows from this
    /// one's.
    fn give_back(&self, words: &mut Words, cost: u64, mark: Mark, since: Since) -> Nanos {
        let before = *words;
        let (window, used) = self.current(words, since.now);
        let last = window.saturating_add(self.spans(used) - 1);
        if u128::from(last) == mark.0 {
            let skipped = (last - window).saturating_mul(self.limit);
            self.record(words, window, used.saturating_sub(cost).max(skipped.min(used)));
        }
        Nanos::from(*words != before)
    }
}
