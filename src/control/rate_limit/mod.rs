//! Rate limits, exact over all workers: together they admit what one would, which for a token bucket is never more than
//! the burst plus the rate times the time. What bounds a window is said in its module.
//!
//! Each worker has a [`RateLimiter`] of its own; what they share are the pages of a [`SlotTable`]. A charge loads the
//! one page its key can be in, decides by one of three algorithms ([`Algorithm`]), and stores the page if no other
//! worker has in the meantime; otherwise it starts again. So every admission has seen all those before it.
//!
//! - **Admits** while the key's budget holds the cost; a rejection changes nothing and says how long to wait.
//! - **Recovers** with time alone: nothing has to run for a budget to refill.
//! - **Full table**: a slot is handed on only when its state equals a fresh one. A key that finds no slot shares the
//!   overflow budget of its quota with all others in that position. When it later finds a slot, that one starts fresh.
//!   What a response adds to the cost of a key that has lost its slot meanwhile is not charged: nobody else is to pay it.
//! - **Contention**: after [`ATTEMPTS`] conflicts in a row a charge is refused, since admitting it could pass the
//!   limit; a refund, or what a response adds, is left out. Each conflict is another worker's success, so this takes that
//!   many successes of others within one call.
//! - **Failure**: if shared state is unavailable the request is admitted, and [`Charged::failed`] tells.
//! - **No place**: where other settings use all rows of pages, or have taken those of a limit that was silent for too long,
//!   each worker holds the limit by itself until there is a row (see [`Tenant`]). A limit never goes on without a budget.
//! - **Time** is monotonic, and on each page it never goes back: a worker that read the clock before another, and comes
//!   after it, decides as of the other's reading. A clock that went back by some time would delay what is exhausted by
//!   at most that time, and never add to a budget.

mod access;
mod fixed_window;
mod model;
mod rule;
mod sliding_window;
mod token_bucket;

pub use self::access::ATTEMPTS;
use self::access::{Header, Scope, Slots, Step, Target};
use self::fixed_window::FixedWindow;
use self::model::Trace;
pub use self::model::{Algorithm, Budget, Charged, KeyHash, NotMade, Quota, Refused, Settings};
use self::rule::{Rule, Since};
use self::sliding_window::SlidingWindow;
use self::token_bucket::TokenBucket;
use super::Nanos;
use crate::share::{Return, SLOTS, ShareError, SharedState, SlotTable, Tenant, Words};

/// One worker's hold on a rate limit.
#[derive(Debug)]
pub struct RateLimiter {
    rules: Vec<Box<dyn Rule>>,
    shape: Shape,
    slots: Slots,
    /// None if its pages are nobody else's.
    tenant: Option<Tenant>,
}

/// What its pages look like.
#[derive(Debug, Clone, Copy)]
struct Shape {
    keys: u32,
    quotas: u32,
    words: usize,
}

impl RateLimiter {
    /// How many bytes the pages of a limit with these settings hold: see [`shared_bytes`](Self::shared_bytes).
    ///
    /// # Errors
    /// [`ShareError::Unavailable`] if there are more quotas than a table has slots for.
    pub fn bytes(settings: &Settings) -> Result<u64, ShareError> {
        let (_, Shape { keys, quotas, words }) = rules(settings)?;
        Ok(SlotTable::bytes(keys, quotas, words))
    }

    /// Opens the limit's pages under `name`; workers with the same name and settings share their budgets, and so does a
    /// later configuration. A name must not be used for other settings. At configure time only.
    ///
    /// # Errors
    /// Those of [`SharedState::pages`].
    pub fn new(settings: &Settings, share: &dyn SharedState, name: &str) -> Result<Self, ShareError> {
        let (rules, shape) = rules(settings)?;
        Ok(Self { slots: shape.open(share, name, 0)?, rules, shape, tenant: None })
    }

    /// The same where settings change and the host never forgets a name: those with the same `owner`, a digest of the
    /// settings, share their budgets, and others under the name have pages of their own. Pages that nobody uses any more
    /// are used again. [`keep`](Self::keep) tells that these are in use.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn reusing(
        settings: &Settings,
        share: &dyn SharedState,
        name: &str,
        owner: u64,
        now: Nanos,
    ) -> Result<Self, ShareError> {
        let (rules, shape) = rules(settings)?;
        // Only pages of the same length can follow each other.
        let name = format!("{name}/{}x{}", shape.words, settings.max_keys.clamp(1, SLOTS));
        let tenant = Tenant::settle(share, name, owner, Return::Resumes, now)?;
        let slots = shape.open(tenant.share(share), &tenant.name(), tenant.epoch())?;
        Ok(Self { rules, shape, slots, tenant: Some(tenant) })
    }

    /// Says that the limit is in use, and looks for a place where it has none; every second or so, by any worker.
    pub fn keep(&mut self, share: &dyn SharedState, now: Nanos) {
        if self.tenant.as_mut().is_some_and(|tenant| tenant.keep(share, now)) {
            self.move_in(share);
        }
    }

    /// Nobody on this worker uses the limit any more.
    pub fn release(&self, share: &dyn SharedState, now: Nanos) {
        if let Some(tenant) = &self.tenant {
            tenant.release(share, now);
        }
    }

    /// How often there was no place to be had among what workers share since this was last asked.
    pub fn take_missed(&mut self) -> u64 {
        self.tenant.as_mut().map_or(0, Tenant::take_missed)
    }

    /// Whether each worker holds the limit by itself, if that has changed since this was last asked.
    pub fn take_news(&mut self) -> Option<bool> {
        self.tenant.as_mut()?.take_news()
    }

    /// Shared state did not do what was asked: whether that was because the pages are another's now, and there are new ones.
    fn recover(&mut self, share: &dyn SharedState, now: Nanos) -> bool {
        let moved = self.tenant.as_mut().is_some_and(|tenant| tenant.recover(share, now));
        if moved {
            self.move_in(share);
        }
        moved
    }

    /// Opens the pages of a place that is new.
    fn move_in(&mut self, share: &dyn SharedState) {
        let Some(tenant) = &mut self.tenant else { return };
        let opened = tenant.move_in(share, |share, name, epoch| self.shape.open(share, name, epoch));
        // Should even its own memory refuse, what is asked of pages that are gone fails, and is counted.
        if let Ok(slots) = opened {
            self.slots = slots;
        }
    }

    fn life(&self) -> u64 {
        self.tenant.as_ref().map_or(0, Tenant::life)
    }

    /// Looks, and changes nothing; what cannot be looked at conforms. A [`charge`](Self::charge) of the same key at
    /// the same `now` that comes next needs no second load.
    ///
    /// # Errors
    /// [`Refused`] if the cost does not conform.
    pub fn check(
        &mut self,
        share: &dyn SharedState,
        key: KeyHash,
        quota: usize,
        cost: u64,
        now: Nanos,
    ) -> Result<Budget, Refused> {
        let target = Target { key, quota, scope: Scope::Any, now };
        let mut slot = self.slots.look(Tenant::share_of(&self.tenant, share), target);
        if slot.is_err() && self.recover(share, now) {
            slot = self.slots.look(Tenant::share_of(&self.tenant, share), target);
        }
        let (Ok(slot), Some(rule)) = (slot, self.rules.get(quota)) else { return Ok(self.unknown(quota)) };
        self.slots.keep(slot, target);
        let time = slot.time(now);
        let budget = budget(rule.as_ref(), &slot.words, slot.overflow, time);
        match rule.wait(&slot.words, cost, time) {
            Some(0) => Ok(budget),
            wait => Err(Refused { wait: counted_from(now, time, wait), budget, conflicts: 0, contended: false }),
        }
    }

    /// Takes `cost` if it conforms, and otherwise nothing. One load and one store if it does, one load if not; a key
    /// without a slot in a full table takes one load more.
    ///
    /// # Errors
    /// [`Refused`] if the cost does not conform.
    pub fn charge(
        &mut self,
        share: &dyn SharedState,
        key: KeyHash,
        quota: usize,
        cost: u64,
        now: Nanos,
    ) -> Result<Charged, Refused> {
        self.reserve(share, key, quota, cost, 0, now).map(|(charged, _)| charged)
    }

    /// Takes `cost` if it conforms within `max_wait`, and otherwise nothing. Says when the request may be let through:
    /// `now`, or later.
    ///
    /// # Errors
    /// [`Refused`] if the cost does not conform in time.
    pub fn reserve(
        &mut self,
        share: &dyn SharedState,
        key: KeyHash,
        quota: usize,
        cost: u64,
        max_wait: Nanos,
        now: Nanos,
    ) -> Result<(Charged, Nanos), Refused> {
        let mut conflicts = 0;
        let target = Target { key, quota, scope: Scope::Any, now };
        let mut outcome = self.take(share, target, cost, max_wait, &mut conflicts);
        if matches!(outcome, Err(NotMade::Unavailable)) && self.recover(share, now) {
            outcome = self.take(share, target, cost, max_wait, &mut conflicts);
        }
        match outcome {
            Ok(Ok((charged, promised))) => Ok((Charged { conflicts, ..charged }, promised)),
            Ok(Err(refused)) => Err(Refused { conflicts, ..refused }),
            // When it would have conformed is not known: whoever was first has changed it.
            Err(NotMade::Contended) => {
                let budget = Budget { remaining: 0, ..self.unknown(quota) };
                Err(Refused { wait: None, budget, conflicts, contended: true })
            }
            Err(_) => Ok(self.uncharged(key, quota, cost, now)),
        }
    }

    /// Takes `cost` where the limit's pages are, if it conforms in time.
    fn take(
        &mut self,
        share: &dyn SharedState,
        target: Target,
        cost: u64,
        max_wait: Nanos,
        conflicts: &mut u32,
    ) -> Result<Result<(Charged, Nanos), Refused>, NotMade> {
        let Target { key, quota, now, .. } = target;
        let life = self.life();
        let rule = self.rules.get(quota).ok_or(NotMade::Unavailable)?.as_ref();
        self.slots.change(Tenant::share_of(&self.tenant, share), target, conflicts, |slot| {
            let time = slot.time(now);
            let wait = rule.wait(&slot.words, cost, time);
            let told = counted_from(now, time, wait);
            let soon_enough = wait == Some(0) || told.is_some_and(|wait| wait <= max_wait);
            // A wait past the end of time is no wait to promise.
            let admit_at = wait.filter(|_| soon_enough).and_then(|wait| time.checked_add(wait));
            let Some(admit_at) = admit_at else {
                let budget = budget(rule, &slot.words, slot.overflow, time);
                return Step::Leave(Err(Refused { wait: told, budget, conflicts: 0, contended: false }));
            };
            let mut words = slot.words;
            rule.take(&mut words, cost, time, admit_at);
            let trace = Trace { before: slot.words, time, refunded: slot.header.refunded };
            let header = Header { latest: slot.header.latest.max(admit_at), ..slot.header };
            let budget = budget(rule, &words, slot.overflow, time);
            let promised = if wait == Some(0) { now } else { admit_at };
            let charged = Charged { budget, conflicts: 0, at: admit_at, key, quota, cost, life, trace: Some(trace) };
            Step::Store(Ok((charged, promised)), words, header)
        })
    }

    /// Whether the time that a charge was given has passed in such a way that a request which goes through now instead would
    /// come on top of others': of a token bucket, when as long as its cost takes to refill has gone by since; of windows, when
    /// theirs has ended. What it took is lost then, as it is for everybody who does not come.
    pub fn has_passed(&self, charged: &Charged, now: Nanos) -> bool {
        let rule = self.rules.get(charged.quota).filter(|_| !charged.failed());
        rule.is_some_and(|rule| rule.has_passed(charged.cost, charged.at, now))
    }

    /// Gives back a charge whose request was rejected by something else, as if it had never been made. Exact if it
    /// comes at the time of the charge, or nothing else has happened to the key's budget, nor been refunded on its page,
    /// since; otherwise, of a bucket that was almost full then and would have filled up since, only what cannot have
    /// overflowed comes back. Never adds to a budget.
    ///
    /// # Errors
    /// Why it could not be recorded; the charge stands.
    pub fn refund(&mut self, share: &dyn SharedState, charged: Charged, now: Nanos) -> Result<(), NotMade> {
        if charged.life != self.life() {
            // What it took from is gone.
            return Ok(());
        }
        let (Some(trace), Some(rule)) = (charged.trace, self.rules.get(charged.quota)) else { return Ok(()) };
        let scope = if charged.budget.overflow { Scope::Overflow } else { Scope::Own };
        let target = Target { key: charged.key, quota: charged.quota, scope, now };
        let mut after = trace.before;
        let mark = rule.take(&mut after, charged.cost, trace.time, charged.at);
        self.slots.change(Tenant::share_of(&self.tenant, share), target, &mut 0, |slot| {
            let undisturbed = slot.words == after && slot.header.refunded == trace.refunded;
            if undisturbed && trace.before != after {
                // The next refund is to see that this one was.
                let refunded = slot.header.refunded.wrapping_add(1);
                return Step::Store((), trace.before, Header { refunded, ..slot.header });
            }
            let time = slot.time(now);
            let since = Since {
                now: time,
                latest: slot.header.latest.max(time),
                refunded: slot.header.refunded.wrapping_sub(trace.refunded),
            };
            let mut words = slot.words;
            match rule.give_back(&mut words, charged.cost, mark, since) {
                0 => Step::Leave(()),
                back => {
                    let refunded = slot.header.refunded.wrapping_add(back);
                    Step::Store((), words, Header { refunded, ..slot.header })
                }
            }
        })
    }

    /// Adds a cost that only the response has told. What remains may fall below zero, and has to refill first; the
    /// budget in `charged` becomes the one after it. A key that was charged in a slot of its own is never charged
    /// elsewhere.
    ///
    /// # Errors
    /// Why it was not charged.
    pub fn charge_late(
        &mut self,
        share: &dyn SharedState,
        charged: &mut Charged,
        extra: u64,
        now: Nanos,
    ) -> Result<(), NotMade> {
        let Some(rule) = self.rules.get(charged.quota).filter(|_| !charged.failed() && extra > 0) else {
            return Ok(());
        };
        let scope = if charged.budget.overflow { Scope::Overflow } else { Scope::Own };
        let target = Target { key: charged.key, quota: charged.quota, scope, now };
        let changed = self.slots.change(Tenant::share_of(&self.tenant, share), target, &mut 0, |slot| {
            if !slot.writable {
                return Step::Leave(None);
            }
            let time = slot.time(now);
            let mut words = slot.words;
            rule.take(&mut words, extra, time, time);
            let budget = budget(rule.as_ref(), &words, slot.overflow, time);
            Step::Store(Some(budget), words, Header { latest: slot.header.latest.max(time), ..slot.header })
        });
        charged.budget = changed?.ok_or(NotMade::NoSlot)?;
        Ok(())
    }

    /// How many bytes of shared state the limit's pages hold, the host's own overhead not counted.
    pub fn shared_bytes(&self) -> u64 {
        self.slots.shared_bytes()
    }

    /// Admitted without a charge: shared state is unavailable.
    fn uncharged(&self, key: KeyHash, quota: usize, cost: u64, now: Nanos) -> (Charged, Nanos) {
        let budget = self.unknown(quota);
        let life = self.life();
        (Charged { budget, conflicts: 0, at: now, key, quota, cost, life, trace: None }, now)
    }

    /// What is said of a budget that cannot be looked at.
    fn unknown(&self, quota: usize) -> Budget {
        let capacity = self.rules.get(quota).map_or(0, |rule| rule.capacity());
        Budget { capacity, remaining: capacity, grows_in: None, overflow: false }
    }
}

impl Shape {
    fn open(self, share: &dyn SharedState, name: &str, epoch: u64) -> Result<Slots, ShareError> {
        Ok(Slots::new(SlotTable::open(share, name, self.keys, self.quotas, self.words)?, epoch))
    }
}

/// The rule of each quota, and what pages they need. Each quota has an overflow budget.
fn rules(settings: &Settings) -> Result<(Vec<Box<dyn Rule>>, Shape), ShareError> {
    let mut words = 1;
    let mut rules: Vec<Box<dyn Rule>> = Vec::with_capacity(settings.quotas.len());
    for quota in &settings.quotas {
        let (needed, rule): (usize, Box<dyn Rule>) = match settings.algorithm {
            Algorithm::TokenBucket => {
                let bucket = TokenBucket::new(quota);
                (if bucket.is_whole() { 1 } else { 2 }, Box::new(bucket))
            }
            Algorithm::SlidingWindow => (3, Box::new(SlidingWindow::new(quota))),
            Algorithm::FixedWindow => (2, Box::new(FixedWindow::new(quota))),
        };
        words = words.max(needed);
        rules.push(rule);
    }
    let quotas = u32::try_from(rules.len()).map_err(|_| ShareError::Unavailable)?;
    Ok((rules, Shape { keys: settings.max_keys, quotas, words }))
}

fn budget(rule: &dyn Rule, words: &Words, overflow: bool, now: Nanos) -> Budget {
    let capacity = rule.capacity();
    let remaining = rule.remaining(words, now);
    let grows_in = if remaining < capacity { rule.wait(words, remaining.saturating_add(1), now) } else { None };
    Budget { capacity, remaining, grows_in, overflow }
}

/// A wait counted from `time`, as counted from `now`, which is not later.
fn counted_from(now: Nanos, time: Nanos, wait: Option<Nanos>) -> Option<Nanos> {
    Some(wait?.saturating_add(time - now))
}
