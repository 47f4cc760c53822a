//! The decision over all policies that match a request.

use siphasher::sip128::SipHasher13;

use crate::config::BasisPoints;
use crate::control::Nanos;
use crate::control::circuit_breaker::{Denied, State};
use crate::matching::{KeyBuf, Request};

use super::compile::Policy;
use super::permit::{Held, Permit, Waiting, What};
use super::rates::Left;
use super::rejection::{Reason, Rejection};
use super::response::{LocalReply, local_reply, reason_line};
use super::shedding::{Answer, Asker};
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
    /// It waits in a queue: to be asked about again, with [`Engine::resume`], when [`Engine::wake`] says that it is its turn.
    Queued,
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
    /// Whether chance has what the policy wants of this request carried out, once that was drawn.
    pub enforced: Option<bool>,
}

impl Applied {
    pub const fn new(policy: usize) -> Self {
        Self { policy, refused: None, enforced: None }
    }
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
/// By pointer: it is returned through all of a decision, and there is none as a rule.
pub(super) type Refused = Box<(Rejection, Option<Left>)>;

impl Engine {
    /// Decides about a request. One that is admitted or has to wait holds `permit` until [`end`](Self::end).
    pub fn decide(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Decision {
        if self.concerns(request) { self.decide_found(request, permit, env) } else { Decision::Unmatched }
    }

    /// Whether any policy speaks to a request: the first half of [`decide`](Self::decide), for which neither time nor
    /// anything shared is needed.
    pub fn concerns(&mut self, request: &Request<'_>) -> bool {
        let mut found = std::mem::take(&mut self.work.found);
        self.index.find(request, &mut found);
        self.work.applied.clear();
        self.work.applied.extend(found.iter().filter_map(|&policy| usize::try_from(policy).ok()).map(Applied::new));
        self.work.found = found;
        !self.work.applied.is_empty()
    }

    /// The second half, for the request that [`concerns`](Self::concerns) was asked about last, if it said yes.
    pub fn decide_found(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Decision {
        permit.begin(env.now, request);
        let refused = self
            .check_requests(request, permit, env)
            .or_else(|| self.pass_breakers(request, permit, env))
            .or_else(|| self.ask_rates(request, permit, env))
            .or_else(|| if self.work.may_hold { self.check_deadlines(request, permit, env) } else { None });
        // A place is taken before rates are charged, so that a request that finds none never takes what another could
        // have had, not even for a moment. One that is to be held takes its place when it goes on.
        let enters_first = !self.work.may_hold;
        let refused = refused
            .or_else(|| if enters_first { self.go_in(request, permit, env) } else { None })
            .or_else(|| self.charge_rates(permit, env));
        if let Some(wait) = self.hold_until_due(&refused, permit, env) {
            return wait;
        }
        let refused = refused.or_else(|| if enters_first { None } else { self.go_in(request, permit, env) });
        self.conclude(refused, permit, env)
    }

    /// Decides about a request that was held, once its time or its turn has come: what is left to decide.
    pub fn resume(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Decision {
        let Some(waiting) = self.take_up(permit, env) else { return Decision::Unmatched };
        let refused = self
            .turn_away(&waiting, permit, env)
            .or_else(|| self.pass_breakers(request, permit, env))
            .or_else(|| self.charge_anew(&waiting, Some(request), permit, env));
        if let Some(wait) = self.hold_until_due(&refused, permit, env) {
            return wait;
        }
        let refused = refused.or_else(|| self.go_in(request, permit, env));
        self.conclude(refused, permit, env)
    }

    /// The same where the host does not give the request again, which is our failure and not the client's. Whoever waited
    /// for too long is turned away all the same; for the rest it goes on with what it holds, which it has used then: its
    /// charges stand, and so does a place that was granted. What cannot be asked without the request lets it through. A
    /// request that was never decided about is none of ours.
    pub fn resume_unread(&mut self, permit: &mut Permit, env: &mut Env<'_>) -> Decision {
        let Some(waiting) = self.take_up(permit, env) else { return Decision::Unmatched };
        let refused = self.turn_away(&waiting, permit, env).or_else(|| self.charge_anew(&waiting, None, permit, env));
        if let Some(wait) = self.hold_until_due(&refused, permit, env) {
            return wait;
        }
        self.conclude(refused, permit, env)
    }

    /// Holds a request that nothing refused and that a rate limit lets through only later.
    fn hold_until_due(
        &mut self,
        refused: &Option<Refused>,
        permit: &mut Permit,
        env: &mut Env<'_>,
    ) -> Option<Decision> {
        let (policy, until) = permit.holds_until(env.now).filter(|_| refused.is_none())?;
        self.hold(policy, None, permit, env);
        Some(Decision::Wait { until })
    }

    /// A request waits no longer.
    fn take_up(&mut self, permit: &mut Permit, env: &mut Env<'_>) -> Option<Waiting> {
        let waiting = permit.waiting.take()?;
        self.count_released(&waiting, env);
        permit.go_on(env.now.saturating_sub(waiting.since), env.now);
        self.work.applied.clone_from(&waiting.applied);
        self.work.line = None;
        self.quit(&waiting, permit.stream, env);
        Some(waiting)
    }

    fn conclude(&mut self, refused: Option<Refused>, permit: &mut Permit, env: &mut Env<'_>) -> Decision {
        let refused = match self.work.line.take() {
            // Whoever is to wait for a policy is refused by it or held, and no policy spares it any more: chance has had its say.
            Some((at, line)) if refused.is_none() => {
                let full = self.line_up(at, line, permit, env);
                if full.is_none() {
                    return Decision::Queued;
                }
                full
            }
            _ => refused,
        };
        match refused {
            Some(refused) => {
                let (rejection, left) = *refused;
                self.rejected(&rejection, left, permit.grpc, env)
            }
            None => self.admitted(permit, env),
        }
    }

    #[cold]
    pub(super) fn rejected(
        &mut self,
        rejection: &Rejection,
        left: Option<Left>,
        grpc: bool,
        env: &mut Env<'_>,
    ) -> Decision {
        let Some(policy) = self.policies.get(rejection.policy) else { return Decision::Unmatched };
        env.stats.add(env.metrics, stats::REQUESTS, &[&policy.name, rejection.reason.label()], 1);
        let views = left.map(|left| self.views(rejection, left)).unwrap_or_default();
        let reply = local_reply(policy, rejection, &views, grpc);
        let line = reason_line(policy, rejection);
        Decision::Rejected { reply, line }
    }

    fn admitted(&mut self, permit: &mut Permit, env: &mut Env<'_>) -> Decision {
        let mut shadow: Option<String> = None;
        for applied in &self.work.applied {
            let Some(policy) = self.policies.get(applied.policy) else { continue };
            match applied.refused {
                None => {
                    if let Some(id) = policy.admitted
                        && !permit.body.defers(applied.policy)
                    {
                        env.metrics.add(id, 1);
                    }
                }
                Some(Refusal { reason, limit, wait, .. }) => {
                    let rejection = Rejection { policy: applied.policy, reason, limit, wait };
                    count_shadow(policy, &rejection, &mut shadow, env);
                }
            }
        }
        Decision::Admitted { shadow }
    }

    fn pass_breakers(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        for at in 0..self.work.applied.len() {
            let Some((policy, number)) = live_mut(&mut self.policies, &self.work.applied, at) else { continue };
            let Some(breaker) = &mut policy.breaker else { continue };
            let keyed = breaker.key.extract(request, &mut self.work.key);
            let Ok(mut breakers) = breaker.breakers.try_borrow_mut() else { continue };
            let answer = if keyed {
                let (last, hash) = &mut breaker.last;
                if *last != self.work.key {
                    last.copy_from(&self.work.key);
                    *hash = key_hash(env.hash_key, last);
                }
                let slot = breakers.slot(env.share, *hash, &self.work.key);
                let answer = breakers.acquire(env.share, slot, env.now, env.random);
                super::settle::report(&policy.name, &mut breakers, env);
                answer
            } else if breakers.unused() == State::Open {
                // Held open, which needs no key.
                Err(Denied::ForcedOpen)
            } else {
                // Without its key, say no cluster because no route matched, there is no upstream to judge.
                continue;
            };
            match answer {
                Ok(granted) => {
                    permit.held.push(Held { policy: number, what: What::Breaker(granted) });
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

    /// What is left to pass once nothing is in the way but load.
    fn go_in(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        self.pass_throttles(permit, env).or_else(|| self.enter(request, permit, env))
    }

    fn enter(&mut self, request: &Request<'_>, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        self.work.line = None;
        for at in 0..self.work.applied.len() {
            let Some((policy, number)) = live_mut(&mut self.policies, &self.work.applied, at) else { continue };
            let Some(concurrency) = &policy.concurrency else { continue };
            // In shadow nobody waits: who finds no place counts as refused.
            let asker = Asker {
                arrived: permit.arrived,
                may_wait: env.may_wait && !policy.shadow,
                standing: permit.standing(number),
            };
            let answer = if permit.has_place(number) {
                let Some(refusal) = concurrency.too_late(request, permit.arrived, env.now) else { continue };
                Answer::Refused(refusal)
            } else {
                concurrency.ask(request, asker, &mut self.work.key, env)
            };
            let refusal = match answer {
                Answer::Enters(what) => {
                    permit.held.push(Held { policy: number, what });
                    continue;
                }
                // It waits in one queue at a time. The other policies are asked all the same: one may refuse it.
                Answer::MayWait(..) if self.work.line.is_some() => continue,
                Answer::MayWait(line, refusal) => {
                    if self.enforced(at, env) {
                        self.work.line = Some((at, line));
                    } else {
                        self.drop_policy(at, refusal, permit, env);
                    }
                    continue;
                }
                Answer::Refused(refusal) => refusal,
            };
            if let Some(refused) = self.refuse(at, refusal, permit, env) {
                return Some(refused);
            }
        }
        None
    }

    /// Carries a policy's refusal out, or counts it and lets the request go on without the policy.
    #[cold]
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

    /// Whether what this policy wants of the request, to refuse it or to hold it, is carried out: drawn once for both.
    pub(super) fn enforced(&mut self, at: usize, env: &mut Env<'_>) -> bool {
        let Some(applied) = self.work.applied.get_mut(at).filter(|applied| applied.refused.is_none()) else {
            return false;
        };
        let Some(policy) = self.policies.get(applied.policy) else { return false };
        *applied.enforced.get_or_insert_with(|| !policy.shadow && drawn(policy.enforce, env))
    }

    /// The policy has refused and is not heeded: what it granted is given back, the others go on.
    #[cold]
    pub(super) fn drop_policy(&mut self, at: usize, refusal: Refusal, permit: &mut Permit, env: &mut Env<'_>) {
        let Some(applied) = self.work.applied.get_mut(at) else { return };
        applied.refused = Some(refusal);
        let policy = applied.policy;
        permit.body.forget_policy(policy);
        self.give_back(permit, |held| held.policy == policy, env);
    }

    /// The request is rejected: whatever it was granted is given back.
    #[cold]
    pub(super) fn reject(
        &mut self,
        at: usize,
        refusal: Refusal,
        permit: &mut Permit,
        env: &mut Env<'_>,
    ) -> Option<Refused> {
        let policy = self.work.applied.get(at)?.policy;
        permit.body.forget();
        self.give_back(permit, |_| true, env);
        let Refusal { reason, limit, wait, left } = refusal;
        Some(Box::new((Rejection { policy, reason, limit, wait }, left)))
    }

    /// The policy at this place of those that apply, unless it has refused already.
    pub(super) fn live(&self, at: usize) -> Option<&Policy> {
        let applied = self.work.applied.get(at).filter(|applied| applied.refused.is_none())?;
        self.policies.get(applied.policy)
    }
}

/// As [`Engine::live`], to change, while other parts of the engine are in use; and its number.
pub(super) fn live_mut<'p>(
    policies: &'p mut [Policy],
    applied: &[Applied],
    at: usize,
) -> Option<(&'p mut Policy, usize)> {
    let policy = applied.get(at).filter(|applied| applied.refused.is_none())?.policy;
    Some((policies.get_mut(policy)?, policy))
}

/// Counts a refusal that is not carried out. The first of them is what the access log has.
#[cold]
pub(super) fn count_shadow(policy: &Policy, rejection: &Rejection, line: &mut Option<String>, env: &Env<'_>) {
    let label = format!("shadow_{}", rejection.reason.label());
    env.stats.add(env.metrics, stats::REQUESTS, &[&policy.name, &label], 1);
    line.get_or_insert_with(|| format!("shadow_{}", reason_line(policy, rejection)));
}

/// Whether chance has this refusal carried out.
fn drawn(share: BasisPoints, env: &mut Env<'_>) -> bool {
    // The remainder favours low numbers by 1 in 10^15.
    share == BasisPoints::ALL || env.random.next_u64() % 10_000 < u64::from(share.0)
}

/// What stands for one of a few hundred keys: half of [`hash`] is enough to tell them apart.
pub(super) fn key_hash(key: (u64, u64), buf: &KeyBuf) -> u64 {
    hash(key, buf) as u64
}

/// What stands for a key: 128 bits that nobody without the key of the hash can foresee, so that colliding keys cannot
/// be prepared.
pub(super) fn hash(key: (u64, u64), buf: &KeyBuf) -> u128 {
    SipHasher13::new_with_keys(key.0, key.1).hash(buf.as_bytes()).as_u128()
}
