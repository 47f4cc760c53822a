//! Limits by key: what a key costs the host, where a queue is looked for, and who is told that there are more keys than limits.

use std::cell::RefCell;

use tidegate::config;
use tidegate::engine::stats::Registry;
use tidegate::engine::{Decision, Engine, Env, Permit, SplitMix64};
use tidegate::matching::{HeaderMap, Request};

use super::counting::Counting;
use super::nothing::Nothing;
use super::requests::{Proxy, encode};
use super::workers::{Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const KEYS: usize = 100;
const LEVELS: &str = r#", "priority": {"levels": [{"name": "high", "match": {"method": "PUT"}}, {"name": "low"}]}"#;

fn policy(more: &str) -> String {
    format!(r#"{{"policies": [{{"name": "p", "load_shedding": {{"key": [{{"header": "x-tenant"}}]{more}}}}}]}}"#)
}

/// How many numbers a worker opens for each key at which so many requests ask, of which the first has the only place.
fn numbers_of_a_key(more: &str, requests: usize) -> usize {
    let config = config::read(policy(more).as_bytes()).unwrap();
    let (share, stats, mut random) = (Counting::default(), Registry::default(), SplitMix64::new(1));
    let mut env = Env {
        now: SECOND,
        share: &share,
        own: &share.memory,
        random: &mut random,
        metrics: &Nothing,
        stats: &stats,
        may_wait: true,
        hash_key: (1, 2),
    };
    let mut engine = Engine::new(&config, &[], "test", &mut env).unwrap();
    let mut ask = |key: usize| {
        let name = key.to_string();
        let raw = encode(&[(":method", "GET"), (":path", "/"), (":authority", "a"), ("x-tenant", &name)]);
        let proxy = Proxy::new(&[]);
        let request = Request::new(HeaderMap::parse(&raw).unwrap(), &proxy);
        engine.decide(&request, &mut Permit::default(), &mut env)
    };
    // What is there once for all keys, or once for the first who waits.
    (0..requests).for_each(|_| drop(ask(KEYS)));
    let before = share.cell_count();
    for key in 0..KEYS {
        for request in 0..requests {
            let expected = if request == 0 { Decision::Admitted { shadow: None } } else { Decision::Queued };
            assert_eq!(ask(key), expected);
        }
    }
    assert_eq!((share.cell_count() - before) % KEYS, 0);
    (share.cell_count() - before) / KEYS
}

/// Each of them is a gauge in the proxy. A queue was opened for every key there was: two numbers more, and two more for each level.
#[test]
fn a_key_at_which_nobody_waits_has_no_numbers_of_a_queue() {
    let fixed = r#", "limit": {"algorithm": "fixed", "limit": 1}"#;
    let found = r#", "limit": {"initial": 1, "min": 1, "max": 1}"#;
    let queue = r#", "queue": {}"#;
    let numbers =
        |limit: &str, queue: &str, levels, requests| numbers_of_a_key(&format!("{limit}{queue}{levels}"), requests);
    assert_eq!((numbers(fixed, "", "", 1), numbers(found, "", "", 1)), (2, 9));
    // One of 1024 that tell whether somebody may wait. With more keys these share them.
    assert_eq!((numbers(fixed, queue, "", 1), numbers(fixed, queue, LEVELS, 1)), (3, 3));
    // Its length and what this worker has in it, for all and for the level of who waits, and the length of the other level; how
    // many were served, by level.
    assert_eq!((numbers(fixed, queue, "", 2), numbers(fixed, queue, LEVELS, 2)), (7, 11));
}

fn one_place(more: &str) -> String {
    policy(&format!(r#", "limit": {{"algorithm": "fixed", "limit": 1}}{more}"#))
}

#[test]
fn who_asks_where_others_wait_at_another_worker_waits_behind_them_and_elsewhere_does_not() {
    // 2000 keys: some share a number that tells whether somebody may wait.
    let queue = r#", "max_keys": 2000, "queue": {"max_wait": "10s", "order": "fifo"}"#;
    let mut proxy = Workers::new(2, &one_place(queue));
    let names: Vec<_> = (0..2000).map(|name| name.to_string()).collect();
    let ask = |proxy: &mut Workers, worker, key: usize| proxy.ask(worker, &[("x-tenant", &names[key])]).unwrap();
    for key in 0..2000 {
        let seen = ask(&mut proxy, key % 2, key);
        proxy.answer(seen, &Answer::status("200"));
    }
    let first = ask(&mut proxy, 0, 7);
    let mut waiting = vec![ask(&mut proxy, 0, 7)];
    assert!(waiting[0].queued);
    proxy.answer(first, &Answer::status("200"));
    for key in (0..2000).filter(|key| *key != 7) {
        let other = ask(&mut proxy, 1, key);
        assert!(!other.queued, "{key}");
        proxy.answer(other, &Answer::status("200"));
    }
    let late = ask(&mut proxy, 1, 7);
    assert!(late.queued, "there is a place, and it is for the one who waits");
    let mut gone_on = proxy.wake(0, &mut waiting);
    proxy.answer(gone_on.pop().unwrap().1.unwrap(), &Answer::status("200"));
    waiting.push(late);
    let (_, last) = proxy.wake(1, &mut waiting).pop().unwrap();
    proxy.answer(last.unwrap(), &Answer::status("200"));
    // Nobody waits: nor does who comes now, here or there.
    for worker in 0..2 {
        let next = ask(&mut proxy, worker, 7);
        assert!(!next.queued);
        proxy.answer(next, &Answer::status("200"));
    }
    assert_eq!(proxy.errors(), 0);
}

/// Whatever way somebody leaves a queue, that it may be there is taken back: no key costs a queue for those of others.
#[test]
fn what_tells_that_somebody_may_wait_is_true_whatever_becomes_of_them() {
    let queue = r#", "queue": {"max_length": 1, "max_wait": "1s"}"#;
    let configuration = one_place(&format!("{queue}{LEVELS}"));
    let mut proxy = Workers::new(2, &configuration);
    let ask = |proxy: &mut Workers, worker, method| proxy.ask(worker, &[("x-tenant", "a"), (":method", method)]);
    let crowd = |proxy: &Workers| proxy.number("crowd.0.total");
    let held = ask(&mut proxy, 1, "GET").unwrap();
    let mut waiting = vec![ask(&mut proxy, 0, "GET").unwrap()];
    assert!(ask(&mut proxy, 0, "GET").is_err(), "the queue is full");
    assert_eq!(crowd(&proxy), 1);
    waiting.push(ask(&mut proxy, 0, "PUT").unwrap());
    assert_eq!((proxy.wake(0, &mut waiting).len(), crowd(&proxy)), (1, 1), "one displaced the other");
    proxy.answer(waiting.pop().unwrap(), &Answer::none(1 << 14));
    assert_eq!(crowd(&proxy), 0, "its client left");
    waiting.push(ask(&mut proxy, 0, "GET").unwrap());
    proxy.advance(SECOND);
    assert_eq!((proxy.wake(0, &mut waiting).len(), crowd(&proxy)), (1, 0), "it was late");
    waiting.push(ask(&mut proxy, 0, "GET").unwrap());
    proxy.answer(held, &Answer::status("200"));
    let (_, admitted) = proxy.wake(0, &mut waiting).pop().unwrap();
    assert_eq!(crowd(&proxy), 0, "it has its place");
    proxy.answer(admitted.unwrap(), &Answer::status("200"));
    let _held = ask(&mut proxy, 1, "GET").unwrap();
    drop(ask(&mut proxy, 0, "GET").unwrap());
    assert_eq!(crowd(&proxy), 1);
    proxy.kill(0, &configuration);
    for _ in 0..20 {
        proxy.advance(SECOND / 2);
        proxy.tick();
    }
    assert_eq!(crowd(&proxy), 0, "its worker died");
    assert!(ask(&mut proxy, 1, "GET").unwrap().queued, "there is room in the queue");
    assert_eq!(proxy.errors(), 0);
}

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

#[test]
fn that_keys_share_a_limit_since_there_are_too_many_is_logged_once() {
    log::set_logger(&Lines).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let mut proxy = Workers::new(2, &one_place(r#", "max_keys": 2"#));
    let mut lines_after = |tenants: [&str; 2]| {
        for (worker, tenant) in tenants.into_iter().enumerate() {
            proxy.serve(worker, &[("x-tenant", tenant)], &Answer::status("200"));
        }
        proxy.advance(SECOND);
        proxy.tick();
        LINES.take()
    };
    assert!(lines_after(["a", "b"]).is_empty(), "two keys are not too many");
    let told = "concurrency limit p: 2 keys have limits of their own; all others share one from now on";
    assert_eq!(lines_after(["c", "d"]), [told]);
    assert!(lines_after(["e", "f"]).is_empty());
}
