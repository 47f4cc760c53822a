//! Nothing on an admitted request's way allocates, from matching to the end of its stream.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and print what they measured"
)]

mod requests;
mod worker;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use requests::{Proxy, encode};
use serde_json::{Value, json};
use tidegate::config::{
    Attribute, ClientIp, FieldCondition, FieldMatcher, KeySource, Match, PathMatcher, StringMatcher,
};
use tidegate::matching::{HeaderMap, Index, KeyBuf, KeyExtractor, Request};
use worker::{Worker, all_three, keyed, others, request};

thread_local! {
    /// Allocations of this thread alone: the test runner's own do not count.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that are allocated.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get().wrapping_add(layout.size()));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get().wrapping_add(size).wrapping_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get().wrapping_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn policies() -> Vec<Match> {
    let text = |s: &str| StringMatcher::Exact(s.into());
    let regex = |s: &str| StringMatcher::Regex(s.into());
    let field = |name: &str, matcher| FieldMatcher {
        name: name.into(),
        condition: FieldCondition::Value(vec![matcher]),
        invert: false,
    };
    vec![
        Match::default(),
        Match { hosts: vec!["*.example.com".into()], ..Match::default() },
        Match { paths: vec![PathMatcher::String(StringMatcher::Prefix("/v1/".into()))], ..Match::default() },
        Match { paths: vec![PathMatcher::String(regex("^/v[0-9]+/"))], ..Match::default() },
        Match { headers: vec![field("x-tier", text("gold"))], ..Match::default() },
        Match { query: vec![field("user", regex("^a b$"))], ..Match::default() },
        Match { query: vec![field("user", text("a b"))], ..Match::default() },
        Match { clusters: vec![text("backend")], ..Match::default() },
        Match { routes: vec![StringMatcher::Contains("check".into())], ..Match::default() },
    ]
}

#[test]
fn parsing_finding_and_extracting_allocate_nothing_once_warm() {
    let raw = encode(&[
        (":method", "GET"),
        (":path", "/v1/orders/7?user=a%20b"),
        (":authority", "API.example.com:443"),
        (":scheme", "https"),
        ("cookie", "sid=\"1\""),
        ("x-tier", "gold"),
        ("x-forwarded-for", "2001:db8::1, 192.0.2.1"),
    ]);
    let properties =
        [("xds\0route_name", "checkout"), ("xds\0cluster_name", "backend"), ("source\0address", "192.0.2.9:1")];
    let client_ip = |trusted_hops| KeySource::ClientIp(ClientIp { trusted_hops, ipv4_prefix: 24, ipv6_prefix: 64 });
    let proxy = Proxy::new(&properties);
    let index = Index::new(&policies()).unwrap();
    let extractor = KeyExtractor::new(&[
        KeySource::Header("x-tier".into()),
        KeySource::Query("user".into()),
        KeySource::Cookie("sid".into()),
        KeySource::PathSegment(1),
        KeySource::Attribute(Attribute::Host),
        KeySource::Attribute(Attribute::Cluster),
        KeySource::Property(vec!["xds".into(), "route_name".into()]),
        client_ip(0),
        client_ip(1),
        client_ip(2),
    ]);
    let (mut found, mut key) = (Vec::new(), KeyBuf::new());
    let mut pass = || {
        let request = Request::new(HeaderMap::parse(black_box(&raw)).unwrap(), &proxy);
        index.find(&request, &mut found);
        assert!(extractor.extract(&request, &mut key));
        assert_eq!(found.len(), 9);
        assert_eq!(key.parts().count(), 10);
    };
    pass();
    let before = ALLOCATIONS.get();
    (0..100).for_each(|_| pass());
    assert_eq!(ALLOCATIONS.get() - before, 0);
    drop(black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1, "the counter counts");
}

/// What a thousand requests of ten clients allocate, once warm, with this much time between two of them.
fn allocations_of_a_thousand_requests(step: u64) -> usize {
    allocations_with(&json!([all_three()]), step)
}

fn allocations_with(policies: &Value, step: u64) -> usize {
    let mut worker = Worker::new(policies);
    let requests: Vec<_> = (0..10).map(request).collect();
    let mut pass = || {
        for raw in &requests {
            worker.now += step;
            assert!(worker.serve(black_box(raw)).0);
        }
    };
    pass();
    let before = ALLOCATIONS.get();
    (0..100).for_each(|_| pass());
    ALLOCATIONS.get() - before
}

#[test]
fn an_admitted_request_allocates_nothing_from_its_decision_to_its_end_once_warm() {
    // A tenth of a second: within one bucket of the breaker's window.
    assert_eq!(allocations_of_a_thousand_requests(100_000), 0);
}

/// What 5000 clients that have not been seen before allocate with 200 policies, after as many others.
fn allocations_of_new_clients(limit: Value) -> usize {
    let mut policy = all_three();
    policy["load_shedding"] = json!({"limit": limit});
    let mut worker = Worker::new(&[others(199), vec![policy]].concat().into());
    let requests: Vec<_> = (0..10_000).map(request).collect();
    let mut pass = |requests: &[Vec<u8>]| {
        for raw in requests {
            worker.now += 10_000;
            assert!(worker.serve(black_box(raw)).0);
        }
    };
    let (others, counted) = requests.split_at(5_000);
    pass(others);
    let before = ALLOCATIONS.get();
    pass(counted);
    ALLOCATIONS.get() - before
}

#[test]
fn nor_do_200_policies_and_clients_not_seen_before() {
    assert_eq!(allocations_of_new_clients(json!({"algorithm": "fixed", "limit": 1000})), 0);
    let learns = |algorithm: &str| json!({"algorithm": algorithm, "initial": 1000, "min": 1000, "max": 2000});
    for algorithm in ["adaptive", "gradient2", "vegas", "aimd"] {
        assert_eq!(allocations_of_new_clients(learns(algorithm)), 0, "{algorithm}");
    }
}

#[test]
fn overrides_are_found_without_allocating() {
    let one = |client: usize| match client {
        3 => json!({"key": [format!("key-{client:07}")], "unlimited": true}),
        _ => json!({"key": [format!("key-{client:07}")], "rate": "2000/s"}),
    };
    // Half of the ten clients have one, and a thousand others.
    let overrides: Vec<_> = (0..5).chain(10..1_010).map(one).collect();
    let mut limit = keyed();
    limit["overrides"] = json!(overrides);
    assert_eq!(allocations_with(&json!([{"name": "p", "rate_limits": [limit]}]), 1_000_000), 0);
}

#[test]
fn the_first_answer_in_a_bucket_of_a_breakers_window_is_the_only_one_that_allocates() {
    // One second is one bucket, and rewrites the breaker's record once: read, two copies, and written.
    assert!(allocations_of_a_thousand_requests(1_000_000) <= 4);
}

/// What a key of a concurrency limit takes at a worker, in bytes: at most, by the bound; once a request of it was served; while
/// another waits; and when nobody waits any more. The host's pages are not counted.
fn bytes_of_a_key(shedding: &str) -> [usize; 4] {
    // Just beyond what their table had room for: it has doubled.
    const KEYS: u32 = 7_200;
    let mut shedding: Value = serde_json::from_str(shedding).unwrap();
    (shedding["key"], shedding["max_keys"]) = (json!([{"header": "x-api-key"}]), json!(KEYS));
    let waits = shedding.get("queue").is_some();
    let mut worker = Worker::new(&json!([{"name": "p", "load_shedding": shedding}]));
    let requests: Vec<_> = (0..KEYS).map(request).collect();
    let before = BYTES.get();
    let spent = || (BYTES.get() - before) / KEYS as usize;
    assert!(requests.iter().all(|raw| worker.serve(raw).0));
    let seen = spent();
    requests.iter().for_each(|raw| drop(worker.begin(raw)));
    requests.iter().filter(|_| waits).for_each(|raw| drop(worker.waits(raw)));
    let waiting = spent();
    worker.now += 1_000_000_000;
    worker.idle();
    [worker.bulkhead_bytes() / KEYS as usize, seen, waiting, spent()]
}

#[test]
fn a_key_of_a_concurrency_limit_takes_no_more_than_is_said() {
    let levels: Vec<_> =
        (0..16).map(|level| json!({"name": format!("l{level}"), "match": {"method": "GET"}})).collect();
    let levels = format!(r#", "priority": {{"levels": {}}}"#, json!(levels));
    let (fixed, found) = (r#"{"algorithm": "fixed", "limit": 1}"#, r#"{"initial": 1, "min": 1, "max": 1}"#);
    let queue = r#", "queue": {}"#;
    for (limit, levels) in [(fixed, ""), (found, ""), (found, &levels)] {
        let [most_alone, ..] = bytes_of_a_key(&format!(r#"{{"limit": {limit}}}"#));
        for queue in ["", queue] {
            let [most, seen, waiting, gone] = bytes_of_a_key(&format!(r#"{{"limit": {limit}{queue}{levels}}}"#));
            println!("{limit}{queue}, {} levels: {seen}, {waiting}, {gone} of {most}", levels.matches("name").count());
            assert!(waiting <= most && most <= 3 * waiting, "{waiting} of {most}");
            assert!(seen <= most_alone, "a key at which nobody has waited takes nothing of a queue");
            assert!(gone < waiting || queue.is_empty(), "nor is a queue kept in which nobody waits");
        }
    }
}
