//! What a finished request says about its upstream.
//!
//! Only the upstream's own doings count. A client that left, and a reply made by the proxy or another filter, say
//! nothing about it; a connection that failed or a time-out do, although the proxy wrote the reply. A rejection by a
//! Tidegate further down is its upstream's protection at work, not its failure.

use crate::config::Outcomes;

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

/// How a stream ended, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ending {
    /// HTTP status of the response, if one came.
    pub status: Option<u16>,
    /// gRPC status of the response, if it is gRPC and one came.
    pub grpc_status: Option<u8>,
    /// Envoy's `response.flags`; 0 where the host has none.
    pub flags: u64,
    /// The upstream wrote the response.
    pub from_upstream: bool,
    /// The response carries the reason header of a Tidegate further down.
    pub rejected_downstream: bool,
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
const RESOURCE_EXHAUSTED: u8 = 8;

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
    if ending.flags & flag::TIMEOUT != 0 {
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
    if verdict == Verdict::Success && ending.flags & flag::CLIENT != 0 { Verdict::Ignored } else { verdict }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Outcomes {
        Outcomes { status: vec![(500, 599)], grpc_status: vec![2, 4, 13, 14, 15], reset: true, timeout: true }
    }

    fn upstream(status: u16) -> Ending {
        Ending { status: Some(status), from_upstream: true, ..Ending::default() }
    }

    fn of(ending: Ending) -> Verdict {
        classify(&failure(), &Outcomes::default(), &ending)
    }

    #[test]
    fn statuses_of_the_upstream_count_by_their_class() {
        assert_eq!(of(upstream(200)), Verdict::Success);
        assert_eq!(of(upstream(404)), Verdict::Success);
        assert_eq!(of(upstream(500)), Verdict::Failure);
        assert_eq!(of(upstream(599)), Verdict::Failure);
        assert_eq!(of(upstream(429)), Verdict::Throttled);
    }

    #[test]
    fn replies_of_other_filters_say_nothing() {
        assert_eq!(of(Ending { from_upstream: false, ..upstream(503) }), Verdict::Ignored);
        assert_eq!(of(Ending { from_upstream: false, ..upstream(200) }), Verdict::Ignored);
    }

    #[test]
    fn rejections_of_a_tidegate_further_down_say_nothing() {
        assert_eq!(of(Ending { rejected_downstream: true, ..upstream(503) }), Verdict::Ignored);
    }

    #[test]
    fn a_client_that_leaves_says_nothing_unless_the_failure_had_already_come() {
        let left = flag::DOWNSTREAM_CONNECTION_TERMINATION;
        assert_eq!(of(Ending { flags: left, ..Ending::default() }), Verdict::Ignored);
        assert_eq!(of(Ending { flags: left, ..upstream(200) }), Verdict::Ignored);
        assert_eq!(of(Ending { flags: left, ..upstream(500) }), Verdict::Failure);
    }

    #[test]
    fn connection_failures_resets_and_timeouts_count_although_the_proxy_wrote_the_reply() {
        for bit in [1, 3, 4, 5, 6, 23] {
            let ending = Ending { flags: 1 << bit, from_upstream: false, ..upstream(503) };
            assert_eq!(of(ending), Verdict::Failure, "flag bit {bit}");
        }
        for bit in [2, 19] {
            let ending = Ending { flags: 1 << bit, from_upstream: false, ..upstream(504) };
            assert_eq!(of(ending), Verdict::Failure, "flag bit {bit}");
        }
        // The proxy's own circuit breaker rejected it: the upstream was not asked.
        assert_eq!(of(Ending { flags: 1 << 7, from_upstream: false, ..upstream(503) }), Verdict::Ignored);
    }

    #[test]
    fn a_reset_after_good_headers_is_a_failure() {
        assert_eq!(of(Ending { flags: flag::UPSTREAM_REMOTE_RESET, ..upstream(200) }), Verdict::Failure);
    }

    #[test]
    fn what_is_not_listed_is_not_a_failure() {
        let none = Outcomes::default();
        assert_eq!(classify(&none, &none, &Ending { flags: 1 << 4, ..upstream(503) }), Verdict::Ignored);
        assert_eq!(classify(&none, &none, &upstream(503)), Verdict::Success);
    }

    #[test]
    fn grpc_goes_by_the_grpc_status_alone() {
        let grpc = |code| Ending { grpc_status: Some(code), ..upstream(200) };
        assert_eq!(of(grpc(0)), Verdict::Success);
        assert_eq!(of(grpc(5)), Verdict::Success);
        assert_eq!(of(grpc(14)), Verdict::Failure);
        assert_eq!(of(grpc(8)), Verdict::Throttled);
        assert_eq!(of(Ending { grpc_status: Some(0), ..upstream(500) }), Verdict::Success);
    }

    #[test]
    fn ignored_beats_failure() {
        let ignored = Outcomes { status: vec![(503, 503)], ..Outcomes::default() };
        assert_eq!(classify(&failure(), &ignored, &upstream(503)), Verdict::Ignored);
        assert_eq!(classify(&failure(), &ignored, &upstream(500)), Verdict::Failure);
    }
}
