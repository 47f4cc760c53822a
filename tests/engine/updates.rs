//! Circuit breakers over updates of the configuration: what is kept, what begins anew, and what the gauge shows meanwhile.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tidegate::config;
use tidegate::engine::stats::{Kind, MetricId, Metrics, Registry};
use tidegate::engine::{Decision, Engine, Env, Permit, SplitMix64, Stream};
use tidegate::matching::{HeaderMap, Request};
use tidegate::share::{Memory, SharedState};

use super::counting::Counting;
use super::requests::{Proxy, encode};
use super::workers::{Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const GOOD: &str = "admitted";
const OPEN: &str = "circuit_open;policy=p;trip=failure_rate";
const STATE: &str = "tidegate_circuit_breaker_state.policy.p.key.backend";

fn bad() -> Answer {
    Answer::status("500")
}

/// A breaker that trips at so many failures, and a policy beside it.
fn breaker(minimum_calls: u32, more: &str, other: &str) -> String {
    format!(
        r#"{{"policies": [
            {{"name": "other", "match": {{"path": "{other}"}}}},
            {{"name": "p", "circuit_breaker": {{"minimum_calls": {minimum_calls}, "open_duration": "50s"{more}}}}}]}}"#
    )
}

fn plain(minimum_calls: u32) -> String {
    breaker(minimum_calls, "", "/a")
}

fn fail(proxy: &mut Workers, worker: usize, times: usize) {
    for _ in 0..times {
        assert_eq!(proxy.serve(worker, &[], &bad()), GOOD);
    }
}

#[test]
fn settings_that_change_and_change_back_begin_anew_once_the_first_are_gone() {
    let mut proxy = Workers::new(2, &plain(4));
    fail(&mut proxy, 0, 4);
    proxy.reconfigure(&plain(5));
    assert_eq!((proxy.serve(1, &[], &bad()), proxy.stat(STATE)), (GOOD.to_owned(), 0));
    // The control: while requests of the first still drain it is in use, and so not forgotten.
    proxy.reconfigure(&plain(4));
    assert_eq!((proxy.serve(1, &[], &bad()), proxy.stat(STATE)), (OPEN.to_owned(), 1));

    let mut proxy = Workers::new(2, &plain(4));
    fail(&mut proxy, 0, 4);
    proxy.reconfigure(&plain(5));
    (0..2).for_each(|worker| proxy.retire_oldest(worker));
    proxy.reconfigure(&plain(4));
    fail(&mut proxy, 0, 3);
    assert_eq!((proxy.serve(1, &[], &bad()), proxy.stat(STATE)), (GOOD.to_owned(), 1));
    assert_eq!(proxy.serve(1, &[], &bad()), OPEN);
}

#[test]
fn what_did_not_change_is_kept_when_the_engine_before_is_gone_and_by_a_vm_that_comes_back() {
    let mut proxy = Workers::new(2, &plain(4));
    fail(&mut proxy, 0, 4);
    proxy.reconfigure(&breaker(4, "", "/b"));
    (0..2).for_each(|worker| proxy.retire_oldest(worker));
    assert_eq!((proxy.serve(1, &[], &bad()), proxy.stat(STATE)), (OPEN.to_owned(), 1));
    proxy.kill(0, &breaker(4, "", "/b"));
    assert_eq!((proxy.serve(0, &[], &bad()), proxy.stat(STATE)), (OPEN.to_owned(), 1));
}

#[test]
fn a_breaker_that_another_worker_has_just_opened_is_shown_open() {
    let mut proxy = Workers::new(2, &plain(4));
    // Both workers know the key, and the first breaker opens.
    fail(&mut proxy, 1, 1);
    fail(&mut proxy, 0, 3);
    proxy.reconfigure_one(0, &plain(5));
    assert_eq!(proxy.stat(STATE), 0);
    fail(&mut proxy, 0, 5);
    assert_eq!(proxy.stat(STATE), 1);
    proxy.reconfigure_one(1, &plain(5));
    assert_eq!(proxy.stat(STATE), 1, "the second worker ends a breaker whose successor is open");
    (0..2).for_each(|worker| proxy.retire_oldest(worker));
    assert_eq!(proxy.stat(STATE), 1);
    // The control: where the successor is closed both take the open one off the gauge.
    proxy.reconfigure(&plain(6));
    assert_eq!(proxy.stat(STATE), 0);
}

#[test]
fn requests_in_flight_over_an_update_trip_the_breaker_that_goes_on() {
    let mut proxy = Workers::new(2, &plain(4));
    let in_flight: Vec<_> = (0..4).map(|turn| proxy.ask(turn % 2, &[]).unwrap()).collect();
    proxy.reconfigure(&breaker(4, "", "/b"));
    in_flight.into_iter().for_each(|request| drop(proxy.answer(request, &bad())));
    assert_eq!((proxy.stat(STATE), proxy.serve(0, &[], &bad())), (1, OPEN.to_owned()));
    assert_eq!(proxy.stat("tidegate_circuit_breaker_transitions_total.policy.p.to.open"), 1);

    // The control: where the settings changed they trip their own, which shows until it is gone.
    let mut proxy = Workers::new(2, &plain(4));
    let in_flight: Vec<_> = (0..4).map(|turn| proxy.ask(turn % 2, &[]).unwrap()).collect();
    proxy.reconfigure(&plain(5));
    in_flight.into_iter().for_each(|request| drop(proxy.answer(request, &bad())));
    assert_eq!((proxy.stat(STATE), proxy.serve(0, &[], &bad())), (1, GOOD.to_owned()));
    (0..2).for_each(|worker| proxy.retire_oldest(worker));
    assert_eq!(proxy.stat(STATE), 0);
}

#[test]
fn a_configuration_taken_back_shows_its_own_breakers_once_the_one_between_is_gone() {
    let mut proxy = Workers::new(1, &plain(4));
    fail(&mut proxy, 0, 4);
    proxy.reconfigure(&plain(5));
    assert_eq!((proxy.serve(0, &[], &bad()), proxy.stat(STATE)), (GOOD.to_owned(), 0));
    // Hosts that still have the first use it again, and tell nobody.
    proxy.retire_newest(0);
    assert_eq!((proxy.serve(0, &[], &bad()), proxy.stat(STATE)), (OPEN.to_owned(), 1));
}

#[test]
fn a_breaker_held_open_by_hand_is_shown_open_from_its_first_request_to_its_end() {
    let forced = breaker(4, r#", "state": "forced_open""#, "/a");
    let mut proxy = Workers::new(2, &forced);
    assert_eq!(proxy.serve(0, &[], &bad()), "circuit_open;policy=p;trip=forced_open");
    assert_eq!(proxy.stat(STATE), 1);
    for (next, shown) in [(plain(4), 0), (forced.clone(), 1), (breaker(4, r#", "state": "disabled""#, "/a"), 0)] {
        proxy.reconfigure(&next);
        assert_eq!(proxy.stat(STATE), shown, "{next}");
    }
    proxy.reconfigure(&forced);
    proxy.reconfigure(r#"{"policies": []}"#);
    assert_eq!(proxy.stat(STATE), 0);
}

/// One filter name in two listeners, or an update between: what a trial learns must not open what is enforced.
#[test]
fn a_policy_in_shadow_shares_no_breaker_with_its_enforced_twin() {
    const SHADOW_OPEN: &str = "shadow_circuit_open;policy=p;trip=failure_rate";
    let shadow = plain(4).replace(r#""name": "p""#, r#""name": "p", "mode": "shadow""#);
    for (first, second, open) in [(shadow.clone(), plain(4), SHADOW_OPEN), (plain(4), shadow, OPEN)] {
        let mut proxy = Workers::new(2, &first);
        // The second worker has both, the first only the first.
        proxy.reconfigure_one(1, &second);
        fail(&mut proxy, 0, 4);
        assert_eq!((proxy.serve(0, &[], &bad()), proxy.serve(1, &[], &bad())), (open.to_owned(), GOOD.to_owned()));
        // The control: the same listener on the other worker.
        proxy.reconfigure_one(1, &first);
        assert_eq!(proxy.serve(1, &[], &bad()), open);
    }
}

/// The update looked at the last engine only, so that an earlier one's breaker was shown until it had drained.
#[test]
fn an_update_shows_its_own_breakers_whatever_those_before_the_last_have_done() {
    let mut proxy = Workers::new(1, &plain(4));
    proxy.reconfigure(&plain(5));
    let draining: Vec<_> = (0..5).map(|_| proxy.ask(0, &[]).unwrap()).collect();
    proxy.reconfigure(&plain(4));
    draining.into_iter().for_each(|request| drop(proxy.answer(request, &bad())));
    assert_eq!(proxy.stat(STATE), 1, "a change while it drains shows");
    proxy.reconfigure(&plain(6));
    assert_eq!(proxy.stat(STATE), 0);
}

/// Metrics before whose next gauge of a breaker something else happens.
#[derive(Default)]
struct Slow {
    names: RefCell<Vec<String>>,
    values: Rc<RefCell<HashMap<String, u64>>>,
    meanwhile: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Metrics for Slow {
    fn define(&self, _: Kind, name: &str) -> Option<MetricId> {
        let mut names = self.names.borrow_mut();
        names.push(name.to_owned());
        Some(MetricId(names.len() as u32 - 1))
    }

    fn add(&self, _: MetricId, _: i64) {}

    fn record(&self, id: MetricId, value: u64) {
        let name = self.names.borrow()[id.0 as usize].clone();
        if name == STATE
            && let Some(meanwhile) = self.meanwhile.take()
        {
            meanwhile();
        }
        self.values.borrow_mut().insert(name, value);
    }
}

/// A bad answer, with the headers the proxy hands over.
struct Failed(Vec<u8>);

impl Stream for Failed {
    fn response_headers(&self) -> Option<HeaderMap<'_>> {
        HeaderMap::parse(&self.0)
    }

    fn response_trailer(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn add_response_header(&self, _: &str, _: &str) {}

    fn replace_response_header(&self, _: &str, _: &str) {}

    fn flags(&self) -> u64 {
        0
    }

    fn details(&self) -> Option<&[u8]> {
        Some(b"via_upstream")
    }
}

/// A worker of its own, whose registry knows the host's ids from no other.
struct Worker {
    own: Memory,
    stats: Registry,
    random: SplitMix64,
    hash_key: (u64, u64),
}

impl Worker {
    fn new() -> Self {
        Self::of_process((1, 2))
    }

    /// The key is a process's own.
    fn of_process(hash_key: (u64, u64)) -> Self {
        Self { own: Memory::new(), stats: Registry::default(), random: SplitMix64::new(1), hash_key }
    }

    fn env<'e>(&'e mut self, now: u64, share: &'e dyn SharedState, metrics: &'e dyn Metrics) -> Env<'e> {
        let Self { own, stats, random, hash_key } = self;
        Env { now, share, own, random, metrics, stats, may_wait: true, hash_key: *hash_key }
    }
}

/// A request that the upstream fails. Whether it was let through.
fn failed(engine: &mut Engine, env: &mut Env<'_>) -> bool {
    let raw = encode(&[(":method", "GET"), (":path", "/"), (":authority", "a"), (":scheme", "http")]);
    let proxy = Proxy::new(&[("xds\0cluster_name", "backend")]);
    let request = Request::new(HeaderMap::parse(&raw).unwrap(), &proxy);
    let mut permit = Permit::default();
    let decision = engine.decide(&request, &mut permit, env);
    let failed = Failed(encode(&[(":status", "500")]));
    engine.response_headers(&failed, true, &mut permit, env);
    engine.end(&failed, &mut permit, env);
    matches!(decision, Decision::Admitted { .. })
}

/// What the gauge shows when a second worker trips the successor of an open breaker just before the first takes the open
/// one off the gauge, or when nothing happens then.
fn shown_after_a_race(races: bool) -> u64 {
    let read = |text: &str| config::read(text.as_bytes()).unwrap();
    let (share, metrics, now) = (Memory::new(), Slow::default(), 1_000 * SECOND);
    let mut one = Worker::new();
    let old = {
        let mut env = one.env(now, &share, &metrics);
        let mut old = Engine::new(&read(&plain(4)), &[], "test", &mut env).unwrap();
        while failed(&mut old, &mut env) {}
        old
    };
    assert_eq!(metrics.values.borrow().get(STATE), Some(&1));
    if races {
        let (share, metrics_of_other) = (share.clone(), Slow { values: Rc::clone(&metrics.values), ..Slow::default() });
        *metrics.meanwhile.borrow_mut() = Some(Box::new(move || {
            let mut other = Worker::new();
            let mut env = other.env(now, &share, &metrics_of_other);
            let mut engine = Engine::new(&read(&plain(5)), &[], "test", &mut env).unwrap();
            while failed(&mut engine, &mut env) {}
        }));
    }
    let mut env = one.env(now, &share, &metrics);
    let _new = Engine::new(&read(&plain(5)), &[&old], "test", &mut env).unwrap();
    assert!(metrics.meanwhile.borrow().is_none(), "the gauge was written");
    metrics.values.borrow()[STATE]
}

#[test]
fn of_two_workers_that_write_a_gauge_at_once_the_one_that_knows_better_wins() {
    assert_eq!((shown_after_a_race(true), shown_after_a_race(false)), (1, 0));
}

/// Whether a breaker has opened after two failures of four that it takes, when the numbers of a process with this key have
/// meanwhile been added to those of the same name here, as Envoy does at a hot restart.
fn opened_by_a_hot_restart(other: (u64, u64)) -> bool {
    let config = config::read(plain(4).as_bytes()).unwrap();
    let metrics = Slow::default();
    let serve_two = |hash_key, share: &Counting, between: &dyn Fn()| {
        let mut worker = Worker::of_process(hash_key);
        let mut env = worker.env(1_000 * SECOND, share, &metrics);
        let mut engine = Engine::new(&config, &[], "test", &mut env).unwrap();
        assert!(failed(&mut engine, &mut env));
        between();
        assert!(failed(&mut engine, &mut env));
        !failed(&mut engine, &mut env)
    };
    let (before, now) = (Counting::default(), Counting::default());
    serve_two(other, &before, &|| {});
    serve_two((1, 2), &now, &|| {
        for name in before.cell_names() {
            now.memory.add(now.memory.cell(&name).unwrap(), before.memory.read(before.memory.cell(&name).unwrap()));
        }
    })
}

#[test]
fn the_numbers_of_the_process_before_are_no_calls_of_this_one() {
    assert!(!opened_by_a_hot_restart((3, 4)));
    // The control: under the same names they are.
    assert!(opened_by_a_hot_restart((1, 2)));
}
