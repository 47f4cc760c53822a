//! What a request's whole life costs natively: decided, answered, settled, with shared state in memory and a fake clock.
//!
//! The host's calls come on top of it in a proxy.
#![allow(clippy::indexing_slicing, reason = "a failing benchmark may panic")]
#![allow(missing_docs, reason = "the macro makes a function without any")]

#[path = "../tests/requests/mod.rs"]
mod requests;
#[path = "../tests/worker/mod.rs"]
mod worker;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use worker::{Worker, all_three, keyed, others, request};

/// Time between requests: no bucket is ever emptied.
const STEP: u64 = 100_000;

fn serve(c: &mut Criterion, name: &str, policies: &Value, keys: u32, admitted: bool) {
    let mut worker = Worker::new(policies);
    let mut raw = request(0);
    // The key is the last header: its digits stand before the closing zero.
    let digits = raw.len() - 8..raw.len() - 1;
    let mut number = 0u32;
    // The first request of a worker sets things up, and may be let through where later ones are not.
    worker.serve(&raw);
    assert_eq!(worker.serve(&raw).0, admitted, "{name}");
    c.bench_function(name, |b| {
        b.iter(|| {
            // A walk over all keys, far from one to the next.
            number = (number + 7_919) % keys;
            let mut rest = number;
            for digit in raw[digits.clone()].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            worker.now += STEP;
            black_box(worker.serve(black_box(&raw)))
        });
    });
}

fn decisions(c: &mut Criterion) {
    let fixed = json!({"limit": {"algorithm": "fixed", "limit": 1000}});
    let beside = |count: usize| Value::from([others(count - 1), vec![all_three()]].concat());
    let single = json!([{"name": "all", "rate_limits": [{"name": "all", "rate": "1000000/s"}]}]);
    let drained = json!([{"name": "all", "rate_limits": [{"name": "all", "rate": "1/d"}]}]);
    let open = json!([{"name": "all", "circuit_breaker": {"state": "forced_open"}}]);
    serve(c, "no policy matches", &others(1).into(), 100, true);
    serve(c, "a rate limit", &single, 100, true);
    serve(c, "a rate limit, rejects", &drained, 100, false);
    serve(c, "a keyed rate limit", &json!([{"name": "all", "rate_limits": [keyed()]}]), 100, true);
    let overrides = |count: usize| {
        let one =
            |number: usize| json!({"key": [format!("key-{number:07}")], "rate": format!("{}/s", 50_000 + number)});
        let mut limit = keyed();
        limit["overrides"] = (0..count).map(one).collect();
        json!([{"name": "all", "rate_limits": [limit]}])
    };
    for count in [1, 1_000] {
        serve(c, &format!("a keyed rate limit, {count} overrides"), &overrides(count), 100, true);
    }
    serve(c, "a circuit breaker", &json!([{"name": "all", "circuit_breaker": {}}]), 100, true);
    serve(c, "a circuit breaker, rejects", &open, 100, false);
    serve(c, "a concurrency limit", &json!([{"name": "all", "load_shedding": fixed}]), 100, true);
    for policies in [1, 10, 200] {
        serve(c, &format!("all three, {policies} policies"), &beside(policies), 100, true);
    }
    serve(c, "all three, 1 policy, 1 000 000 keys", &beside(1), 1_000_000, true);
}

criterion_group!(benches, decisions);
criterion_main!(benches);
