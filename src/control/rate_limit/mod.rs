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
//! - **Contention**: after [`ATTEMPTS`] conflicts in a row a charge is refused, since admitting it could pass the
//!   limit. Each conflict is another worker's success, so this takes that many successes of others within one call.
//! - **Failure**: if shared state is unavailable the request is admitted, and [`Charged::failed`] tells.
//! - **Time** is monotonic, and on each page it never goes back: a worker that read the clock before another, and comes
//!   after it, decides as of the other's reading. A clock that went back by some time would delay what is exhausted by
//!   at most that time, and never add to a budget.

mod fixed_window;
mod model;
mod rule;
mod sliding_window;
mod token_bucket;

use std::cmp::Ordering;

use self::fixed_window::FixedWindow;
use self::model::Trace;
pub use self::model::{Algorithm, Budget, Charged, KeyHash, Quota, Refused, Settings};
use self::rule::{Rule, Since};
use self::sliding_window::SlidingWindow;
use self::token_bucket::TokenBucket;
use super::Nanos;
use crate::share::{Address, Found, Lease, Page, SLOTS, ShareError, SharedState, SlotTable, Version, Words};

/// How often a change is tried before other workers' changes to the same page make it give up.
pub const ATTEMPTS: u32 = 128;

/// One worker's hold on a rate limit.
#[derive(Debug)]
pub struct RateLimiter {
    rules: Vec<Box<dyn Rule>>,
    table: SlotTable,
    page: Page,
    /// What `page` is a copy of, if a check has just loaded it.
    loaded: Option<Loaded>,
    /// Which of the owners of these pages this is.
    epoch: u64,
    lease: Option<Lease>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loaded {
    page: u32,
    version: Version,
    at: Nanos,
}

/// Where to look for a key's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// In its slot, a free one, or the overflow budget.
    Any,
    /// In its slot or nowhere.
    Own,
    /// In the overflow budget.
    Overflow,
}

/// Whose state is wanted.
#[derive(Debug, Clone, Copy)]
struct Target {
    key: KeyHash,
    quota: usize,
    scope: Scope,
    now: Nanos,
}

/// A slot of the page that is loaded.
struct Slot {
    address: Address,
    words: Words,
    header: Header,
    version: Version,
    overflow: bool,
}

impl Slot {
    /// The time as of which to decide.
    fn time(&self, now: Nanos) -> Nanos {
        self.header.newest.max(now)
    }
}

/// What to do with a slot that was looked at.
enum Step<T> {
    Leave(T),
    /// Store the words, and the header.
    Store(T, Words, Header),
}

/// What a page remembers of all its slots together.
#[derive(Clone, Copy)]
struct Header {
    /// The newest reading of the clock that any worker brought.
    newest: Nanos,
    /// The latest time for which a request was let through.
    latest: Nanos,
    /// How many nanoseconds all refunds together went back; only differences count, so it may wrap.
    refunded: Nanos,
    /// The epoch the page was written in.
    epoch: u64,
}

enum Failure {
    Unavailable,
    Contended,
}

impl RateLimiter {
    /// Opens the limit's pages under `name`; workers with the same name and settings share their budgets, and so does a
    /// later configuration. A name must not be used for other settings. At configure time only.
    ///
    /// # Errors
    /// Those of [`SharedState::pages`].
    pub fn new(settings: &Settings, share: &dyn SharedState, name: &str) -> Result<Self, ShareError> {
        let (rules, words) = rules(settings);
        Self::open(settings, share, name, rules, words, None)
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
        let (rules, words) = rules(settings);
        // Only pages of the same length can follow each other.
        let name = format!("{name}/{words}x{}", settings.max_keys.clamp(1, SLOTS));
        let lease = Lease::take(share, &name, owner, now)?;
        let name = format!("{name}/{}", lease.row);
        Self::open(settings, share, &name, rules, words, Some(lease))
    }

    /// Says that the limit is in use; every few seconds, by any worker.
    pub fn keep(&mut self, share: &dyn SharedState, now: Nanos) {
        if let Some(lease) = &mut self.lease {
            lease.renew(share, now);
        }
    }

    fn open(
        settings: &Settings,
        share: &dyn SharedState,
        name: &str,
        rules: Vec<Box<dyn Rule>>,
        words: usize,
        lease: Option<Lease>,
    ) -> Result<Self, ShareError> {
        let overflow = u32::try_from(rules.len()).map_err(|_| ShareError::Unavailable)?;
        let table = SlotTable::open(share, name, settings.max_keys, overflow, words)?;
        let page = table.page();
        let epoch = lease.as_ref().map_or(0, |lease| lease.epoch);
        Ok(Self { rules, table, page, loaded: None, epoch, lease })
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
        let slot = self.look(share, Target { key, quota, scope: Scope::Any, now });
        let (Ok(slot), Some(rule)) = (slot, self.rules.get(quota)) else { return Ok(self.unknown(quota)) };
        self.loaded = Some(Loaded { page: slot.address.page, version: slot.version, at: now });
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
        let outcome = self.change(share, target, &mut conflicts, |rule, slot| {
            let time = slot.time(now);
            let wait = rule.wait(&slot.words, cost, time);
            // A wait past the end of time is no wait to promise.
            let admit_at = wait.filter(|&wait| wait <= max_wait).and_then(|wait| time.checked_add(wait));
            let Some(admit_at) = admit_at else {
                let budget = budget(rule, &slot.words, slot.overflow, time);
                return Step::Leave(Err((counted_from(now, time, wait), budget)));
            };
            let mut words = slot.words;
            let mark = rule.take(&mut words, cost, time, admit_at);
            let trace = Trace { mark, refunded: slot.header.refunded };
            let header = Header { latest: slot.header.latest.max(admit_at), ..slot.header };
            let budget = budget(rule, &words, slot.overflow, time);
            let promised = if wait == Some(0) { now } else { admit_at };
            Step::Store(Ok((admit_at, promised, trace, budget)), words, header)
        });
        let (at, promised, trace, budget) = match outcome {
            Ok(Ok((at, promised, trace, budget))) => (at, promised, Some(trace), budget),
            Ok(Err((wait, budget))) => return Err(Refused { wait, budget, conflicts, contended: false }),
            Err(Failure::Contended) => {
                let budget = Budget { remaining: 0, grows_in: Some(0), ..self.unknown(quota) };
                return Err(Refused { wait: Some(0), budget, conflicts, contended: true });
            }
            Err(Failure::Unavailable) => (now, now, None, self.unknown(quota)),
        };
        Ok((Charged { budget, conflicts, at, key, quota, cost, trace }, promised))
    }

    /// Gives back a charge whose request was rejected by something else, as if it had never been made. Exact if it
    /// comes at the time of the charge; of a bucket that was almost full then and would have filled up since, only what
    /// cannot have overflowed comes back. Never adds to a budget. Returns whether it could be recorded; if not, the
    /// charge stands.
    pub fn refund(&mut self, share: &dyn SharedState, charged: Charged, now: Nanos) -> bool {
        let Some(trace) = charged.trace else { return true };
        let scope = if charged.budget.overflow { Scope::Overflow } else { Scope::Own };
        let target = Target { key: charged.key, quota: charged.quota, scope, now };
        let outcome = self.change(share, target, &mut 0, |rule, slot| {
            let time = slot.time(now);
            let since = Since {
                now: time,
                latest: slot.header.latest.max(time),
                refunded: slot.header.refunded.wrapping_sub(trace.refunded),
            };
            let mut words = slot.words;
            match rule.give_back(&mut words, charged.cost, trace.mark, since) {
                0 => Step::Leave(()),
                back => {
                    let refunded = slot.header.refunded.wrapping_add(back);
                    Step::Store((), words, Header { refunded, ..slot.header })
                }
            }
        });
        outcome.is_ok()
    }

    /// Adds a cost that only the response has told. What remains may fall below zero, and has to refill first; the
    /// budget in `charged` becomes the one after it. Returns whether it could be recorded.
    pub fn charge_late(&mut self, share: &dyn SharedState, charged: &mut Charged, extra: u64, now: Nanos) -> bool {
        if charged.failed() || extra == 0 {
            return true;
        }
        let scope = if charged.budget.overflow { Scope::Overflow } else { Scope::Any };
        let target = Target { key: charged.key, quota: charged.quota, scope, now };
        let outcome = self.change(share, target, &mut 0, |rule, slot| {
            let time = slot.time(now);
            let mut words = slot.words;
            rule.take(&mut words, extra, time, time);
            let budget = budget(rule, &words, slot.overflow, time);
            Step::Store(budget, words, Header { latest: slot.header.latest.max(time), ..slot.header })
        });
        let Ok(budget) = outcome else { return false };
        charged.budget = budget;
        true
    }

    /// How many bytes of shared state the limit's pages hold, the host's own overhead not counted.
    pub fn shared_bytes(&self) -> u64 {
        self.table.shared_bytes()
    }

    /// Looks at the target's slot and stores what `decide` makes of it, again for as long as other workers are first.
    fn change<T>(
        &mut self,
        share: &dyn SharedState,
        target: Target,
        conflicts: &mut u32,
        decide: impl Fn(&dyn Rule, &Slot) -> Step<T>,
    ) -> Result<T, Failure> {
        for _ in 0..ATTEMPTS {
            let slot = self.look(share, target)?;
            let rule = self.rules.get(target.quota).ok_or(Failure::Unavailable)?;
            let (outcome, words, header) = match decide(rule.as_ref(), &slot) {
                Step::Leave(outcome) => return Ok(outcome),
                Step::Store(outcome, words, header) => (outcome, words, header),
            };
            self.page.set(slot.address.slot, target.key.fingerprint, &words);
            self.page.set_header([slot.time(target.now), header.latest, header.refunded, header.epoch]);
            match self.table.store(share, slot.address.page, &self.page, slot.version) {
                Ok(()) => return Ok(outcome),
                Err(ShareError::Conflict) => *conflicts = conflicts.saturating_add(1),
                Err(ShareError::Unavailable) => return Err(Failure::Unavailable),
            }
        }
        Err(Failure::Contended)
    }

    /// Loads the page with the target's slot.
    fn look(&mut self, share: &dyn SharedState, target: Target) -> Result<Slot, Failure> {
        let loaded = self.loaded.take();
        if target.scope != Scope::Overflow {
            let page = self.table.home(target.key.place);
            let version = match loaded {
                Some(loaded) if loaded.page == page && loaded.at == target.now => loaded.version,
                _ => self.load(share, page)?,
            };
            let header = self.header();
            let found = self.page.find(target.key.fingerprint, header.newest.max(target.now));
            let (slot, words) = match found {
                Found::Own(slot) => (slot, self.page.get(slot)),
                // Not to be stored to in the scope `Own`; a fresh state has nothing to give back.
                Found::Free(slot) => (slot, Words::default()),
                Found::Full => (usize::MAX, Words::default()),
            };
            if found != Found::Full || target.scope == Scope::Own {
                return Ok(Slot { address: Address { page, slot }, words, header, version, overflow: false });
            }
        }
        let address = self.table.reserved(u32::try_from(target.quota).unwrap_or(u32::MAX));
        let version = self.load(share, address.page)?;
        Ok(Slot { address, words: self.page.get(address.slot), header: self.header(), version, overflow: true })
    }

    fn header(&self) -> Header {
        let [newest, latest, refunded, epoch] = self.page.header();
        Header { newest, latest, refunded, epoch }
    }

    fn load(&mut self, share: &dyn SharedState, page: u32) -> Result<Version, Failure> {
        let version = self.table.load(share, page, &mut self.page).map_err(|_| Failure::Unavailable)?;
        match self.header().epoch.cmp(&self.epoch) {
            Ordering::Equal => {}
            // Another's, whose row this was.
            Ordering::Less => {
                self.page.clear();
                self.page.set_header([0, 0, 0, self.epoch]);
            }
            // The row was given to another.
            Ordering::Greater => return Err(Failure::Unavailable),
        }
        Ok(version)
    }

    /// What is said of a budget that cannot be looked at.
    fn unknown(&self, quota: usize) -> Budget {
        let capacity = self.rules.get(quota).map_or(0, |rule| rule.capacity());
        Budget { capacity, remaining: capacity, grows_in: None, overflow: false }
    }
}

/// The rule of each quota, and how many words of state they need.
fn rules(settings: &Settings) -> (Vec<Box<dyn Rule>>, usize) {
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
    (rules, words)
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
