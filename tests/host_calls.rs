//! What a request asks of the host. Calls that return bytes make the host call back for room: they are what a filter's
//! cost is made of, so that every one more is a decision, taken here.

mod requests;
mod worker;

use serde_json::{Value, json};
use worker::{Calls, Worker, all_three, keyed, others, request};

fn calls(policies: &Value) -> Calls {
    let mut worker = Worker::new(policies);
    // The first request of a worker sets things up.
    worker.serve(&request(1));
    let (admitted, calls) = worker.serve(&request(1));
    assert!(admitted);
    calls
}

#[test]
fn a_request_that_no_policy_matches_has_its_headers_read_and_nothing_else() {
    assert_eq!(calls(&others(1).into()), Calls { bytes: 1, plain: 0 });
}

#[test]
fn a_rate_limit_reads_one_page_keyed_or_not() {
    let with = |limit: Value| calls(&json!([{"name": "all", "rate_limits": [limit]}]));
    // Besides: the page is stored, the request counted, and two headers tell of the limit.
    assert_eq!(with(keyed()), Calls { bytes: 2, plain: 4 });
    assert_eq!(with(json!({"name": "all", "rate": "1000000/s"})), Calls { bytes: 2, plain: 4 });
}

#[test]
fn a_concurrency_limit_returns_no_bytes_beyond_the_headers() {
    let limit = json!({"limit": {"algorithm": "fixed", "limit": 1000}});
    let calls = calls(&json!([{"name": "all", "load_shedding": limit}]));
    assert_eq!(calls.bytes, 1);
    assert!(calls.plain <= 8, "{calls:?}");
}

#[test]
fn a_request_that_finds_no_place_takes_no_token_not_even_for_a_moment() {
    // It did, and gave it back: for that moment other workers had one less, and of many such some were lost.
    let limit = json!({"limit": {"algorithm": "fixed", "limit": 1}});
    // Nor does one that finds the queue full, too.
    let queue = json!({"max_length": 1, "max_wait": "1s", "order": "fifo"});
    for (limit, waits) in [(limit.clone(), false), (json!({"limit": limit["limit"], "queue": queue}), true)] {
        let mut worker = Worker::new(&json!([{"name": "all", "rate_limits": [keyed()], "load_shedding": limit}]));
        let _in_flight = worker.begin(&request(1));
        let _waits = waits.then(|| worker.waits(&request(1)));
        let before = worker.stores();
        for _ in 0..3 {
            worker.now += 1;
            let (admitted, calls) = worker.serve(&request(1));
            assert_eq!((admitted, calls.bytes), (false, 2), "the headers and the page are read");
        }
        assert_eq!(worker.stores(), before, "{waits}");
    }
    // The control: one that finds a place is charged.
    let mut worker = Worker::new(&json!([{"name": "all", "rate_limits": [keyed()]}]));
    let before = worker.stores();
    assert!(worker.serve(&request(1)).0);
    assert_eq!(worker.stores(), before + 1);
}

#[test]
fn a_circuit_breaker_reads_the_cluster_the_answers_headers_and_how_its_body_ended() {
    let calls = |body| {
        let mut worker = Worker::new(&json!([{"name": "all", "circuit_breaker": {}}]));
        worker.body = body;
        worker.serve(&request(1));
        worker.serve(&request(1)).1
    };
    assert_eq!(calls(true).bytes, 4);
    assert_eq!(calls(false).bytes, 3);
    assert!(calls(true).plain <= 7, "{:?}", calls(true));
}

#[test]
fn all_three_controls_read_no_more_than_each_alone_whatever_other_policies_there_are() {
    // Bytes: both header maps, the cluster, the limit's page, how the body ended. The others are numbers.
    let alone = calls(&json!([all_three()]));
    assert_eq!(alone, Calls { bytes: 5, plain: 15 });
    let beside = calls(&[others(199), vec![all_three()]].concat().into());
    assert_eq!(alone, beside);
}
