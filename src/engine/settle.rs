//! The response, and the end of the stream: headers told, permits settled, the upstream judged.

use crate::control::Nanos;
use crate::control::circuit_breaker::{CircuitBreakers, SlotId, State, Transition};

use super::gauges::{key_label, show};
use super::headers::{Tell, rate_limit_headers};
use super::judge::{settle_breaker, withdraw};
use super::permit::{Answer, Held, Permit, What};
use super::rates::{Left, tell_place};
use super::{Engine, Env, stats};
use crate::matching::{HeaderMap, Request};

/// A stream's response, as the host sees it. Each read is a host call that returns bytes.
pub trait Stream {
    /// All response headers; none where the host refuses. Only while they pass.
    fn response_headers(&self) -> Option<HeaderMap<'_>>;
    /// The first value of a response trailer.
    fn response_trailer(&self, name: &str) -> Option<&[u8]>;
    /// Adds a response header.
    fn add_response_header(&self, name: &str, value: &str);
    /// Adds a response header in the place of all there are of this name.
    fn replace_response_header(&self, name: &str, value: &str);
    /// Envoy's `response.flags`; 0 where the host has none. Only at the stream's end.
    fn flags(&self) -> u64;
    /// Envoy's `response.code_details`: who wrote the response and why; absent where the host has none.
    fn details(&self) -> Option<&[u8]>;
}

impl Permit {
    /// A new request: nothing held, nothing known.
    pub(super) fn begin(&mut self, now: Nanos, request: &Request<'_>) {
        self.held.clear();
        self.started = now;
        self.arrived = now;
        self.queued_since = None;
        self.called.clear();
        self.grpc = request.is_grpc();
        self.connect = request.method() == b"CONNECT";
        self.answer = Answer::default();
        self.waiting = None;
        self.missed = false;
        self.body.forget();
    }
}

impl Engine {
    /// The response headers are there. `ends` is true when nothing follows them.
    pub fn response_headers(&mut self, stream: &dyn Stream, ends: bool, permit: &mut Permit, env: &mut Env<'_>) {
        if permit.waiting.is_some() {
            // The proxy or another filter answers a request that never went on.
            self.abandon(permit, env);
            return;
        }
        let judges = permit.judges_upstream() || permit.body.is_counted();
        let needed = judges || self.charges_responses(permit);
        let headers = if needed { stream.response_headers() } else { None };
        if let Some(headers) = &headers
            && judges
        {
            self.judge_headers(stream, headers, ends, permit, env);
        }
        if permit.answer.tunnel {
            self.body_ended(permit, env);
        }
        self.release_with_headers(stream, ends, permit, env);
        permit.age_budgets(env.now.saturating_sub(permit.started));
        if let Some(headers) = &headers {
            self.charge_responses(headers, permit, env);
        }
        self.tell_rates(stream, permit);
        if !permit.body.is_counted() {
            // Nothing can reject the request any more, so its charges stand: where they are all that it holds, its end costs
            // nothing, not even a look at the clock.
            permit.held.retain(|held| !matches!(held.what, What::Charge { .. }));
        }
    }

    fn tell_rates(&mut self, stream: &dyn Stream, permit: &Permit) {
        let views = permit.held.iter().filter_map(|held| {
            let What::Charge { limit, quota, charged, .. } = &held.what else { return None };
            let policy = self.policies.get(held.policy).filter(|policy| !policy.shadow)?;
            Some((policy.headers, policy.rates.get(*limit)?.view(Left::of(*quota, &charged.budget))))
        });
        let mut tell = |name: &str, value: &str, how: Tell| match how {
            Tell::Beside => stream.add_response_header(name, value),
            Tell::Instead => stream.replace_response_header(name, value),
        };
        rate_limit_headers(views, &mut self.work.lines, &mut tell);
    }

    /// The stream has ended, however it did. What the permit held is settled; a second call finds nothing.
    pub fn end(&mut self, stream: &dyn Stream, permit: &mut Permit, env: &mut Env<'_>) {
        if permit.is_empty() {
            return;
        }
        if permit.waiting.is_some() {
            permit.body.forget();
            self.abandon(permit, env);
            return;
        }
        self.body_ended(permit, env);
        let ending = permit.judges_upstream().then(|| permit.ending(stream));
        while let Some(Held { policy, what }) = permit.held.pop() {
            let Some(policy) = self.policies.get_mut(policy) else { continue };
            match what {
                What::Charge { .. } => {}
                What::Outcome => {
                    if let (Some(throttling), Some(ending)) = (&policy.throttling, &ending) {
                        throttling.settle(ending, env);
                    }
                }
                What::Place { place, learns, .. } => {
                    if let Some(concurrency) = &policy.concurrency {
                        let ending = ending.as_ref().filter(|_| learns);
                        concurrency.leave(place, ending, env.now.saturating_sub(permit.started), env);
                    }
                }
                What::Breaker(granted) => {
                    let Some(ending) = &ending else { continue };
                    // No headers came: the request took all its life.
                    let took = permit.answer.took.unwrap_or_else(|| env.now.saturating_sub(permit.started));
                    settle_breaker(policy, granted, ending, &permit.answer, took, env);
                }
            }
        }
    }

    /// A request will not go on: its charges are given back, as far as that cannot let too many through.
    pub(super) fn abandon(&mut self, permit: &mut Permit, env: &mut Env<'_>) {
        if let Some(waiting) = permit.waiting.take() {
            self.count_released(&waiting, env);
            self.quit(&waiting, permit.stream, env);
        }
        self.give_back(permit, |_| true, env);
    }

    /// Gives back what was granted, as far as `chosen`, as though it had never been asked for.
    pub(super) fn give_back(&mut self, permit: &mut Permit, chosen: impl Fn(&Held) -> bool, env: &mut Env<'_>) {
        for Held { policy, what } in permit.held.extract_if(.., |held| chosen(held)) {
            let Some(policy) = self.policies.get_mut(policy) else { continue };
            match what {
                What::Charge { limit, charged, .. } => {
                    if let Some(rate) = policy.rates.get_mut(limit) {
                        rate.refund(charged, &policy.name, env);
                    }
                }
                // It passed all the same: that it ended so says nothing.
                What::Outcome => {}
                What::Place { place, .. } => {
                    if let Some(concurrency) = &policy.concurrency {
                        concurrency.leave(place, None, 0, env);
                    }
                }
                What::Breaker(granted) => {
                    if let Some(breaker) = &policy.breaker {
                        withdraw(policy, breaker, granted, env);
                    }
                }
            }
        }
    }

    /// What time alone changes. Any worker, any number of times.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        for policy in &mut self.policies {
            for rate in &mut policy.rates {
                rate.tick(&policy.name, env);
            }
            if let Some(concurrency) = &policy.concurrency {
                concurrency.tick(&policy.name, env);
            }
            if let Some(throttling) = &mut policy.throttling {
                throttling.tick(&policy.name, env);
            }
            if let Some(waits) = &policy.waits {
                waits.tick(env);
            }
            if let Some(breaker) = &policy.breaker
                && let Ok(mut breakers) = breaker.breakers.try_borrow_mut()
            {
                breakers.tick(env.share, env.now, env.random);
                report(&policy.name, &mut breakers, env);
            }
        }
    }
}

/// Counts and logs the changes of state this worker made. Over all workers each is told once.
pub(super) fn report(policy: &str, breakers: &mut CircuitBreakers, env: &mut Env<'_>) {
    while let Some((slot, change)) = breakers.take_transition() {
        report_change(policy, breakers, slot, change, env);
    }
    while let Some(slot) = breakers.take_met() {
        show(policy, breakers, slot, env);
    }
    if let Some(alone) = breakers.take_news() {
        tell_place("circuit breakers", policy, alone);
    }
    env.count_errors("circuit_breaker", breakers.take_errors());
}

#[cold]
fn report_change(policy: &str, breakers: &mut CircuitBreakers, slot: SlotId, change: Transition, env: &mut Env<'_>) {
    show(policy, breakers, slot, env);
    let key = key_label(breakers.label(slot).unwrap_or_default());
    env.stats.add(env.metrics, stats::BREAKER_TRANSITIONS, &[policy, change.to.name()], 1);
    let (from, to) = (change.from.name(), change.to.name());
    if change.to == State::Open {
        env.stats.add(env.metrics, stats::BREAKER_TRIPS, &[policy, change.reason.name()], 1);
        log::warn!(
            "circuit breaker {policy}/{key}: {from} to {to} ({}): {} of {} calls failed, {} slow; open for {} ms",
            change.reason.name(),
            change.counts.failures,
            change.counts.calls,
            change.counts.slow,
            change.open_for / 1_000_000,
        );
    } else {
        log::info!("circuit breaker {policy}/{key}: {from} to {to}");
    }
}
