//! Sliding window by interpolation (Cloudflare, "Counting things, a lot of different things"): requests of the previous
//! window count in proportion to how much of it the sliding window still covers. With `W` the period, `e` the time
//! since the current window began, and counts `prev` and `curr`, a cost conforms if
//! `floor(prev * (W - e) / W) + curr + cost <= count`.
//!
//! Exact where the previous window's requests were spread evenly; each aligned window is exact. A period that ends `e` into
//! a window, and of which `late` requests lie in the window before, holds at most `count + late * e / W`, and less than one
//! request more for what is rounded down. That is twice the count where all of `late` came at the very end. Windows are
//! aligned to multiples of the period on the monotonic clock.
//!
//! As with the fixed window, what is charged beyond the count counts in the next window. The state is both counts and
//! the time at which nothing is left of them; the window they were counted in follows from these.

use super::rule::{Mark, Rule, Since, window_has_passed};
use super::{Nanos, Quota};
use crate::share::Words;

#[derive(Debug)]
pub(super) struct SlidingWindow {
    limit: u64,
    period: Nanos,
}

/// The counts as of one window.
#[derive(Debug, Clone, Copy)]
struct Counts {
    window: u64,
    prev: u64,
    curr: u64,
}

impl SlidingWindow {
    pub fn new(quota: &Quota) -> Self {
        Self { limit: quota.count.max(1), period: quota.period.max(1) }
    }

    /// The counts as of now. A clock that went back stays in the window it had reached.
    fn current(&self, words: &Words, now: Nanos) -> Counts {
        let [fresh_at, prev, curr] = *words;
        let window = now / self.period;
        if now >= fresh_at {
            return Counts { window, prev: 0, curr: 0 };
        }
        let counted_in = (fresh_at / self.period).saturating_sub(self.spans(curr));
        let counts = Counts { window: counted_in, prev, curr };
        self.rolled(counts, window.saturating_sub(counted_in))
    }

    fn rolled(&self, counts: Counts, windows: u64) -> Counts {
        let Some(before_last) = windows.checked_sub(1) else { return counts };
        let last = counts.curr.saturating_sub(before_last.saturating_mul(self.limit));
        Counts {
            window: counts.window.saturating_add(windows),
            prev: last.min(self.limit),
            curr: last.saturating_sub(self.limit),
        }
    }

    /// After how many windows nothing is left: those that `curr` fills, and the one in which the last of them fades.
    fn spans(&self, curr: u64) -> u64 {
        curr.div_ceil(self.limit).max(1).saturating_add(1)
    }

    fn record(&self, words: &mut Words, Counts { window, prev, curr }: Counts) {
        // Past the last window that has a time, a debt is cut off: that is in the year 2554.
        let windows = (Nanos::MAX / self.period).saturating_sub(window).saturating_sub(1);
        let curr = curr.min(windows.saturating_mul(self.limit));
        *words = if prev == 0 && curr == 0 {
            Words::default()
        } else {
            [window.saturating_add(self.spans(curr)).saturating_mul(self.period), prev, curr]
        };
    }

    /// What of the previous window still counts, rounded down.
    fn fading(&self, prev: u64, elapsed: Nanos) -> u64 {
        let weighted = u128::from(prev) * u128::from(self.period.saturating_sub(elapsed));
        u64::try_from(weighted / u128::from(self.period)).unwrap_or(u64::MAX)
    }

    /// How far into its window a cost conforms that leaves `room` once the previous window has faded. None if only
    /// in the next.
    fn elapsed_until(&self, prev: u64, room: u64) -> Option<Nanos> {
        if prev <= room {
            return Some(0);
        }
        // floor(prev * left / W) <= room  <=>  prev * left < (room + 1) * W
        let enough = (u128::from(room) + 1) * u128::from(self.period);
        let left = u64::try_from(enough.div_ceil(u128::from(prev)) - 1).unwrap_or(u64::MAX);
        (left > 0).then(|| self.period.saturating_sub(left))
    }
}

impl Rule for SlidingWindow {
    fn capacity(&self) -> u64 {
        self.limit
    }

    fn remaining(&self, words: &Words, now: Nanos) -> u64 {
        let Counts { window, prev, curr } = self.current(words, now);
        let elapsed = now.saturating_sub(window.saturating_mul(self.period));
        self.limit.saturating_sub(curr).saturating_sub(self.fading(prev, elapsed))
    }

    fn wait(&self, words: &Words, cost: u64, now: Nanos) -> Option<Nanos> {
        let most = self.limit.checked_sub(cost)?;
        let counts = self.current(words, now);
        let begin = counts.window.saturating_mul(self.period);
        let now = now.max(begin);
        let full = counts.curr.saturating_sub(most).div_ceil(self.limit);
        // In the first window with room, or, where the previous one hardly fades, when the next begins, or in that.
        (full..=full.saturating_add(2)).find_map(|ahead| {
            let Counts { window, prev, curr } = self.rolled(counts, ahead);
            let elapsed = self.elapsed_until(prev, most.checked_sub(curr)?)?;
            // The end of the window after has to be a time, or the charge could not be recorded.
            window.checked_add(2)?.checked_mul(self.period)?;
            Some((window * self.period).saturating_add(elapsed).saturating_sub(now))
        })
    }

    fn take(&self, words: &mut Words, cost: u64, now: Nanos, admit_at: Nanos) -> Mark {
        let counts = self.current(words, now);
        let admit_in = (admit_at / self.period).max(counts.window);
        // Admitted in a later window, it leaves nothing of those before to requests behind it.
        let skipped = (admit_in - counts.window).saturating_mul(self.limit);
        let curr = counts.curr.max(skipped).saturating_add(cost);
        self.record(words, Counts { curr, ..counts });
        Mark(u128::from(admit_in))
    }

    fn has_passed(&self, _cost: u64, at: Nanos, now: Nanos) -> bool {
        window_has_passed(self.period, at, now)
    }

    /// Nothing is due once the window has faded, nor once a later request has been given a time that follows from this
    /// one's.
    fn give_back(&self, words: &mut Words, cost: u64, mark: Mark, since: Since) -> Nanos {
        let before = *words;
        let counts = self.current(words, since.now);
        let ahead = self.spans(counts.curr) - 2;
        let last = u128::from(counts.window) + u128::from(ahead);
        if last == mark.0 {
            let skipped = ahead.saturating_mul(self.limit).min(counts.curr);
            let curr = counts.curr.saturating_sub(cost).max(skipped);
            self.record(words, Counts { curr, ..counts });
        } else if mark.0 + 1 == u128::from(counts.window) {
            self.record(words, Counts { prev: counts.prev.saturating_sub(cost), ..counts });
        }
        Nanos::from(*words != before)
    }
}
