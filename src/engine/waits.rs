//! Requests that are held: what they keep meanwhile, and how many they are.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config;
use crate::control::waiting;

use super::compile::Policy;
use super::permit::{Held, Permit, Waiting, What};
use super::shedding::Seat;
use super::stats::{self, MetricId};
use super::{Engine, Env};

/// How many requests a policy holds.
#[derive(Debug, Clone)]
pub(super) struct Waits {
    count: Rc<RefCell<waiting::Waiting>>,
    length: Option<MetricId>,
}

impl Waits {
    /// For a policy that may hold requests. The number goes on after an update, whatever changed: a worker that left its
    /// record while it holds requests would be taken for dead.
    ///
    /// # Errors
    /// A sentence, when the host shares nothing.
    pub fn new(
        policy: &config::Policy,
        scope: &str,
        before: Option<&Policy>,
        env: &mut Env<'_>,
    ) -> Result<Option<Self>, String> {
        let queues = policy.load_shedding.as_ref().is_some_and(|shedding| shedding.queue.is_some());
        if !queues && policy.rate_limits.iter().all(|limit| limit.pace.is_none()) {
            return Ok(None);
        }
        if let Some(kept) = before.and_then(|before| before.waits.clone()) {
            return Ok(Some(kept));
        }
        let name = policy.name.as_str();
        let count = waiting::Waiting::new(env.share, &format!("{scope}/{name}/waiting"));
        let count = count.map_err(|error| {
            format!("policy {name}: the host keeps no shared state for requests that wait ({error:?})")
        })?;
        let length = env.stats.id(env.metrics, stats::QUEUE_LENGTH, &[name]);
        Ok(Some(Self { count: Rc::new(RefCell::new(count)), length }))
    }

    /// Whether it is counted.
    fn begin(&self, env: &mut Env<'_>) -> bool {
        let Ok(mut count) = self.count.try_borrow_mut() else { return false };
        if count.begin(env.share, env.random).is_err() {
            env.count_errors("load_shedding", 1);
            return false;
        }
        self.tell(1, env);
        true
    }

    fn end(&self, env: &Env<'_>) {
        if let Ok(mut count) = self.count.try_borrow_mut() {
            count.end(env.share);
            self.tell(-1, env);
        }
    }

    /// What time alone changes.
    pub fn tick(&self, env: &mut Env<'_>) {
        let Ok(mut count) = self.count.try_borrow_mut() else { return };
        match count.tick(env.share, env.now, env.random) {
            Ok(0) => {}
            Ok(corrected) => self.tell(corrected, env),
            Err(_) => env.count_errors("load_shedding", 1),
        }
    }

    fn tell(&self, delta: i64, env: &Env<'_>) {
        if let Some(id) = self.length {
            env.metrics.add(id, delta);
        }
    }
}

impl Engine {
    /// The request has to wait, on behalf of this policy: it keeps its charges and nothing else but that it passed the throttles,
    /// and some of its places where it is called.
    pub(super) fn hold(&mut self, policy: usize, seat: Option<Seat>, permit: &mut Permit, env: &mut Env<'_>) {
        let called = seat.is_some() && permit.called.contains(&policy);
        let name = |policy: usize| self.policies.get(policy).map(|policy| policy.name.as_str());
        let earlier = permit.held.iter().map(|held| held.policy).filter(|held| called && name(*held) < name(policy));
        let earlier: Vec<_> = earlier.collect();
        let keeps = |held: &Held| match held.what {
            What::Charge { .. } | What::Outcome => true,
            What::Place { .. } => earlier.contains(&held.policy),
            What::Breaker(_) => false,
        };
        self.give_back(permit, |held| !keeps(held), env);
        let applied = self.work.applied.clone();
        let counted = self.waits(policy).is_some_and(|waits| waits.begin(env));
        permit.waiting = Some(Waiting { since: env.now, policy, applied, seat, turn: None, counted, missed: false });
    }

    /// The request waits no more.
    pub(super) fn count_released(&self, waiting: &Waiting, env: &Env<'_>) {
        if let Some(waits) = self.waits(waiting.policy).filter(|_| waiting.counted) {
            waits.end(env);
        }
        let waited = env.now.saturating_sub(waiting.since) / 1_000_000;
        env.stats.record(env.metrics, stats::QUEUE_WAIT, &[], waited);
    }

    fn waits(&self, policy: usize) -> Option<&Waits> {
        self.policies.get(policy)?.waits.as_ref()
    }
}
