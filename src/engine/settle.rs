//! The response, and the end of the stream: headers told, permits settled, the upstream judged.

use crate::control::Nanos;
use crate::control::circuit_breaker::{CircuitBreakers, Outcome, State};
use crate::control::concurrency::Ended;

use super::headers::rate_limit_headers;
use super::outcome::{Ending, Verdict, classify};
use super::permit::{Answer, Held, Permit, What};
use super::rates::Left;
use super::{Engine, Env, stats};

/// A stream's response, as the host sees it. Each read is a host call.
pub trait Stream {
    /// The first value of a response header.
    fn response_header(&self, name: &str) -> Option<&[u8]>;
    /// The first value of a response trailer.
    fn response_trailer(&self, name: &str) -> Option<&[u8]>;
    /// Adds a response header.
    fn add_response_header(&self, name: &str, value: &str);
    /// Envoy's `response.flags`; 0 where the host has none. Only at the stream's end.
    fn flags(&self) -> u64;
    /// Whether the upstream, and not the proxy or another filter, wrote the response. Only at the stream's end.
    fn from_upstream(&self) -> bool;
}

/// Longer than any breaker stays open: a larger `Retry-After` says the same.
const LONGEST_RETRY_AFTER_SECONDS: u64 = 86_400;

impl Permit {
    /// A new request: nothing held, nothing known.
    pub(super) fn begin(&mut self, now: Nanos, grpc: bool) {
        self.held.clear();
        self.started = now;
        self.grpc = grpc;
        self.answer = Answer::default();
    }
}

impl Engine {
    /// The response headers are there. `ends` is true when nothing follows them.
    pub fn response_headers(&self, stream: &dyn Stream, ends: bool, permit: &mut Permit, now: Nanos) {
        if permit.judges_upstream() {
            let number = |name| stream.response_header(name).and_then(parse_number);
            permit.answer.took = Some(now.saturating_sub(permit.started));
            permit.answer.status = number(":status").and_then(|status| u16::try_from(status).ok());
            if permit.grpc && ends {
                permit.answer.grpc_status = grpc_status(stream.response_header("grpc-status"));
            }
            if permit.answer.status.is_some_and(|status| status >= 400) {
                let wait = number("retry-after").map(|seconds| seconds.min(LONGEST_RETRY_AFTER_SECONDS));
                permit.answer.retry_after = wait.map(|seconds| seconds.saturating_mul(1_000_000_000));
                permit.answer.rejected_downstream = stream.response_header("x-tidegate-reason").is_some();
            }
        }
        self.tell_rates(stream, permit);
    }

    /// The response trailers are there.
    pub fn response_trailers(&self, stream: &dyn Stream, permit: &mut Permit) {
        if permit.grpc && permit.judges_upstream() {
            permit.answer.grpc_status = grpc_status(stream.response_trailer("grpc-status"));
        }
    }

    fn tell_rates(&self, stream: &dyn Stream, permit: &Permit) {
        // Seldom more than one limit: gathered per policy, since each has its own say on headers.
        let mut views = Vec::new();
        let mut policy_of_views = None;
        let tell = |policy: Option<usize>, views: &mut Vec<_>| {
            if let Some(policy) = policy.and_then(|policy| self.policies.get(policy)) {
                rate_limit_headers(policy.headers, views, &mut |name, value| stream.add_response_header(name, value));
            }
            views.clear();
        };
        for held in &permit.held {
            let What::Charge { limit, quota, charged } = &held.what else { continue };
            let Some(policy) = self.policies.get(held.policy) else { continue };
            let Some(rate) = policy.rates.get(*limit).filter(|_| !policy.shadow) else { continue };
            if policy_of_views != Some(held.policy) {
                tell(policy_of_views, &mut views);
                policy_of_views = Some(held.policy);
            }
            views.push(rate.view(Left::of(*quota, &charged.budget)));
        }
        tell(policy_of_views, &mut views);
    }

    /// The stream has ended, however it did. What the permit held is settled; a second call finds nothing.
    pub fn end(&mut self, stream: &dyn Stream, permit: &mut Permit, env: &mut Env<'_>) {
        if permit.is_empty() {
            return;
        }
        let ending = permit.judges_upstream().then(|| permit.ending(stream));
        let Answer { took, retry_after, .. } = permit.answer;
        while let Some(Held { policy, what }) = permit.held.pop() {
            let Some(policy) = self.policies.get_mut(policy) else { continue };
            match what {
                What::Charge { .. } => {}
                What::Place(place) => {
                    if let Some(concurrency) = &mut policy.concurrency {
                        concurrency.release(env.share, place, Ended::Ignored, 0, env.now, env.random);
                    }
                }
                What::Breaker(granted) => {
                    let Some(breaker) = &policy.breaker else { continue };
                    let Ok(mut breakers) = breaker.breakers.try_borrow_mut() else { continue };
                    let Some(ending) = &ending else { continue };
                    let verdict = classify(&breaker.settings.failure_when, &breaker.settings.ignore_when, ending);
                    let outcome = match verdict {
                        Verdict::Success => Outcome::Success,
                        Verdict::Failure => Outcome::Failure { retry_after },
                        Verdict::Throttled => Outcome::RateLimited { retry_after },
                        Verdict::Ignored => {
                            breakers.cancel(env.share, granted);
                            report(&policy.name, &mut breakers, env);
                            continue;
                        }
                    };
                    // No headers came: the request took all its life.
                    let took = took.unwrap_or_else(|| env.now.saturating_sub(permit.started));
                    breakers.settle(env.share, granted, outcome, took, env.now, env.random);
                    report(&policy.name, &mut breakers, env);
                }
            }
        }
    }

    /// Gives back what was granted, to all policies or to one, as though it had never been asked for.
    pub(super) fn give_back(&mut self, permit: &mut Permit, only: Option<usize>, env: &mut Env<'_>) {
        for Held { policy, what } in permit.held.extract_if(.., |held| only.is_none_or(|only| only == held.policy)) {
            let Some(policy) = self.policies.get_mut(policy) else { continue };
            match what {
                What::Charge { limit, charged, .. } => {
                    if let Some(rate) = policy.rates.get_mut(limit) {
                        let share = super::compile::share_of(&rate.settings, env);
                        rate.limiter.refund(share, charged, env.now);
                    }
                }
                What::Place(place) => {
                    if let Some(concurrency) = &mut policy.concurrency {
                        concurrency.release(env.share, place, Ended::Ignored, 0, env.now, env.random);
                    }
                }
                What::Breaker(granted) => {
                    if let Some(breaker) = &policy.breaker
                        && let Ok(mut breakers) = breaker.breakers.try_borrow_mut()
                    {
                        breakers.cancel(env.share, granted);
                    }
                }
            }
        }
    }

    /// What time alone changes. Any worker, any number of times.
    pub fn tick(&mut self, env: &mut Env<'_>) {
        for policy in &mut self.policies {
            if let Some(concurrency) = &mut policy.concurrency {
                concurrency.tick(env.share, env.now, env.random);
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

impl Permit {
    fn ending(&self, stream: &dyn Stream) -> Ending {
        let Answer { status, grpc_status, .. } = self.answer;
        // Who wrote the answer costs a host call. It is asked only of bad ones: a good one is taken for the upstream's.
        let good = status.is_some_and(|status| status < 400) && grpc_status.is_none_or(|code| code == 0);
        Ending {
            status,
            grpc_status,
            flags: stream.flags(),
            from_upstream: good || stream.from_upstream(),
            rejected_downstream: self.answer.rejected_downstream,
        }
    }
}

/// Counts and logs the changes of state this worker made. Over all workers each is told once.
pub(super) fn report(policy: &str, breakers: &mut CircuitBreakers, env: &mut Env<'_>) {
    while let Some((slot, change)) = breakers.take_transition() {
        let label = breakers.label(slot).unwrap_or_default();
        let key = if label.is_empty() { "_all" } else { label };
        env.stats.record(env.metrics, stats::BREAKER_STATE, &[policy, key], u64::from(change.to.code()));
        env.stats.add(env.metrics, stats::BREAKER_TRANSITIONS, &[policy, change.to.name()], 1);
        let (from, to) = (change.from.name(), change.to.name());
        if change.to == State::Open {
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
    let errors = breakers.take_errors();
    if errors > 0 {
        let errors = i64::try_from(errors).unwrap_or(i64::MAX);
        env.stats.add(env.metrics, stats::ERRORS, &["circuit_breaker"], errors);
    }
}

fn parse_number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// A missing or unreadable status of an ended gRPC response is `UNKNOWN` to its client, so it is here.
fn grpc_status(value: Option<&[u8]>) -> Option<u8> {
    const UNKNOWN: u8 = 2;
    Some(value.and_then(parse_number).and_then(|code| u8::try_from(code).ok()).unwrap_or(UNKNOWN))
}
