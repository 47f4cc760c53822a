//! What breakers and limits learn of a response: from its headers, its trailers and its end.
//!
//! An outcome is settled at the stream's end, since only then is it known whether the answer was whole, with
//! three exceptions. A tunnel (101, or 2xx to `CONNECT`) is answered with its headers: how long it lives and what ends it say
//! nothing about the request. A place that is released with the headers tells its limit what they tell. And a probe with good headers whose body goes on past the probes' timeout has been
//! answered: it must keep a half-open breaker neither waiting nor from closing.

use crate::config::Release;
use crate::control::Nanos;
use crate::control::circuit_breaker::{Outcome, Permit as Granted};
use crate::matching::HeaderMap;

use super::compile::Policy;
use super::outcome::{Ending, Verdict, classify};
use super::permit::{Answer, Held, Permit, What};
use super::rates::whole_number;
use super::retry_after::retry_after;
use super::settle::{Stream, report};
use super::{Engine, Env};

/// `response.code_details` of a response that the upstream wrote and finished.
const VIA_UPSTREAM: &[u8] = b"via_upstream";

/// The details of a stream that the proxy ended for its age or its silence.
const EXPIRED: [&[u8]; 2] = [b"max_duration_timeout", b"stream_idle_timeout"];

impl Engine {
    /// The response headers are there. `ends` is true when nothing follows them.
    pub(super) fn judge_headers(
        &self,
        stream: &dyn Stream,
        headers: &HeaderMap<'_>,
        ends: bool,
        permit: &mut Permit,
        env: &mut Env<'_>,
    ) {
        let found = Found::among(headers);
        let took = found.service_time().unwrap_or(Nanos::MAX).min(env.now.saturating_sub(permit.started));
        let status = found.status.and_then(parse_number);
        let answer = &mut permit.answer;
        answer.took = Some(took);
        answer.status = status;
        answer.from_upstream = found.from_upstream.then_some(true);
        answer.whole = ends;
        if permit.grpc && ends {
            answer.grpc_status = found.grpc_status.map(grpc_status);
        }
        let Some(status) = status else { return };
        if status >= 400 || answer.grpc_status.is_some_and(|code| code != 0) {
            answer.read_refusal(stream, headers);
            // A status that is no failure, a 404 say, is an answer like any other, however long its body takes.
            if !ends
                && answer.from_upstream == Some(true)
                && !answer.rejected_downstream
                && answer.grpc_status.is_none()
            {
                self.hear(status, took, permit, env);
            }
        } else if status == 101 || (permit.connect && (200..300).contains(&status)) {
            let ending = Ending { status: Some(status), from_upstream: true, ..Ending::default() };
            self.begin_tunnel(&ending, took, permit, env);
        } else if !ends && permit.has_probe() {
            if permit.answer.learn_whose(stream) {
                self.hear(status, took, permit, env);
            } else {
                self.withdraw_probes(permit, env);
            }
        }
    }

    /// Somebody else answers: for how long, is nothing that the upstream should wait for.
    #[cold]
    fn withdraw_probes(&self, permit: &mut Permit, env: &mut Env<'_>) {
        let is_probe = |held: &mut Held| matches!(&held.what, What::Breaker(granted) if granted.is_probe());
        for Held { policy, what } in permit.held.extract_if(.., is_probe) {
            if let (What::Breaker(granted), Some(policy)) = (what, self.policies.get(policy))
                && let Some(breaker) = &policy.breaker
            {
                withdraw(policy, breaker, granted, env);
            }
        }
    }

    /// A tunnel has been answered: what breakers learn of it is known.
    #[cold]
    fn begin_tunnel(&self, ending: &Ending, took: Nanos, permit: &mut Permit, env: &mut Env<'_>) {
        permit.answer.tunnel = true;
        let answer = permit.answer;
        for Held { policy, what } in permit.held.extract_if(.., |held| matches!(held.what, What::Breaker(_))) {
            if let (What::Breaker(granted), Some(policy)) = (what, self.policies.get(policy)) {
                settle_breaker(policy, granted, ending, &answer, took, env);
            }
        }
    }

    /// Tells half-open breakers that their probe has good headers.
    fn hear(&self, status: u16, took: Nanos, permit: &mut Permit, env: &mut Env<'_>) {
        let so_far = Ending { status: Some(status), from_upstream: true, ..Ending::default() };
        for held in &mut permit.held {
            if let What::Breaker(granted) = &mut held.what
                && granted.is_probe()
                && let Some(policy) = self.policies.get(held.policy)
                && let Some(breaker) = &policy.breaker
                && breaker.verdict(&so_far) == Verdict::Success
                && let Ok(mut breakers) = breaker.breakers.try_borrow_mut()
            {
                breakers.hear(env.share, granted, took, env.now, env.random);
                report(&policy.name, &mut breakers, env);
            }
        }
    }

    /// Gives back the places that are held until the response headers. What a limit learns ends with them.
    pub(super) fn release_with_headers(&self, stream: &dyn Stream, ends: bool, permit: &mut Permit, env: &mut Env<'_>) {
        let released = |held: &Held| matches!(held.what, What::Place { release: Release::Headers, .. });
        if !permit.held.iter().any(released) {
            return;
        }
        let ending = permit.judges_upstream().then(|| permit.so_far(stream, ends));
        let took = env.now.saturating_sub(permit.started);
        for Held { policy, what } in permit.held.extract_if(.., |held| released(held)) {
            let concurrency = self.policies.get(policy).and_then(|policy| policy.concurrency.as_ref());
            if let (What::Place { place, learns, .. }, Some(concurrency)) = (what, concurrency) {
                concurrency.leave(place, ending.as_ref().filter(|_| learns), took, env);
            }
        }
    }

    /// The response trailers are there.
    pub fn response_trailers(&self, stream: &dyn Stream, permit: &mut Permit) {
        if permit.grpc && permit.judges_upstream() {
            permit.answer.grpc_status = stream.response_trailer("grpc-status").map(grpc_status);
            permit.answer.whole = true;
        }
    }
}

impl super::compile::Breaker {
    fn verdict(&self, ending: &Ending) -> Verdict {
        classify(&self.settings.failure_when, &self.settings.ignore_when, ending)
    }
}

/// What a breaker granted was not used.
pub(super) fn withdraw(policy: &Policy, breaker: &super::compile::Breaker, granted: Granted, env: &mut Env<'_>) {
    if let Ok(mut breakers) = breaker.breakers.try_borrow_mut() {
        breakers.withdraw(env.share, granted, env.now, env.random);
        report(&policy.name, &mut breakers, env);
    }
}

/// Settles what a breaker granted. `took` is the time to the response headers, or all there was where none came.
pub(super) fn settle_breaker(
    policy: &Policy,
    granted: Granted,
    ending: &Ending,
    answer: &Answer,
    took: Nanos,
    env: &mut Env<'_>,
) {
    let Some(breaker) = &policy.breaker else { return };
    let Ok(mut breakers) = breaker.breakers.try_borrow_mut() else { return };
    let retry_after = answer.retry_after;
    let outcome = match breaker.verdict(ending) {
        Verdict::Success => Some(Outcome::Success),
        Verdict::Failure => Some(Outcome::Failure { retry_after }),
        Verdict::Throttled => Some(Outcome::RateLimited { retry_after }),
        Verdict::Ignored => None,
    };
    match outcome {
        Some(outcome) => breakers.settle(env.share, granted, outcome, took, env.now, env.random),
        // A host without details has nothing against an answer that never came.
        None if ending.from_upstream && ending.status.is_some() => {
            breakers.ignore(env.share, granted, env.now, env.random)
        }
        None if ending.is_of_another() => breakers.withdraw(env.share, granted, env.now, env.random),
        None => breakers.cancel(env.share, granted, env.now, env.random),
    }
    report(&policy.name, &mut breakers, env);
}

impl Permit {
    /// How the stream ended.
    pub(super) fn ending(&self, stream: &dyn Stream) -> Ending {
        let Answer { status, grpc_status, rejected_downstream, tunnel, from_upstream, whole, .. } = self.answer;
        if whole && from_upstream == Some(true) {
            // Nothing can have come between: nobody needs to be asked.
            let ending =
                Ending { status, grpc_status, from_upstream: true, rejected_downstream, tunnel, ..Ending::default() };
            return if self.grpc { ending.of_grpc() } else { ending };
        }
        let details = stream.details();
        let whole = is_via_upstream(details);
        let ending = Ending {
            status,
            grpc_status,
            // Where there are no details the flags are all there is.
            flags: if details.is_some() && whole { 0 } else { stream.flags() },
            from_upstream: whole,
            expired: details.is_some_and(|details| EXPIRED.contains(&details)),
            rejected_downstream,
            tunnel,
        };
        let ending = if self.grpc { ending.of_grpc() } else { ending };
        // A client that left has the last word in the details; who wrote bad headers was asked when they came.
        let from_upstream = whole || (ending.client_left() && from_upstream == Some(true));
        Ending { from_upstream, ..ending }
    }
}

impl Permit {
    /// How the stream ends if nothing goes wrong after these headers.
    fn so_far(&mut self, stream: &dyn Stream, ends: bool) -> Ending {
        const OK: u8 = 0;
        let known = self.answer;
        if self.grpc && !ends && known.status == Some(200) {
            self.answer.grpc_status = Some(OK);
        }
        self.answer.whole = true;
        let ending = self.ending(stream);
        self.answer = known;
        ending
    }
}

impl Answer {
    /// Reads what the headers of an answer that is not good tell beside its status.
    #[cold]
    fn read_refusal(&mut self, stream: &dyn Stream, headers: &HeaderMap<'_>) {
        self.rejected_downstream = headers.get(b"x-tidegate-reason").is_some();
        let wish = headers.get(b"retry-after");
        self.retry_after = wish.and_then(|value| retry_after(value, || headers.get(b"date")));
        self.learn_whose(stream);
    }

    /// Whether the upstream wrote these headers, for which the host is asked where they do not say so.
    fn learn_whose(&mut self, stream: &dyn Stream) -> bool {
        let from_upstream = self.from_upstream.unwrap_or_else(|| is_via_upstream(stream.details()));
        self.from_upstream = Some(from_upstream);
        from_upstream
    }
}

/// What is looked for in every response's headers.
#[derive(Default)]
struct Found<'h> {
    status: Option<&'h [u8]>,
    grpc_status: Option<&'h [u8]>,
    /// For how many milliseconds the upstream had the whole request. Envoy's router notes it on what comes from an upstream,
    /// unless it is told not to or the request has not ended, and on nothing else.
    service_time: Option<&'h [u8]>,
    /// The headers say that the upstream wrote them, now. Where they do not, the host has to be asked.
    from_upstream: bool,
}

impl<'h> Found<'h> {
    fn among(headers: &HeaderMap<'h>) -> Self {
        let mut found = Self::default();
        let mut from_cache = false;
        for (name, value) in headers.of_length(|length| matches!(length, 3 | 7 | 11 | 29)) {
            match name {
                b":status" => found.status = Some(value),
                b"grpc-status" => found.grpc_status = found.grpc_status.or(Some(value)),
                b"x-envoy-upstream-service-time" => found.service_time = Some(value),
                // A cache keeps that note too.
                b"age" => from_cache = true,
                _ => {}
            }
        }
        if from_cache {
            found.service_time = None;
        }
        found.from_upstream = found.service_time.is_some();
        found
    }

    /// How long the upstream took, at most: how long the client took to send its request is not in it. Noted in whole
    /// milliseconds, rounded down, so one more than that.
    fn service_time(&self) -> Option<Nanos> {
        const MILLISECOND: Nanos = 1_000_000;
        let rounded_down: u64 = self.service_time.and_then(parse_number)?;
        // Saturating: more than nanoseconds can tell would otherwise be a short time.
        Some(rounded_down.saturating_add(1).saturating_mul(MILLISECOND))
    }
}

/// A host that gives no details cannot tell: then the upstream is held to have answered.
fn is_via_upstream(details: Option<&[u8]>) -> bool {
    details.is_none_or(|details| details == VIA_UPSTREAM)
}

fn parse_number<T: TryFrom<u64>>(value: &[u8]) -> Option<T> {
    T::try_from(whole_number(value)?).ok()
}

/// A status that cannot be read is `UNKNOWN` to the client, so it is here.
fn grpc_status(value: &[u8]) -> u8 {
    const UNKNOWN: u8 = 2;
    parse_number(value).unwrap_or(UNKNOWN)
}
