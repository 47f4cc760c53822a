//! The rate limits of a decision: which apply, what each is asked for, and all of them or none charged.

use crate::config::{Cost, OnMissingKey, ResponseHeaders};
use crate::control::Nanos;
use crate::control::rate_limit::{self, Budget, Charged, KeyHash, NotMade};
use crate::matching::{HeaderMap, Request};
use crate::share::ROWS;

use super::compile::{Rate, nanos, share_of};
use super::decide::{Refusal, Refused, hash, live_mut};
use super::headers::RateView;
use super::permit::{Held, Permit, Waiting, What};
use super::rejection::{Reason, Rejection};
use super::{Engine, Env, stats};

/// The most that one response can be charged: as much as the largest burst.
const MOST_CHARGED_LATE: u64 = 1_000_000_000;

/// A rate limit to be charged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charge {
    /// Position among the policies that apply.
    applied: usize,
    limit: usize,
    key: KeyHash,
    quota: usize,
    cost: u64,
    /// What is left, once it was asked.
    left: Option<Left>,
    /// How long it holds the request, by what it said then.
    wait: Nanos,
}

/// What is left of a rate limit, as its clients are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub quota: usize,
    pub remaining: u64,
    pub grows_in: Option<Nanos>,
}

impl Left {
    pub fn of(quota: usize, budget: &Budget) -> Self {
        Self { quota, remaining: budget.remaining, grows_in: budget.grows_in }
    }
}

impl Rate {
    /// What a client is told of this limit.
    pub fn view(&self, left: Left) -> RateView<'_> {
        RateView {
            name: &self.name,
            policy: self.listed.get(left.quota).map_or("", String::as_str),
            count: self.quotas.get(left.quota).unwrap_or(&self.settings.quota).rate.count,
            remaining: left.remaining,
            grows_in: left.grows_in,
        }
    }

    fn cost(&self, request: &Request<'_>) -> u64 {
        match &self.settings.cost {
            Cost::Fixed(cost) => *cost,
            Cost::Header { name, default, max } => request
                .headers()
                .get(name.as_bytes())
                .and_then(whole_number)
                .map_or(*default, |cost| cost.clamp(1, *max)),
        }
    }

    /// How long a request may be held until it conforms.
    fn max_wait(&self, shadow: bool, env: &Env<'_>) -> Nanos {
        // In shadow nobody is held, but who would be is to be decided all the same.
        let may_wait = shadow || env.may_wait;
        self.settings.pace.filter(|_| may_wait).map_or(0, nanos)
    }

    /// Gives a charge back.
    pub fn refund(&mut self, charged: Charged, policy: &str, env: &Env<'_>) {
        let share = share_of(&self.settings, env);
        if let Err(cause) = self.limiter.refund(share, charged, env.now) {
            self.count_not_made(cause, policy, env);
        }
    }

    /// Counts a refund or a late charge that was not made.
    fn count_not_made(&self, cause: NotMade, policy: &str, env: &Env<'_>) {
        match cause {
            NotMade::Unavailable => env.count_errors("rate_limit", 1),
            NotMade::Contended => self.note(policy, false, true, env),
            NotMade::NoSlot => env.stats.add(env.metrics, stats::RATE_LIMIT_UNCHARGED, &[policy, &self.name], 1),
        }
    }

    /// What time alone changes.
    pub fn tick(&mut self, policy: &str, env: &Env<'_>) {
        self.limiter.keep(share_of(&self.settings, env), env.now);
        self.tell_place(policy, env);
    }

    /// Counts and logs that the limit found no place among what workers share, or has one again.
    pub fn tell_place(&mut self, policy: &str, env: &Env<'_>) {
        env.count_errors("rate_limit", self.limiter.take_missed());
        if let Some(alone) = self.limiter.take_news() {
            tell_place("rate limit", &format!("{policy}/{}", self.name), alone);
        }
    }

    /// Counts what is out of the ordinary about a decision.
    fn note(&self, policy: &str, overflow: bool, contended: bool, env: &Env<'_>) {
        if overflow || contended {
            self.count_unusual(policy, overflow, contended, env);
        }
    }

    #[cold]
    fn count_unusual(&self, policy: &str, overflow: bool, contended: bool, env: &Env<'_>) {
        let counts = [(overflow, stats::RATE_LIMIT_OVERFLOW), (contended, stats::RATE_LIMIT_CONTENDED)];
        for (_, stat) in counts.into_iter().filter(|(happened, _)| *happened) {
            env.stats.add(env.metrics, stat, &[policy, &self.name], 1);
        }
    }
}

/// A header's value as a whole number: digits, with spaces around them at most. What passes a `u64` counts as its largest,
/// so that no number is too large to be charged.
pub(super) fn whole_number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // So many digits fit, whatever they are. To saturate a product is a call in WebAssembly, and this is asked of every answer.
    const FIT: usize = 19;
    let digit = |digit: &u8| u64::from(digit.wrapping_sub(b'0'));
    Some(if digits.len() <= FIT {
        digits.iter().fold(0u64, |sum, next| sum.wrapping_mul(10).wrapping_add(digit(next)))
    } else {
        digits.iter().fold(0u64, |sum, next| sum.saturating_mul(10).saturating_add(digit(next)))
    })
}

/// Logs where a control keeps its state.
#[cold]
pub(super) fn tell_place(control: &str, name: &str, alone: bool) {
    if alone {
        log::warn!(
            "{control} {name}: no place in what workers share, with room for {ROWS} settings; each worker holds it by itself now"
        );
    } else {
        log::info!("{control} {name}: held over all workers again");
    }
}

impl Engine {
    /// This engine is gone: the pages of its rate limits, throttles and concurrency limits are free for other settings, unless
    /// others still use them and say so.
    pub fn release_rows(&self, env: &Env<'_>) {
        for policy in &self.policies {
            for rate in &policy.rates {
                rate.limiter.release(share_of(&rate.settings, env), env.now);
            }
            if let Some(throttling) = &policy.throttling {
                throttling.release(env);
            }
            if let Some(concurrency) = &policy.concurrency {
                concurrency.release_place(env);
            }
        }
    }

    /// Asks every rate limit of the policies that apply, so that a refusal by one, or by a concurrency limit after them,
    /// leaves the others untouched. A limit that nothing else stands beside is left to its charge.
    pub(super) fn ask_rates(
        &mut self,
        request: &Request<'_>,
        permit: &mut Permit,
        env: &mut Env<'_>,
    ) -> Option<Refused> {
        self.work.may_hold = false;
        if let Some(refused) = self.collect(request, permit, env) {
            return Some(refused);
        }
        let alone = match self.work.charges.len() {
            0 => true,
            1 => !self.any_concurrency(),
            _ => false,
        };
        if alone { None } else { self.ask(permit, env) }
    }

    fn any_concurrency(&self) -> bool {
        let mut policies = self.work.applied.iter().filter_map(|applied| self.policies.get(applied.policy));
        policies.any(|policy| policy.concurrency.is_some())
    }

    /// Charges every rate limit that was found to apply, or none.
    pub(super) fn charge_rates(&mut self, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        for next in 0..self.work.charges.len() {
            let Some(charge) = self.work.charges.get(next).copied() else { break };
            let live = live_mut(&mut self.policies, &self.work.applied, charge.applied);
            let Some((policy, number)) = live else { continue };
            let Some(rate) = policy.rates.get_mut(charge.limit) else { continue };
            let max_wait = rate.max_wait(policy.shadow, env);
            let share = share_of(&rate.settings, env);
            let reserved = rate.limiter.reserve(share, charge.key, charge.quota, charge.cost, max_wait, env.now);
            match reserved {
                Ok((charged, until)) => {
                    if charged.failed() {
                        env.count_errors("rate_limit", 1);
                    }
                    rate.note(&policy.name, charged.budget.overflow, false, env);
                    let until = if until > env.now && self.enforced(charge.applied, env) { until } else { 0 };
                    let what = What::Charge { limit: charge.limit, quota: charge.quota, charged, until };
                    permit.held.push(Held { policy: number, what });
                }
                // Another worker took what was left since the limit was asked: those charged before are given back.
                Err(refused) => {
                    rate.note(&policy.name, refused.budget.overflow, refused.contended, env);
                    let refusal = charge.refusal(&refused);
                    if let Some(refused) = self.refuse(charge.applied, refusal, permit, env) {
                        return Some(refused);
                    }
                }
            }
        }
        None
    }

    /// Charges anew, as one that comes now, a request whose time passed while the process stood still: all those that were
    /// given times then would go on at once otherwise. What it was charged is given back as far as it can be: its tokens may
    /// have overflowed since, as they would have had it never come.
    pub(super) fn charge_anew(
        &mut self,
        waiting: &Waiting,
        request: Option<&Request<'_>>,
        permit: &mut Permit,
        env: &mut Env<'_>,
    ) -> Option<Refused> {
        if !waiting.missed {
            return None;
        }
        self.work.charges.clear();
        let passed = |held: &Held| match &held.what {
            What::Charge { limit, charged, until: 1.., .. } => {
                let rate = self.policies.get(held.policy).and_then(|policy| policy.rates.get(*limit));
                rate.is_some_and(|rate| rate.limiter.has_passed(charged, env.now))
            }
            _ => false,
        };
        let passed: Vec<Held> = permit.held.extract_if(.., |held| passed(held)).collect();
        for Held { policy: index, what } in passed {
            let What::Charge { limit, quota, charged, .. } = what else { continue };
            let Some(policy) = self.policies.get_mut(index) else { continue };
            let Some(rate) = policy.rates.get_mut(limit) else { continue };
            let Some(applied) = self.work.applied.iter().position(|applied| applied.policy == index) else { continue };
            let (key, cost) = (charged.key, charged.cost);
            self.work.charges.push(Charge { applied, limit, key, quota, cost, left: None, wait: 0 });
            rate.refund(charged, &policy.name, env);
        }
        self.ask(permit, env)
            .or_else(|| self.check_deadlines(request?, permit, env))
            .or_else(|| self.charge_rates(permit, env))
    }

    /// For how long the request will be held, by what the limits said that were asked.
    pub(super) fn held_for(&mut self, env: &mut Env<'_>) -> Nanos {
        let mut longest = 0;
        for next in 0..self.work.charges.len() {
            let Some(Charge { applied, wait, .. }) = self.work.charges.get(next).copied() else { break };
            if wait > longest && self.enforced(applied, env) {
                longest = wait;
            }
        }
        longest
    }

    /// What a client that a limit rejected is told: of all limits that were asked, of the policies that still apply and are
    /// no shadows, or else of that one alone. It speaks of what it has `left` since it was asked.
    pub(super) fn views(&self, rejection: &Rejection, left: Left) -> Vec<(ResponseHeaders, RateView<'_>)> {
        let rejecting = |policy: usize, limit: usize| (policy, Some(limit)) == (rejection.policy, rejection.limit);
        let view = |policy: usize, limit: usize, left: Left| {
            let policy = self.policies.get(policy).filter(|policy| !policy.shadow)?;
            Some((policy.headers, policy.rates.get(limit)?.view(left)))
        };
        let asked = self.work.charges.iter().filter_map(|charge| {
            let applied = self.work.applied.get(charge.applied).filter(|applied| applied.refused.is_none())?;
            let left = if rejecting(applied.policy, charge.limit) { left } else { charge.left? };
            view(applied.policy, charge.limit, left)
        });
        asked.collect()
    }

    /// Finds which limits are to be charged, for which key and how much.
    fn collect(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        self.work.charges.clear();
        for at in 0..self.work.applied.len() {
            let mut missing = None;
            if let Some((policy, _)) = live_mut(&mut self.policies, &self.work.applied, at) {
                for (limit, rate) in policy.rates.iter().enumerate() {
                    let (key, quota) = if rate.key.is_empty() {
                        (KeyHash::NONE, Some(0))
                    } else if rate.key.extract(request, &mut self.work.key) {
                        (KeyHash::from(hash(env.hash_key, &self.work.key)), rate.quotas.of(&self.work.key))
                    } else {
                        match rate.settings.on_missing_key {
                            OnMissingKey::Skip => continue,
                            OnMissingKey::Share => {
                                self.work.key.clear();
                                (KeyHash::from(hash(env.hash_key, &self.work.key)), Some(0))
                            }
                            OnMissingKey::Reject => {
                                missing.get_or_insert(limit);
                                continue;
                            }
                        }
                    };
                    if let Some(quota) = quota {
                        let cost = rate.cost(request);
                        self.work.charges.push(Charge { applied: at, limit, key, quota, cost, left: None, wait: 0 });
                    }
                }
            }
            if let Some(limit) = missing {
                let refusal = Refusal { reason: Reason::RateLimited, limit: Some(limit), wait: None, left: None };
                if let Some(refused) = self.refuse(at, refusal, permit, env) {
                    return Some(refused);
                }
            }
        }
        None
    }

    /// Whether the response's headers have to be read for what they tell to charge.
    pub(super) fn charges_responses(&self, permit: &Permit) -> bool {
        permit.held.iter().any(|held| {
            let What::Charge { limit, .. } = held.what else { return false };
            let rate = self.policies.get(held.policy).and_then(|policy| policy.rates.get(limit));
            rate.is_some_and(|rate| rate.settings.charge_response.is_some())
        })
    }

    /// Charges what only the response tells.
    #[inline(never)]
    pub(super) fn charge_responses(&mut self, headers: &HeaderMap<'_>, permit: &mut Permit, env: &mut Env<'_>) {
        for held in &mut permit.held {
            let What::Charge { limit, charged, .. } = &mut held.what else { continue };
            let Some(policy) = self.policies.get_mut(held.policy) else { continue };
            let Some(rate) = policy.rates.get_mut(*limit) else { continue };
            let Some(name) = &rate.settings.charge_response else { continue };
            let Some(told) = headers.get(name.as_bytes()).and_then(whole_number) else { continue };
            let share = share_of(&rate.settings, env);
            if let Err(cause) = rate.limiter.charge_late(share, charged, told.min(MOST_CHARGED_LATE), env.now) {
                rate.count_not_made(cause, &policy.name, env);
            }
        }
    }

    /// Of several refusals the one with the longest wait speaks.
    fn ask(&mut self, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        let mut first: Option<(usize, Refusal)> = None;
        for at in 0..self.work.applied.len() {
            let mut longest: Option<Refusal> = None;
            for charge in self.work.charges.iter_mut().filter(|charge| charge.applied == at) {
                let live = live_mut(&mut self.policies, &self.work.applied, at);
                let Some((policy, _)) = live else { continue };
                let Some(rate) = policy.rates.get_mut(charge.limit) else { continue };
                let max_wait = rate.max_wait(policy.shadow, env);
                let share = share_of(&rate.settings, env);
                let answer = rate.limiter.check(share, charge.key, charge.quota, charge.cost, env.now);
                let budget = answer.as_ref().unwrap_or_else(|refused| &refused.budget);
                charge.left = Some(Left::of(charge.quota, budget));
                let Err(refused) = answer else { continue };
                if let Some(wait) = refused.wait.filter(|wait| *wait <= max_wait) {
                    charge.wait = wait;
                    self.work.may_hold |= !policy.shadow;
                } else {
                    rate.note(&policy.name, refused.budget.overflow, false, env);
                    let refusal = charge.refusal(&refused);
                    longest = Some(longest.map_or(refusal, |other| longer(other, refusal)));
                }
            }
            let Some(refusal) = longest else { continue };
            if self.enforced(at, env) {
                first = match first {
                    Some((_, other)) if longer(other, refusal).wait == other.wait => first,
                    _ => Some((at, refusal)),
                };
            } else {
                self.drop_policy(at, refusal, permit, env);
            }
        }
        let (at, refusal) = first?;
        self.reject(at, refusal, permit, env)
    }
}

/// The refusal with the longer wait; one that no wait ends is the longest.
fn longer(one: Refusal, other: Refusal) -> Refusal {
    let wait = |refusal: Refusal| refusal.wait.unwrap_or(Nanos::MAX);
    if wait(other) > wait(one) { other } else { one }
}

impl Charge {
    fn refusal(&self, refused: &rate_limit::Refused) -> Refusal {
        // What others have just changed over and over cannot be told.
        let left = (!refused.contended).then(|| Left::of(self.quota, &refused.budget));
        Refusal { reason: Reason::RateLimited, limit: Some(self.limit), wait: refused.wait, left }
    }
}
