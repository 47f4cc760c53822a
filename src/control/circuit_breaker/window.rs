//! The calls that a closed breaker judges: by time, or the last so many.
//!
//! Both are exact quotients of whole counts, so that the decision depends on neither the request rate nor rounding.

use super::settings::Settings;
use super::state::{Counts, TripReason};

/// Buckets of a time window.
pub(super) const BUCKETS: usize = 10;

/// What the workers have counted since the counters began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub ok: u64,
    pub failed: u64,
    pub slow: u64,
}

impl Totals {
    /// What was added since `base`; `None` when that is more than there is. A difference that saturated or wrapped
    /// instead would lose the successes and keep the failures: a false trip.
    pub fn since(self, base: Self) -> Option<Counts> {
        let failures = self.failed.checked_sub(base.failed)?;
        let calls = self.ok.checked_sub(base.ok)?.saturating_add(failures);
        Some(Counts { calls, failures, slow: self.slow.checked_sub(base.slow)? })
    }
}

/// Ten buckets of time, as the totals at the beginning of each: the window is what was added since the oldest.
///
/// Bucket `n` begins at `n` times a tenth of the duration, the same for all workers, and the window is the current
/// bucket and the nine before it: at least nine tenths of the duration, at most all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TimeWindow {
    /// The current bucket; `None` before the first call.
    pub bucket: Option<u64>,
    /// The totals when bucket `n` began, at `n` modulo ten.
    pub begins: [Totals; BUCKETS],
}

impl TimeWindow {
    /// Whether a call in this bucket needs the window rolled first.
    pub fn is_behind(&self, bucket: u64) -> bool {
        // A worker whose clock is a little behind must not roll the window back.
        self.bucket.is_none_or(|current| current < bucket)
    }

    /// Moves to a later bucket. Those skipped were idle, or somebody would have rolled: they begin with the same totals.
    pub fn roll(&mut self, bucket: u64, totals: Totals) {
        if !self.is_behind(bucket) {
            return;
        }
        let skipped = self.bucket.map_or(u64::MAX, |current| bucket.saturating_sub(current));
        for back in 0..skipped.min(BUCKETS as u64) {
            if let Some(begin) = self.begins.get_mut(place(bucket, BUCKETS as u64 - back)) {
                *begin = totals;
            }
        }
        self.bucket = Some(bucket);
    }

    /// The totals when the oldest bucket of the window began.
    pub fn base(&self) -> Totals {
        self.begins.get(place(self.bucket.unwrap_or(0), 1)).copied().unwrap_or_default()
    }
}

/// The place of the bucket so many after `bucket`. The remainder comes first: a sum that wrapped would be out of step.
fn place(bucket: u64, after: u64) -> usize {
    let buckets = BUCKETS as u64;
    usize::try_from((bucket % buckets + after) % buckets).unwrap_or(0)
}

/// The last so many calls in a ring, two bits each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CountWindow {
    /// Where the next call goes, below the window's length.
    pub next: u32,
    /// What the ring holds.
    pub counts: Counts,
    /// Four calls a byte: bit 0 of a pair is failed, bit 1 slow.
    pub ring: Vec<u8>,
}

impl CountWindow {
    pub fn new(length: u32) -> Self {
        Self { next: 0, counts: Counts::default(), ring: vec![0; Self::bytes(length)] }
    }

    /// Bytes of a ring of this length.
    pub fn bytes(length: u32) -> usize {
        usize::try_from(length.div_ceil(4)).unwrap_or(0)
    }

    /// Puts a call in, in the place of the oldest once the ring of `length` is full.
    pub fn record(&mut self, length: u32, failed: bool, slow: bool) {
        let shift = (self.next % 4) * 2;
        let Some(byte) = usize::try_from(self.next / 4).ok().and_then(|at| self.ring.get_mut(at)) else { return };
        let old = *byte >> shift;
        let new = u8::from(failed) | (u8::from(slow) << 1);
        *byte = (*byte & !(0b11 << shift)) | (new << shift);
        let counts = &mut self.counts;
        if counts.calls < u64::from(length) {
            counts.calls = counts.calls.saturating_add(1);
        }
        // A place never written holds zero bits, so this takes nothing away before the ring is full.
        counts.failures = counts.failures.saturating_sub(u64::from(old & 1)).saturating_add(u64::from(failed));
        counts.slow = counts.slow.saturating_sub(u64::from((old >> 1) & 1)).saturating_add(u64::from(slow));
        self.next = self.next.saturating_add(1) % length.max(1);
    }
}

/// Whether these calls trip the breaker: at least the minimum, and a rate at or above its threshold.
pub(super) fn judge(settings: &Settings, counts: Counts) -> Option<TripReason> {
    if counts.calls < u64::from(settings.minimum_calls) {
        None
    } else if reaches(counts.failures, counts.calls, settings.failure_rate_threshold) {
        Some(TripReason::FailureRate)
    } else if settings.judges_slow() && reaches(counts.slow, counts.calls, settings.slow_call_rate_threshold) {
        Some(TripReason::SlowCallRate)
    } else {
        None
    }
}

/// Whether `part / whole >= threshold / 10 000`, in whole numbers. A threshold of 0 is never reached.
pub(super) fn reaches(part: u64, whole: u64, threshold: u32) -> bool {
    threshold > 0 && u128::from(part) * 10_000 >= u128::from(threshold) * u128::from(whole)
}

#[cfg(test)]
mod tests;
