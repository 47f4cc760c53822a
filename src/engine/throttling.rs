//! A policy's throttle: who passes it, what it is told of how requests end, and how much it rejects.
//!
//! An outcome counts as it does for a concurrency limit: what the upstream served is a success; failures, time-outs and
//! refusals of its own are none; clients that left, tunnels, and replies of the proxy or of a Tidegate further down say nothing.

use crate::config::{self, Outcomes};
use crate::control::concurrency::Ended;
use crate::control::throttle::{Settings, Throttle};

use super::compile::{digest, nanos};
use super::decide::{Refusal, Refused, live_mut};
use super::gauges::Told;
use super::outcome::Ending;
use super::permit::{Held, Permit, What};
use super::rates::tell_place;
use super::rejection::Reason;
use super::{Engine, Env, stats};

/// A policy's throttle.
#[derive(Debug)]
pub(super) struct Throttling {
    throttle: Throttle,
    /// What it rejects, in percent.
    rejection: Told,
    failures: Outcomes,
}

impl Throttling {
    /// Opens the throttle of a policy. What it has counted is with the host, under its settings.
    ///
    /// # Errors
    /// A sentence, when the host shares nothing.
    pub fn new(
        throttle: &config::Throttle,
        (policy, shadow): (&str, bool),
        scope: &str,
        env: &mut Env<'_>,
    ) -> Result<Self, String> {
        let settings = Settings {
            success_threshold: u32::from(throttle.success_threshold.0),
            window: nanos(throttle.window),
            max_rejection: u32::from(throttle.max_rejection.0),
            minimum_calls: u64::from(throttle.minimum_calls),
        };
        let name = format!("{scope}/{policy}/throttle");
        // What became of those whom a trial let pass says nothing of what would become of them otherwise.
        let owner = digest(&(throttle, shadow));
        let opened = Throttle::reusing(settings, env.share, &name, owner, env.now);
        let mut throttle = opened
            .map_err(|error| format!("policy {policy}: the host keeps no shared state for the throttle ({error:?})"))?;
        // It may have been at work before.
        throttle.tick(env.share, env.now);
        let rejection = Told::new(env.stats.id(env.metrics, stats::THROTTLE_REJECTION, &[policy]));
        let mut throttling = Self { throttle, rejection, failures: Outcomes::failures() };
        throttling.tell_place(policy, env);
        throttling.tell(env);
        Ok(throttling)
    }

    /// A request that passed has ended so.
    pub fn settle(&self, ending: &Ending, env: &Env<'_>) {
        match ending.ended(&self.failures) {
            Ended::Success => self.throttle.settle(env.share, true),
            Ended::Failure | Ended::Dropped => self.throttle.settle(env.share, false),
            Ended::Left | Ended::Ignored => {}
        }
    }

    /// What time alone changes.
    pub fn tick(&mut self, policy: &str, env: &Env<'_>) {
        self.throttle.keep(env.share, env.now);
        self.throttle.tick(env.share, env.now);
        self.tell_place(policy, env);
        self.tell(env);
    }

    /// Counts and logs that the throttle found no place among what workers share, or has one again.
    fn tell_place(&mut self, policy: &str, env: &Env<'_>) {
        env.count_errors("load_shedding", self.throttle.take_errors());
        if let Some(alone) = self.throttle.take_news() {
            tell_place("throttle", policy, alone);
        }
    }

    /// Nobody uses it any more: its place is free for other settings, unless others still use it and say so.
    pub fn release(&self, env: &Env<'_>) {
        self.throttle.release(env.share, env.now);
    }

    /// Tells what it rejects.
    fn tell(&self, env: &Env<'_>) {
        self.rejection.tell(self.throttle.rejection_percent(), env);
    }

    /// The gauge of what it rejects.
    pub fn told(&self) -> &Told {
        &self.rejection
    }
}

impl Engine {
    /// The throttles of all policies that apply. Whoever passed one before it was held has passed it.
    pub(super) fn pass_throttles(&mut self, permit: &mut Permit, env: &mut Env<'_>) -> Option<Refused> {
        for at in 0..self.work.applied.len() {
            let Some((policy, number)) = live_mut(&mut self.policies, &self.work.applied, at) else { continue };
            let Some(throttling) = &mut policy.throttling else { continue };
            let passed = |held: &Held| held.policy == number && matches!(held.what, What::Outcome);
            if permit.held.iter().any(passed) {
                continue;
            }
            if throttling.throttle.admits(env.share, env.now, env.random) {
                permit.held.push(Held { policy: number, what: What::Outcome });
                continue;
            }
            let refusal = Refusal { reason: Reason::Throttled, limit: None, wait: None, left: None };
            if let Some(refused) = self.refuse(at, refusal, permit, env) {
                return Some(refused);
            }
        }
        None
    }
}
