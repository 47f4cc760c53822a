//! The decision over all policies that match a request.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::config::BasisPoints;
use crate::control::Nanos;
use crate::matching::{KeyBuf, Request};

use super::compile::Policy;
use super::permit::{Held, Permit, Waiting, What};
use super::rates::Left;
use super::rejection::{Invalid, Reason, Rejection};
use super::response::{LocalReply, local_reply, reason_line};
use super::stats;
use super::{Engine, Env};

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// No policy speaks to it.
    Unmatched,
    /// It goes on, holding its permit. `shadow`: a refusal that was not carried out, for the access log.
    Admitted {
        /// The refusal that was not carried out, as the access log has it.
        shadow: Option<String>,
    },
    /// It is held: to be asked about again, with [`Engine::resume`], at this time and not before.
    Wait {
        /// When.
        until: Nanos,
    },
    /// It is answered here.
    Rejected {
        /// What the client gets.
        reply: LocalReply,
        /// The decision as the access log has it.
        line: String,
    },
}

/// A policy that applies to the request being decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied {
    pub policy: usize,
    /// Set once the policy has refused and was not carried out.
    pub refused: Option<Refusal>,
}

/// A control's refusal, before it is known whether it is carried out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub reason: Reason,
    pub limit: Option<usize>,
    pub wait: Option<Nanos>,
    pub left: Option<Left>,
}

/// What is rejected, and what the limit that rejected it has left.
pub(super) type Refused = (Rejection, Option<Left>);

impl Engine {
    /// Decides about a request. One that is admitted or has to wait holds `permit` until [`end`](Self::end).
    pub fn decide(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Decision {
        permit.begin(env.now, request);
        let mut found = std::mem::take(&mut self.work.found);
        self.index.find(request, &mut found);
        self.work.applied.clear();
        self.work.applied.extend(
            found
                .iter()
                .filter_map(|&policy| usize::try_from(policy).ok())
                .map(|policy| Applied { policy, refused: None }),
        );
        self.work.found = found;
        if self.work.applied.is_empty() {
            return Decision::Unmatched;
        }
        let refused = self
            .check_requests(request, permit, env)
            .or_else(|| self.pass_breakers(request, permit, env))
            .or_else(|| self.charge_rates(request, permit, env));
        if refused.is_none()
            && let Some((policy, until)) = permit.holds_until(env.now)
        {
            self.hold(policy, permit, env);
            return Decision::Wait { until };
        }
        let refused = refused.or_else(|| self.enter(permit, env));
        self.conclude(refused, request, env)
    }

    /// Decides about a request that was held, once its time has come: what its rate limits left to decide.
    pub fn resume(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Decision {
        let Some(waiting) = permit.waiting.take() else { return Decision::Unmatched };
        self.count_released(&waiting, env);
        permit.go_on(env.now.saturating_sub(waiting.since), env.now);
        self.work.applied = waiting.applied;
        let refused = self.pass_breakers(request, permit, env).or_else(|| self.enter(permit, env));
        self.conclude(refused, request, env)
    }

    /// The request has to wait, on behalf of this policy: it keeps its charges and nothing else.
    fn hold(&mut self, policy: usize, permit: &mut Permit, env: &mut Env<'_>) {
        self.give_back(permit, |held| !matches!(held.what, What::Charge { .. }), env);
        permit.waiting = Some(Waiting { since: env.now, policy, applied: self.work.applied.clone() });
        if let Some(policy) = self.policies.get(policy) {
            env.stats.add(env.metrics, stats::QUEUE_LENGTH, &[&policy.name], 1);
        }
    }

    pub(super) fn count_released(&self, waiting: &Waiting, env: &mut Env<'_>) {
        if let Some(policy) = self.policies.get(waiting.policy) {
            env.stats.add(env.metrics, stats::QUEUE_LENGTH, &[&policy.name], -1);
            let waited = env.now.saturating_sub(waiting.since) / 1_000_000;
            env.stats.record(env.metrics, stats::QUEUE_WAIT, &[], waited);
        }
    }

    fn conclude(&mut self, refused: Option<Refused>, request: &Request<'_>, env: &mut Env<'_>) -> Decision {
        match refused {
            Some((rejection, left)) => self.rejected(&rejection, left, request.is_grpc(), env),
            None => self.admitted(env),
        }
    }

    fn rejected(&mut self, rejection: &Rejection, left: Option<Left>, grpc: bool, env: &mut Env<'_>) -> Decision {
        let Some(policy) = self.policies.get(rejection.policy) else { return Decision::Unmatched };
        env.stats.add(env.metrics, stats::REQUESTS, &[&policy.name, rejection.reason.label()], 1);
        let rate = rejection.limit.and_then(|limit| policy.rates.get(limit));
        // All of the policy's limits where they were asked, else the one that was charged and refused.
        let mut views: Vec<_> = Vec::new();
        if rate.is_some() {
            let asked = self.work.asked(rejection.policy);
            views.extend(asked.filter_map(|(limit, left)| Some(policy.rates.get(limit)?.view(left))));
        }
        if views.is_empty() {
            views.extend(rate.zip(left).map(|(rate, left)| rate.view(left)));
        }
        let reply = local_reply(policy, rejection, &views, grpc);
        let line = reason_line(policy, rejection, rate.map(|rate| rate.name.as_str()));
        Decision::Rejected { reply, line }
    }

    fn admitted(&mut self, env: &mut Env<'_>) -> Decision {
        let mut shadow: Option<String> = None;
        for applied in &self.work.applied {
            let Some(policy) = self.policies.get(applied.policy) else { continue };
            match applied.refused {
                None => {
                    if let Some(id) = policy.admitted {
                        env.metrics.add(id, 1);
                    }
                }
                Some(Refusal { reason, limit, wait, .. }) => {
                    let label = format!("shadow_{}", reason.label());
                    env.stats.add(env.metrics, stats::REQUESTS, &[&policy.name, &label], 1);
                    shadow.get_or_insert_with(|| {
                        let rejection = Rejection { policy: applied.policy, reason, limit, wait };
                        let limit = limit.and_then(|limit| policy.rates.get(limit)).map(|rate| rate.name.as_str());
                        format!("shadow_{}", reason_line(policy, &rejection, limit))
                    });
                }
            }
        }
        Decision::Admitted { shadow }
    }

    fn check_requests(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        for at in 0..self.work.applied.len() {
            let Some(limits) = self.live(at).and_then(|policy| policy.request_limits.as_ref()) else { continue };
            let over = |bound: Option<u32>, value: usize| {
                bound.is_some_and(|bound| value > usize::try_from(bound).unwrap_or(usize::MAX))
            };
            let (mut count, mut bytes) = (0usize, 0usize);
            if limits.max_headers.is_some() || limits.max_header_bytes.is_some() {
                for (name, value) in request.headers().iter().filter(|(name, _)| !name.starts_with(b":")) {
                    count = count.saturating_add(1);
                    bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
                }
            }
            let invalid = if over(limits.max_path_bytes, request.raw_path().len()) {
                Invalid::Path
            } else if over(limits.max_headers, count) || over(limits.max_header_bytes, bytes) {
                Invalid::Headers
            } else {
                continue;
            };
            let refusal = Refusal { reason: Reason::Invalid(invalid), limit: None, wait: None, left: None };
            if let Some(refused) = self.refuse(at, refusal, permit, env) {
                return Some(refused);
            }
        }
        None
    }

    fn pass_breakers(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        for at in 0..self.work.applied.len() {
            let Some((policy, applied)) = live_mut(&mut self.policies, &self.work.applied, at) else { continue };
            let Some(breaker) = &policy.breaker else { continue };
            // Without its key, say no cluster because no route matched, there is no upstream to judge.
            if !breaker.key.extract(request, &mut self.work.key) {
                continue;
            }
            let Ok(mut breakers) = breaker.breakers.try_borrow_mut() else { continue };
            // Half of the hash is enough to tell a few hundred keys apart.
            let hash = hash(env.hash_key, &self.work.key) as u64;
            let slot = breakers.slot(env.share, hash, &self.work.key);
            let answer = breakers.acquire(env.share, slot, env.now, env.random);
            super::settle::report(&policy.name, &mut breakers, env);
            match answer {
                Ok(granted) => {
                    permit.held.push(Held { policy: applied.policy, what: What::Breaker(granted) });
                }
                Err(denied) => {
                    drop(breakers);
                    let reason = Reason::CircuitOpen(denied.reason());
                    let refusal = Refusal { reason, limit: None, wait: denied.retry_in(), left: None };
                    if let Some(refused) = self.refuse(at, refusal, permit, env) {
                        return Some(refused);
                    }
                }
            }
        }
        None
    }

    fn enter(&mut self, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        for at in 0..self.work.applied.len() {
            let Some((policy, applied)) = live_mut(&mut self.policies, &self.work.applied, at) else { continue };
            let Some(concurrency) = &policy.concurrency else { continue };
            if let Some(place) = concurrency.enter(env) {
                permit
                    .held
                    .push(Held { policy: applied.policy, what: What::Place { place, learns: concurrency.learns() } });
                continue;
            }
            let refusal = Refusal { reason: Reason::Overloaded, limit: None, wait: None, left: None };
            if let Some(refused) = self.refuse(at, refusal, permit, env) {
                return Some(refused);
            }
        }
        None
    }

    /// Carries a policy's refusal out, or counts it and lets the request go on without the policy.
    pub(super) fn refuse(
        &mut self,
        at: usize,
        refusal: Refusal,
        permit: &mut Permit,
        env: &mut Env<'_>,
    ) -> Option<Refused> {
        if self.enforced(at, env) {
            self.reject(at, refusal, permit, env)
        } else {
            self.drop_policy(at, refusal, permit, env);
            None
        }
    }

    /// Whether a refusal of this policy is carried out, this time.
    pub(super) fn enforced(&self, at: usize, env: &mut Env<'_>) -> bool {
        self.live(at).is_some_and(|policy| !policy.shadow && drawn(policy.enforce, env))
    }

    /// The policy has refused and is not heeded: what it granted is given back, the others go on.
    pub(super) fn drop_policy(&mut self, at: usize, refusal: Refusal, permit: &mut Permit, env: &mut Env<'_>) {
        let Some(applied) = self.work.applied.get_mut(at) else { return };
        applied.refused = Some(refusal);
        let policy = applied.policy;
        self.give_back(permit, |held| held.policy == policy, env);
    }

    /// The request is rejected: whatever it was granted is given back.
    pub(super) fn reject(
        &mut self,
        at: usize,
        refusal: Refusal,
        permit: &mut Permit,
        env: &mut Env<'_>,
    ) -> Option<Refused> {
        let policy = self.work.applied.get(at)?.policy;
        self.give_back(permit, |_| true, env);
        let Refusal { reason, limit, wait, left } = refusal;
        Some((Rejection { policy, reason, limit, wait }, left))
    }

    /// The policy at this place of those that apply, unless it has refused already.
    fn live(&self, at: usize) -> Option<&Policy> {
        let applied = self.work.applied.get(at).filter(|applied| applied.refused.is_none())?;
        self.policies.get(applied.policy)
    }
}

/// As [`Engine::live`], to change, while other parts of the engine are in use.
pub(super) fn live_mut<'p>(
    policies: &'p mut [Policy],
    applied: &[Applied],
    at: usize,
) -> Option<(&'p mut Policy, Applied)> {
    let applied = *applied.get(at).filter(|applied| applied.refused.is_none())?;
    Some((policies.get_mut(applied.policy)?, applied))
}

/// Whether chance has this refusal carried out.
fn drawn(share: BasisPoints, env: &mut Env<'_>) -> bool {
    // The remainder favours low numbers by 1 in 10^15.
    share == BasisPoints::ALL || env.random.next_u64() % 10_000 < u64::from(share.0)
}

/// What stands for a key: 128 bits that nobody without the key of the hash can foresee, so that colliding keys cannot
/// be prepared.
pub(super) fn hash(key: (u64, u64), buf: &KeyBuf) -> u128 {
    let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
    hasher.write(buf.as_bytes());
    hasher.finish128().as_u128()
}
