//! What a finished request says about its upstream.
//!
//! Only the upstream's own doings count. A client that left, and a reply made by the proxy or another filter, say
//! nothing about it; a connection that failed or a time-out do, although the proxy wrote the reply. A rejection by a
//! Tidegate further down is its upstream's protection at work, not its failure.
//!
//! Envoy says with `response.code_details` who had the last word. That it was the upstream excludes resets, time-outs and
//! clients that left, so that a whole answer costs one property; `response.flags` are read for the others only.

use crate::config::Outcomes;
use crate::control::concurrency::Ended;

/// Bits of Envoy's `response.flags`.
mod flag {
    pub const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;
    pub const UPSTREAM_TIMEOUT: u64 = 1 << 2;
    pub const LOCAL_RESET: u64 = 1 << 3;
    pub const UPSTREAM_REMOTE_RESET: u64 = 1 << 4;
    pub const UPSTREAM_CONNECTION_FAILURE: u64 = 1 << 5;
    pub const UPSTREAM_CONNECTION_TERMINATION: u64 = 1 << 6;
    pub const DOWNSTREAM_CONNECTION_TERMINATION: u64 = 1 << 14;
    pub const UPSTREAM_MAX_STREAM_DURATION: u64 = 1 << 19;
    pub const DOWNSTREAM_PROTOCOL_ERROR: u64 = 1 << 18;
    pub const UPSTREAM_PROTOCOL_ERROR: u64 = 1 << 23;
    pub const DOWNSTREAM_REMOTE_RESET: u64 = 1 << 28;

    pub const RESET: u64 = NO_HEALTHY_UPSTREAM
        | LOCAL_RESET
        | UPSTREAM_REMOTE_RESET
        | UPSTREAM_CONNECTION_FAILURE
        | UPSTREAM_CONNECTION_TERMINATION
        | UPSTREAM_PROTOCOL_ERROR;
    pub const TIMEOUT: u64 = UPSTREAM_TIMEOUT | UPSTREAM_MAX_STREAM_DURATION;
    pub const CLIENT: u64 = DOWNSTREAM_CONNECTION_TERMINATION | DOWNSTREAM_REMOTE_RESET | DOWNSTREAM_PROTOCOL_ERROR;
}

/// Whether Envoy's `response.flags` say that the client went away, or broke the protocol, before the end.
#[must_use]
pub fn client_left(flags: u64) -> bool {
    flags & flag::CLIENT != 0
}

/// How a stream ended, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ending {
    /// HTTP status of the response, if one came.
    pub status: Option<u16>,
    /// gRPC status of the response, if it is gRPC and one came.
    pub grpc_status: Option<u8>,
    /// Envoy's `response.flags`; 0 where the host has none, and where the upstream had the last word.
    pub flags: u64,
    /// The upstream wrote the response, to its end or until the client left.
    pub from_upstream: bool,
    /// The proxy ended the stream because of its age or its silence. With status 504 nothing had come from the upstream,
    /// although the request was complete.
    pub expired: bool,
    /// The response carries the reason header of a Tidegate further down.
    pub rejected_downstream: bool,
    /// What was answered is a tunnel.
    pub tunnel: bool,
}

/// What that says about the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It served the request.
    Success,
    /// It did not.
    Failure,
    /// It asked for less (429, or gRPC `RESOURCE_EXHAUSTED`), and that is not listed as a failure.
    Throttled,
    /// Nothing.
    Ignored,
}

const TOO_MANY_REQUESTS: u16 = 429;
const GATEWAY_TIMEOUT: u16 = 504;
const RESOURCE_EXHAUSTED: u8 = 8;

impl Ending {
    /// The client went away, or broke the protocol, before the end.
    #[must_use]
    pub fn client_left(&self) -> bool {
        client_left(self.flags)
    }

    /// The proxy, or another filter, answered in the upstream's place, and not because that was silent.
    #[must_use]
    pub fn is_of_another(&self) -> bool {
        let silent = self.client_left() || self.flags & (flag::RESET | flag::TIMEOUT) != 0 || self.expired;
        !self.from_upstream && !silent && self.status.is_some_and(|status| status != GATEWAY_TIMEOUT)
    }

    /// The ending of a gRPC call, whose client takes an answer without a gRPC status for what its HTTP status means (see
    /// gRPC's "HTTP to gRPC Status Code Mapping"). A call that was cut off stays without.
    #[must_use]
    pub fn of_grpc(mut self) -> Self {
        const INTERNAL: u8 = 13;
        const UNAUTHENTICATED: u8 = 16;
        const PERMISSION_DENIED: u8 = 7;
        const UNIMPLEMENTED: u8 = 12;
        const UNAVAILABLE: u8 = 14;
        const UNKNOWN: u8 = 2;
        if self.from_upstream && self.grpc_status.is_none() {
            self.grpc_status = self.status.map(|status| match status {
                400 => INTERNAL,
                401 => UNAUTHENTICATED,
                403 => PERMISSION_DENIED,
                404 => UNIMPLEMENTED,
                // The mapping has UNAVAILABLE, for want of knowledge: what is meant is no failure but a limit.
                TOO_MANY_REQUESTS => RESOURCE_EXHAUSTED,
                502..=504 => UNAVAILABLE,
                _ => UNKNOWN,
            });
        }
        self
    }
}

impl Ending {
    /// What the ending tells a concurrency limit. `failures` are a circuit breaker's by default; those that ask for less
    /// are time-outs, and 429, 503 and their like as the upstream's own.
    #[must_use]
    pub fn ended(&self, failures: &Outcomes) -> Ended {
        const SERVICE_UNAVAILABLE: u16 = 503;
        const UNAVAILABLE: u8 = 14;
        if self.tunnel {
            // How long it lives says nothing about the upstream.
            return Ended::Ignored;
        }
        let asks_for_less = match self.grpc_status {
            Some(code) => code == UNAVAILABLE,
            None => self.status == Some(SERVICE_UNAVAILABLE),
        };
        match classify(failures, &Outcomes::default(), self) {
            Verdict::Ignored if self.client_left() && self.status.is_none() => Ended::Left,
            Verdict::Ignored => Ended::Ignored,
            Verdict::Success => Ended::Success,
            Verdict::Throttled => Ended::Dropped,
            Verdict::Failure if self.timed_out() || (self.from_upstream && asks_for_less) => Ended::Dropped,
            Verdict::Failure => Ended::Failure,
        }
    }

    fn timed_out(&self) -> bool {
        self.flags & flag::TIMEOUT != 0 || (self.expired && self.status == Some(GATEWAY_TIMEOUT))
    }
}

/// What an ending says about the upstream. `ignored` goes before `failure` where both name it.
pub fn classify(failure: &Outcomes, ignored: &Outcomes, ending: &Ending) -> Verdict {
    let by = |says: &dyn Fn(&Outcomes) -> bool, otherwise: Verdict| {
        if says(ignored) {
            Verdict::Ignored
        } else if says(failure) {
            Verdict::Failure
        } else {
            otherwise
        }
    };
    if ending.timed_out() {
        return by(&|outcomes| outcomes.timeout, Verdict::Ignored);
    }
    if ending.flags & flag::RESET != 0 {
        return by(&|outcomes| outcomes.reset, Verdict::Ignored);
    }
    let Some(status) = ending.status else { return Verdict::Ignored };
    if !ending.from_upstream || ending.rejected_downstream {
        return Verdict::Ignored;
    }
    let verdict = match ending.grpc_status {
        Some(code) => by(
            &|outcomes| outcomes.grpc_status.contains(&code),
            if code == RESOURCE_EXHAUSTED { Verdict::Throttled } else { Verdict::Success },
        ),
        None => by(
            &|outcomes| outcomes.status.iter().any(|&(low, high)| (low..=high).contains(&status)),
            if status == TOO_MANY_REQUESTS { Verdict::Throttled } else { Verdict::Success },
        ),
    };
    // The client left before the end of an answer that was good so far: whether it would have stayed good is not known.
    if verdict == Verdict::Success && ending.client_left() { Verdict::Ignored } else { verdict }
}

#[cfg(test)]
mod tests;
