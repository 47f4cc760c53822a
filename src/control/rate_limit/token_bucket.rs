//! Token bucket, as the generic cell rate algorithm (GCRA) of ITU-T I.371: the state is one time, the theoretical
//! arrival time (TAT), at which the bucket is full again. A bucket of `burst` tokens is as many emission intervals
//! behind its TAT as tokens are missing; a request conforms if taking its cost leaves the TAT at most `burst`
//! intervals ahead.
//!
//! Emission intervals are seldom whole nanoseconds (seven per second is 142 857 142.857...). All arithmetic is in
//! ticks of 1/`per_nano` nanosecond, of which an interval is a whole number, so nothing is rounded and nothing drifts.
//! A slot keeps the TAT as nanoseconds, rounded up, and the ticks it was rounded by; the latter are always zero, and
//! not kept, where an interval is a whole number of nanoseconds.

use super::rule::{Mark, Rule, Since};
use super::{Nanos, Quota};
use crate::share::Words;

#[derive(Debug)]
pub(super) struct TokenBucket {
    burst: u64,
    /// Ticks from one token to the next.
    interval: u64,
    /// Ticks in a nanosecond.
    per_nano: u64,
    /// Nanoseconds in which an empty bucket fills up, where every time is a whole nanosecond and these fit: as with most
    /// limits. All of a decision fits 64 bits then, and twice as wide it takes three times as long in WebAssembly.
    fills_in: Option<Nanos>,
}

impl TokenBucket {
    pub fn new(quota: &Quota) -> Self {
        let (count, period) = (quota.count.max(1), quota.period.max(1));
        let common = gcd(count, period);
        let (burst, interval, per_nano) = (quota.burst.max(1), period / common, count / common);
        let fills_in = burst.checked_mul(interval).filter(|_| per_nano == 1);
        Self { burst, interval, per_nano, fills_in }
    }

    /// Whether every TAT is a whole nanosecond.
    pub fn is_whole(&self) -> bool {
        self.per_nano == 1
    }

    fn ticks(&self, nanos: Nanos) -> u128 {
        if self.is_whole() { u128::from(nanos) } else { product(nanos, self.per_nano) }
    }

    fn tokens(&self, count: u64) -> u128 {
        product(count, self.interval)
    }

    fn nanos_up(&self, ticks: u128) -> Nanos {
        if self.is_whole() { saturate(ticks) } else { saturate(ticks.div_ceil(u128::from(self.per_nano))) }
    }

    fn tat(&self, words: &Words) -> u128 {
        let [nanos, rounded_by, _] = *words;
        self.ticks(nanos).saturating_sub(u128::from(rounded_by))
    }

    fn set_tat(&self, words: &mut Words, tat: u128) {
        // A TAT beyond the end of time (year 2554) stays there; only charges that need not conform get so far.
        let tat = tat.min(self.ticks(Nanos::MAX));
        let nanos = self.nanos_up(tat);
        *words = [nanos, saturate(self.ticks(nanos).saturating_sub(tat)), 0];
    }

    /// How far the TAT is ahead of now.
    fn behind(&self, words: &Words, now: Nanos) -> u128 {
        self.tat(words).saturating_sub(self.ticks(now))
    }
}

impl Rule for TokenBucket {
    fn capacity(&self) -> u64 {
        self.burst
    }

    fn remaining(&self, words: &Words, now: Nanos) -> u64 {
        let [tat, ..] = *words;
        if let Some(fills_in) = self.fills_in {
            return fills_in.saturating_sub(tat.saturating_sub(now)) / self.interval;
        }
        let room = self.tokens(self.burst).saturating_sub(self.behind(words, now));
        match u64::try_from(room) {
            Ok(room) => room / self.interval,
            Err(_) => saturate(room / u128::from(self.interval)),
        }
    }

    fn wait(&self, words: &Words, cost: u64, now: Nanos) -> Option<Nanos> {
        let left = self.burst.checked_sub(cost)?;
        let [tat, ..] = *words;
        if self.fills_in.is_some() {
            // Neither product passes that of the whole burst.
            let (room, taken) = (left.wrapping_mul(self.interval), cost.wrapping_mul(self.interval));
            tat.max(now).checked_add(taken)?;
            return Some(tat.saturating_sub(now).saturating_sub(room));
        }
        // Tokens below zero if the request were let through now: that many ticks it has to wait.
        let room = self.tokens(left);
        let wait = self.nanos_up(self.behind(words, now).saturating_sub(room));
        // What cannot be recorded is not admitted: a saturated TAT would be a full bucket at the end of time.
        let tat = self.tat(words).max(self.ticks(now)).checked_add(self.tokens(cost))?;
        (tat <= self.ticks(Nanos::MAX)).then_some(wait)
    }

    fn take(&self, words: &mut Words, cost: u64, now: Nanos, _admit_at: Nanos) -> Mark {
        let [tat, ..] = *words;
        if self.fills_in.is_some() && cost <= self.burst {
            let start = tat.max(now);
            // The product does not pass that of the burst, and a TAT beyond the end of time stays there.
            *words = [start.saturating_add(cost.wrapping_mul(self.interval)), 0, 0];
            return Mark(u128::from(start));
        }
        let start = self.tat(words).max(self.ticks(now));
        self.set_tat(words, start.saturating_add(self.tokens(cost)));
        Mark(start)
    }

    /// The time of who comes behind has come, too.
    fn has_passed(&self, cost: u64, at: Nanos, now: Nanos) -> bool {
        self.ticks(now.saturating_sub(at)) >= self.tokens(cost)
    }

    /// Without the charge the bucket might have been full for some time since, and what it would have let overflow
    /// then must not come back. It cannot have been full before the tick the charge started from (`mark`), less what
    /// other refunds have taken off since; so all is due except the time between that and the latest admission.
    fn give_back(&self, words: &mut Words, cost: u64, mark: Mark, since: Since) -> Nanos {
        let seen = self.ticks(since.latest).saturating_add(self.ticks(since.refunded));
        let due = self.tokens(cost).saturating_sub(seen.saturating_sub(mark.0));
        let tat = self.tat(words);
        if due == 0 || tat <= self.ticks(since.now) {
            return 0;
        }
        let due = due.min(tat);
        self.set_tat(words, tat - due);
        self.nanos_up(due)
    }
}

/// Two u64 multiplied fit a u128 with room for one more u64.
fn product(a: u64, b: u64) -> u128 {
    // WebAssembly has no multiplication as wide: it is a call, and seldom needed.
    if a.leading_zeros() + b.leading_zeros() >= u64::BITS {
        u128::from(a.wrapping_mul(b))
    } else {
        u128::from(a) * u128::from(b)
    }
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
