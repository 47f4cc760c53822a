//! What breakers and limits learn of a response: from its headers, its trailers and its end.
//!
//! An outcome is settled at the stream's end, since only then is it known whether the answer was whole, with two
//! exceptions. A tunnel (101, or 2xx to `CONNECT`) is answered with its headers: how long it lives and what ends it say
//! nothing about the request. And a probe with good headers whose body goes on past the probes' timeout has been
//! answered: it must keep a half-open breaker neither waiting nor from closing.

use crate::control::Nanos;
use crate::control::circuit_breaker::{Outcome, Permit as Granted};

use super::compile::Policy;
use super::outcome::{Ending, Verdict, classify};
use super::permit::{Answer, Held, Permit, What};
use super::retry_after::retry_after;
use super::settle::{Stream, report};
use super::{Engine, Env};

/// `response.code_details` of a response that the upstream wrote and finished.
const VIA_UPSTREAM: &[u8] = b"via_upstream";

/// The details of a stream that the proxy ended for its age or its silence.
const EXPIRED: [&[u8]; 2] = [b"max_duration_timeout", b"stream_idle_timeout"];

impl Engine {
    /// The response headers are there. `ends` is true when nothing follows them.
    pub(super) fn judge_headers(&self, stream: &dyn Stream, ends: bool, permit: &mut Permit, env: &mut Env<'_>) {
        let took = env.now.saturating_sub(permit.started);
        let status = stream.response_header(":status").and_then(parse_number);
        let answer = &mut permit.answer;
        answer.took = Some(took);
        answer.status = status;
        if permit.grpc && ends {
            answer.grpc_status = stream.response_header("grpc-status").map(grpc_status);
        }
        let Some(status) = status else { return };
        if status >= 400 || answer.grpc_status.is_some_and(|code| code != 0) {
            answer.rejected_downstream = stream.response_header("x-tidegate-reason").is_some();
            let wish = stream.response_header("retry-after");
            answer.retry_after = wish.and_then(|value| retry_after(value, || stream.response_header("date")));
            answer.from_upstream = is_via_upstream(stream.details());
            // A status that is no failure, a 404 say, is an answer like any other, however long its body takes.
            if !ends && answer.from_upstream && !answer.rejected_downstream && answer.grpc_status.is_none() {
                self.hear(status, took, permit, env);
            }
        } else if status == 101 || (permit.connect && (200..300).contains(&status)) {
            let ending = Ending { status: Some(status), from_upstream: true, ..Ending::default() };
            permit.answer.tunnel = true;
            let answer = permit.answer;
            for Held { policy, what } in permit.held.extract_if(.., |held| matches!(held.what, What::Breaker(_))) {
                if let (What::Breaker(granted), Some(policy)) = (what, self.policies.get(policy)) {
                    settle_breaker(policy, granted, &ending, &answer, took, env);
                }
            }
        } else if !ends {
            self.hear(status, took, permit, env);
        }
    }

    /// Tells half-open breakers that their probe has good headers.
    fn hear(&self, status: u16, took: Nanos, permit: &mut Permit, env: &mut Env<'_>) {
        let so_far = Ending { status: Some(status), from_upstream: true, ..Ending::default() };
        for held in &mut permit.held {
            if let What::Breaker(granted) = &mut held.what
                && granted.is_probe()
                && let Some(breaker) = self.policies.get(held.policy).and_then(|policy| policy.breaker.as_ref())
                && breaker.verdict(&so_far) == Verdict::Success
                && let Ok(mut breakers) = breaker.breakers.try_borrow_mut()
            {
                breakers.hear(env.share, granted, took);
            }
        }
    }

    /// The response trailers are there.
    pub fn response_trailers(&self, stream: &dyn Stream, permit: &mut Permit) {
        if permit.grpc && permit.judges_upstream() {
            permit.answer.grpc_status = stream.response_trailer("grpc-status").map(grpc_status);
        }
    }
}

impl super::compile::Breaker {
    fn verdict(&self, ending: &Ending) -> Verdict {
        classify(&self.settings.failure_when, &self.settings.ignore_when, ending)
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
        None => breakers.cancel(env.share, granted),
    }
    report(&policy.name, &mut breakers, env);
}

impl Permit {
    /// How the stream ended.
    pub(super) fn ending(&self, stream: &dyn Stream) -> Ending {
        let Answer { status, grpc_status, rejected_downstream, tunnel, .. } = self.answer;
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
        let from_upstream = whole || (ending.client_left() && self.answer.from_upstream);
        Ending { from_upstream, ..ending }
    }
}

/// A host that gives no details cannot tell: then the upstream is held to have answered.
fn is_via_upstream(details: Option<&[u8]>) -> bool {
    details.is_none_or(|details| details == VIA_UPSTREAM)
}

fn parse_number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// A status that cannot be read is `UNKNOWN` to the client, so it is here.
fn grpc_status(value: &[u8]) -> u8 {
    const UNKNOWN: u8 = 2;
    parse_number(value).unwrap_or(UNKNOWN)
}
