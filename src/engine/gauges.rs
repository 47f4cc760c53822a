//! The gauges that are set: the state of each circuit breaker, limits of concurrency, what throttles reject. True whatever
//! changes meanwhile.
//!
//! # Breakers
//!
//! A gauge is set, not compared, so the writers of two changes may come in the wrong order. Whoever writes one therefore
//! looks again afterwards, and corrects it if the breaker has moved on: the last to write has seen the newest state.
//!
//! Breakers of different settings under one policy and key have one gauge. An update that ends some shows their successors',
//! and so does the end of the last request of those that went on while they drained. In between, the last change shows.
//!
//! # Limits and throttles
//!
//! Several engines may have a policy of one name: those before an update, while their requests last, and those of other
//! listeners. The newest tells; when it is gone, the newest of the others, and when all are, the gauge is 0.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::control::circuit_breaker::{CircuitBreakers, SlotId, State};

use super::compile::{Breaker, Policy};
use super::shedding::Concurrency;
use super::stats::{self, MetricId};
use super::throttling::Throttling;
use super::{Engine, Env};

/// How often a gauge is corrected before its own changes are left to others: each has written what it saw.
const MAX_TRIES: u32 = 8;

/// A gauge that is set when what it tells changes.
#[derive(Debug)]
pub(super) struct Told {
    id: Option<MetricId>,
    last: Cell<Option<u64>>,
    /// A newer engine tells it instead.
    silent: Cell<bool>,
}

impl Told {
    /// Nothing has been told.
    pub fn new(id: Option<MetricId>) -> Self {
        Self { id, last: Cell::new(None), silent: Cell::new(false) }
    }

    /// What it is now.
    pub fn tell(&self, value: u64, env: &Env<'_>) {
        let last = self.last.replace(Some(value));
        if let Some(id) = self.id
            && last != Some(value)
            && !self.silent.get()
        {
            env.metrics.record(id, value);
        }
    }

    /// Whose turn it is to tell: this one's, and no others'.
    fn pass_on(&self, heir: Option<&Self>, env: &Env<'_>) {
        self.silent.set(true);
        if let Some(heir) = heir {
            heir.silent.set(false);
        }
        let value = heir.map_or(Some(0), |heir| heir.last.get());
        if let (Some(id), Some(value)) = (self.id, value) {
            env.metrics.record(id, value);
        }
    }
}

/// The gauges of a policy that are told so.
fn told(policy: &Policy) -> [Option<&Told>; 2] {
    [policy.concurrency.as_ref().map(Concurrency::told), policy.throttling.as_ref().map(Throttling::told)]
}

/// A key as stats and logs name it.
pub(super) fn key_label(label: &str) -> &str {
    if label.is_empty() { "_all" } else { label }
}

fn write(policy: &str, label: &str, state: State, env: &Env<'_>) {
    env.stats.record(env.metrics, stats::BREAKER_STATE, &[policy, key_label(label)], u64::from(state.code()));
}

/// Shows a breaker's state.
#[cold]
pub(super) fn show(policy: &str, breakers: &mut CircuitBreakers, slot: SlotId, env: &Env<'_>) {
    let Some(label) = breakers.label(slot).map(str::to_owned) else { return };
    let mut state = breakers.state(env.share, slot);
    for _ in 0..MAX_TRIES {
        write(policy, &label, state, env);
        let now = breakers.state(env.share, slot);
        if now == state {
            return;
        }
        state = now;
    }
}

/// A key of breakers that are at their end.
struct Old {
    key_hash: Option<u64>,
    label: String,
    state: State,
}

impl Breaker {
    fn same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.breakers, &other.breakers)
    }

    /// The keys that this worker knows.
    fn keys(&self, env: &Env<'_>) -> Vec<Old> {
        let Ok(mut breakers) = self.breakers.try_borrow_mut() else { return Vec::new() };
        let slots = breakers.slots();
        slots
            .filter_map(|slot| {
                let label = breakers.label(slot)?.to_owned();
                Some(Old { key_hash: breakers.key_hash(slot), label, state: breakers.state(env.share, slot) })
            })
            .collect()
    }
}

impl Engine {
    fn breaker(&self, policy: &str) -> Option<&Breaker> {
        self.policy(policy)?.breaker.as_ref()
    }

    /// The breakers of the engines before that are gone or begin anew are not open any more, and nobody else would say so
    /// until they have drained. `previous`: those engines, the newest first.
    pub(super) fn succeed(&self, previous: &[&Self], env: &Env<'_>) {
        for before in previous.iter().flat_map(|engine| &engine.policies) {
            let Some(old) = &before.breaker else { continue };
            if self.breaker(&before.name).is_none_or(|now| !now.same(old)) {
                self.show_for(&before.name, old, env);
            }
        }
        // Taken over from an engine before the last, they may be open already.
        let Some(last) = previous.first() else { return };
        for policy in &self.policies {
            let Some(breaker) = &policy.breaker else { continue };
            if last.breaker(&policy.name).is_none_or(|before| !before.same(breaker)) {
                show_open(&policy.name, &breaker.breakers, env);
            }
        }
    }

    /// What this engine tells the others tell no more.
    pub(super) fn speak_for(&self, others: &[&Self], env: &Env<'_>) {
        for policy in &self.policies {
            for other in others.iter().filter_map(|engine| engine.policy(&policy.name)) {
                for (before, now) in told(other).into_iter().zip(told(policy)) {
                    if let (Some(before), Some(now)) = (before, now) {
                        before.pass_on(Some(now), env);
                    }
                }
            }
        }
    }

    /// Leaves what this engine told to the newest of the others that can tell it.
    fn fall_silent(&self, rest: &[&Self], env: &Env<'_>) {
        for policy in &self.policies {
            for (at, gone) in told(policy).into_iter().enumerate() {
                let Some(gone) = gone.filter(|gone| !gone.silent.get()) else { continue };
                let heirs = rest.iter().filter_map(|engine| engine.policy(&policy.name));
                let heir = heirs.filter_map(|policy| told(policy).into_iter().nth(at).flatten()).next();
                gone.pass_on(heir, env);
            }
        }
    }

    /// Shows for the keys of `old`, breakers of the same policy, the state of this engine's.
    fn show_for(&self, policy: &str, old: &Breaker, env: &Env<'_>) {
        let new = self.breaker(policy).map(|new| &new.breakers);
        for key in old.keys(env) {
            let mut new = new.and_then(|new| new.try_borrow_mut().ok());
            let unused = new.as_ref().map_or(State::Closed, |new| new.unused());
            if key.state == State::Closed && unused == State::Closed {
                // What it shows is not of the old one's doing.
                continue;
            }
            let known = |new: &mut Option<std::cell::RefMut<'_, CircuitBreakers>>| {
                let new = new.as_deref_mut()?;
                let slot = new.find(env.share, key.key_hash, &key.label)?;
                show(policy, new, slot, env);
                Some(())
            };
            if known(&mut new).is_none() {
                write(policy, &key.label, unused, env);
                // Another worker may have met the key meanwhile.
                let _ = known(&mut new);
            }
        }
    }

    /// The last request of this engine has ended. `rest`: those that go on beside it, the newest first. What they do not
    /// use of its breakers is forgotten.
    pub fn retire(&self, rest: &[&Self], env: &Env<'_>) {
        self.fall_silent(rest, env);
        for policy in &self.policies {
            let Some(old) = &policy.breaker else { continue };
            let used = rest.iter().filter_map(|engine| engine.breaker(&policy.name)).any(|new| new.same(old));
            if used {
                continue;
            }
            if let Ok(breakers) = old.breakers.try_borrow() {
                breakers.release(env.share, env.now);
            }
            let heir = rest.iter().find(|engine| engine.breaker(&policy.name).is_some()).or(rest.first());
            match heir {
                Some(heir) => heir.show_for(&policy.name, old, env),
                None => {
                    let open = old.keys(env).into_iter().filter(|key| key.state != State::Closed);
                    open.for_each(|key| write(&policy.name, &key.label, State::Closed, env));
                }
            }
        }
        // While it was there it may have been the last to speak.
        if let Some(newest) = rest.first() {
            for policy in &newest.policies {
                let Some(breaker) = &policy.breaker else { continue };
                show_open(&policy.name, &breaker.breakers, env);
            }
        }
    }
}

fn show_open(policy: &str, breakers: &RefCell<CircuitBreakers>, env: &Env<'_>) {
    let Ok(mut breakers) = breakers.try_borrow_mut() else { return };
    for slot in breakers.slots() {
        if breakers.label(slot).is_some() && breakers.state(env.share, slot) != State::Closed {
            show(policy, &mut breakers, slot, env);
        }
    }
}
