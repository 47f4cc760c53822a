//! What endings say about the upstream.

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
fn a_stream_that_the_proxy_gave_up_is_a_timeout_only_while_nothing_had_come() {
    let expired = |status| Ending { expired: true, from_upstream: false, ..upstream(status) };
    assert_eq!(of(expired(504)), Verdict::Failure);
    // The request itself was still coming.
    assert_eq!(of(expired(408)), Verdict::Ignored);
    // The upstream was answering: how long an answer may go on is not its fault.
    assert_eq!(of(expired(200)), Verdict::Ignored);
    let none = Outcomes::default();
    assert_eq!(classify(&none, &none, &expired(504)), Verdict::Ignored);
}

#[test]
fn an_answer_without_grpc_status_is_what_its_http_status_means_to_grpc() {
    let grpc = |status| of(upstream(status).of_grpc());
    for (status, verdict) in [
        (200, Verdict::Failure),
        (400, Verdict::Failure),
        (401, Verdict::Success),
        (403, Verdict::Success),
        (404, Verdict::Success),
        (429, Verdict::Throttled),
        (500, Verdict::Failure),
        (503, Verdict::Failure),
    ] {
        assert_eq!(grpc(status), verdict, "{status}");
    }
    let told = Ending { grpc_status: Some(0), ..upstream(503) };
    assert_eq!(of(told.of_grpc()), Verdict::Success);
}

#[test]
fn a_grpc_call_its_client_cut_off_says_nothing() {
    let flags = flag::DOWNSTREAM_REMOTE_RESET;
    assert_eq!(of(Ending { flags, from_upstream: false, ..upstream(200) }.of_grpc()), Verdict::Ignored);
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

#[test]
fn only_a_client_that_gave_up_before_any_answer_tells_a_limit_that_there_was_none() {
    let ended = |ending: Ending| ending.ended(&failure());
    let left = Ending { flags: flag::DOWNSTREAM_CONNECTION_TERMINATION, ..Ending::default() };
    assert_eq!(ended(left), Ended::Left);
    assert_eq!(ended(Ending { tunnel: true, ..left }), Ended::Ignored);
    assert_eq!(ended(Ending { status: Some(200), from_upstream: true, ..left }), Ended::Ignored, "it left the answer");
    assert_eq!(ended(Ending { from_upstream: false, ..upstream(403) }), Ended::Ignored);
}
