//! Shared state that fails now and then: nobody who waits is forgotten, and what could not be corrected is corrected later.

use tidegate::control::concurrency::{Algorithm, ConcurrencyLimits, Place, Settings, Share, SlotId};
use tidegate::engine::SplitMix64;
use tidegate::share::LEASE;

use super::counting::Counting;
use super::workers::{Admitted, Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ERRORS: &str = "tidegate_errors_total.kind.load_shedding";
const INFLIGHT: &str = "tidegate_inflight.policy.p";
const LENGTH: &str = "tidegate_queue_length.policy.p";
const KEY: &str = r#", "key": [{"header": "x-tenant"}], "max_keys": 4"#;
const QUEUE: &str = r#", "queue": {"max_length": 1, "max_wait": "1m", "order": "fifo"}"#;
const LEVELS: &str = r#", "priority": {"levels": [{"name": "high", "match": {"method": "PUT"}}, {"name": "low"}]}"#;

fn policy(limit: &str) -> String {
    format!(r#"{{"policies": [{{"name": "p", "load_shedding": {{"limit": {{{limit}}}{KEY}{QUEUE}{LEVELS}}}}}]}}"#)
}

fn one_place() -> String {
    policy(r#""algorithm": "fixed", "limit": 1"#)
}

fn ok() -> Answer {
    Answer::status("200")
}

fn tick_for(proxy: &mut Workers, seconds: u64) {
    for _ in 0..4 * seconds {
        proxy.advance(SECOND / 4);
        proxy.tick();
    }
}

/// It was out of the queue by then, and nobody answered it.
#[test]
fn who_was_to_be_displaced_goes_on_waiting_if_the_other_cannot_be_counted() {
    let mut proxy = Workers::new(1, &one_place());
    let ask = |proxy: &mut Workers, method| proxy.ask(0, &[("x-tenant", "a"), (":method", method)]);
    let lengths = |proxy: &Workers| {
        [".length", ".length.level.0", ".length.level.1", "crowd.0.total"].map(|end| proxy.number(end))
    };
    let held = ask(&mut proxy, "GET").unwrap();
    // Nobody there to be displaced: it is not to count as waiting.
    proxy.share.refused_cells.set(Some(".level.1.worker.0"));
    assert_eq!(ask(&mut proxy, "GET").unwrap_err().1, "overloaded;policy=p");
    assert_eq!((lengths(&proxy), proxy.stat(ERRORS)), ([0; 4], 1));
    proxy.share.refused_cells.set(None);
    let mut waiting = vec![ask(&mut proxy, "GET").unwrap()];
    assert_eq!(lengths(&proxy), [1, 0, 1, 1]);
    proxy.share.refused_cells.set(Some(".level.0.worker.0"));
    assert_eq!(ask(&mut proxy, "PUT").unwrap_err().1, "overloaded;policy=p");
    assert_eq!((lengths(&proxy), proxy.stat(ERRORS)), ([1, 0, 1, 1], 2));
    proxy.share.refused_cells.set(None);
    assert!(proxy.wake(0, &mut waiting).is_empty(), "it waits");
    // The control: it is displaced where the other can be counted.
    let more_important = ask(&mut proxy, "PUT").unwrap();
    assert_eq!(proxy.wake(0, &mut waiting).pop().unwrap().1.unwrap_err(), "overloaded;policy=p;cause=displaced");
    waiting.push(more_important);
    proxy.answer(held, &ok());
    let (_, entered) = proxy.wake(0, &mut waiting).pop().unwrap();
    proxy.answer(entered.unwrap(), &ok());
    assert_eq!(lengths(&proxy), [0; 4]);
}

/// Of the others' places some were as before, and those of this key nobody's: it had no limit any more.
#[test]
fn limits_that_find_no_place_together_are_none_of_them_left_behind() {
    let found = |marks: u32| {
        let limit = format!(r#""algorithm": "aimd", "initial": 3, "min": 1, "max": {}"#, 100 + marks);
        policy(&limit).replacen(QUEUE, "", 1)
    };
    let mut proxy = Workers::new(1, &found(0));
    let fill = |proxy: &mut Workers, tenant: &str| -> Vec<Admitted> {
        (0..6).filter_map(|_| proxy.ask(0, &[("x-tenant", tenant)]).ok()).collect()
    };
    let end = |proxy: &mut Workers, all: Vec<Admitted>| all.into_iter().for_each(|one| drop(proxy.answer(one, &ok())));
    for tenant in ["a", "b"] {
        let held = fill(&mut proxy, tenant);
        assert_eq!(held.len(), 3);
        end(&mut proxy, held);
    }
    proxy.advance(LEASE);
    proxy.reconfigure(&found(1));
    for tenant in ["a", "b"] {
        let held = fill(&mut proxy, tenant);
        end(&mut proxy, held);
    }
    proxy.retire_newest(0);
    proxy.share.refused_cells.set(Some(".1.samples"));
    proxy.tick();
    proxy.share.refused_cells.set(None);
    let errors = proxy.stat(ERRORS);
    assert!(errors > 0, "it finds limits by itself");
    for time in ["by itself", "together"] {
        for tenant in ["a", "b"] {
            let held = fill(&mut proxy, tenant);
            assert_eq!(held.len(), 3, "{time}: {tenant}");
            end(&mut proxy, held);
        }
        proxy.advance(SECOND);
        proxy.tick();
    }
    assert_eq!((proxy.stat(ERRORS), proxy.stat(INFLIGHT)), (errors, 0));
}

/// What a heartbeat had found was found only once.
#[test]
fn what_a_dead_worker_had_is_taken_back_later_where_shared_state_fails_at_first() {
    let configuration = one_place();
    let mut proxy = Workers::new(2, &configuration);
    for tenant in ["a", "b"] {
        for _ in 0..2 {
            drop(proxy.ask(0, &[("x-tenant", tenant)]).unwrap());
        }
    }
    proxy.tick();
    assert_eq!((proxy.stat(INFLIGHT), proxy.stat(LENGTH), proxy.number(".length")), (2, 2, 2));
    proxy.kill(0, &configuration);
    proxy.share.refused_cells.set(Some(".worker.0"));
    tick_for(&mut proxy, 10);
    assert_eq!((proxy.stat(INFLIGHT), proxy.stat(LENGTH)), (2, 2), "the control: it fails");
    assert!(proxy.stat(ERRORS) > 3);
    proxy.share.refused_cells.set(None);
    tick_for(&mut proxy, 1);
    let numbers =
        [".length", ".length.level.1", "crowd.0.total", "crowd.1.total", ".total"].map(|end| proxy.number(end));
    assert_eq!((proxy.stat(INFLIGHT), proxy.stat(LENGTH), numbers), (0, 0, [0; 5]));
    let errors = proxy.stat(ERRORS);
    for tenant in ["a", "b"] {
        let [first, second] = [0; 2].map(|_| proxy.ask(1, &[("x-tenant", tenant)]).unwrap());
        assert!(!first.queued && second.queued);
    }
    tick_for(&mut proxy, 10);
    assert_eq!((proxy.stat(INFLIGHT), proxy.stat(LENGTH), proxy.stat(ERRORS)), (2, 2, errors), "once and no more");
}

/// Workers of a limit, each with what it holds, and the number of all.
struct Fleet {
    share: Counting,
    workers: Vec<(ConcurrencyLimits, Vec<Place>)>,
    now: u64,
}

impl Fleet {
    fn new() -> Self {
        Self { share: Counting::default(), workers: Vec::new(), now: 1_000 * SECOND }
    }

    /// One more, which takes so many places.
    fn join(&mut self, places: usize) {
        let settings = Settings { algorithm: Algorithm::Fixed(10_000), max_keys: 0, measure: false, levels: false };
        let mut limits = ConcurrencyLimits::new(settings, &self.share, "limit", "inflight").unwrap();
        let mut random = SplitMix64::new(self.workers.len() as u64);
        let mut enter = || limits.acquire(&self.share, SlotId::ONLY, Share::ALL, self.now, &mut random).unwrap();
        let held = (0..places).map(|_| enter()).collect();
        self.workers.push((limits, held));
    }

    /// Those that are awake live for so many seconds.
    fn live(&mut self, seconds: u64, awake: &[usize]) {
        for _ in 0..2 * seconds {
            self.now += SECOND / 2;
            for worker in awake {
                let random = &mut SplitMix64::new(1_000 + *worker as u64);
                self.workers[*worker].0.tick(&self.share, self.now, random);
            }
        }
    }

    fn inflight(&self) -> i64 {
        self.workers[0].0.inflight(&self.share)
    }
}

#[test]
fn a_worker_that_was_taken_for_dead_is_counted_later_where_shared_state_fails_at_first() {
    let mut fleet = Fleet::new();
    [3, 2].into_iter().for_each(|places| fleet.join(places));
    fleet.live(1, &[0, 1]);
    fleet.live(6, &[0]);
    assert_eq!(fleet.inflight(), 3, "the other was asleep");
    // The place it will have then.
    fleet.share.refused_cells.set(Some(".worker.2"));
    fleet.live(2, &[0, 1]);
    assert_eq!(fleet.inflight(), 3, "the control: it fails");
    fleet.share.refused_cells.set(None);
    fleet.live(1, &[0, 1]);
    assert_eq!(fleet.inflight(), 5);
    fleet.live(6, &[0, 1]);
    assert_eq!(fleet.inflight(), 5);
    fleet.live(6, &[0]);
    assert_eq!(fleet.inflight(), 3, "and taken back when it dies");
}

#[test]
fn what_a_dead_worker_held_is_taken_back_by_the_next_if_the_one_who_found_it_dies_as_well() {
    let mut fleet = Fleet::new();
    [1, 3, 5].into_iter().for_each(|places| fleet.join(places));
    fleet.live(1, &[0, 1, 2]);
    // The first to look finds it dead, and cannot take it back.
    fleet.share.refused_cells.set(Some(".worker.2"));
    fleet.live(6, &[1, 0]);
    assert_eq!(fleet.inflight(), 9);
    fleet.share.refused_cells.set(None);
    fleet.live(2, &[0]);
    assert_eq!(fleet.inflight(), 9, "nobody knows yet that it died as well");
    fleet.live(8, &[0]);
    assert_eq!(fleet.inflight(), 1);
    fleet.live(8, &[0]);
    assert_eq!(fleet.inflight(), 1);
}

/// The place of one that is dead is not given away before what it held has been taken back: that would be taken from the next one.
#[test]
fn a_worker_that_comes_meanwhile_does_not_have_the_place_of_one_that_is_not_taken_back() {
    for fails in [false, true] {
        let mut fleet = Fleet::new();
        // As many as there are records.
        (0..256).for_each(|_| fleet.join(1));
        let all_but_one: Vec<_> = (0..255).collect();
        fleet.live(1, &all_but_one);
        fleet.share.refused_cells.set(Some(".worker.255").filter(|_| fails));
        fleet.live(6, &all_but_one);
        fleet.share.refused_cells.set(None);
        assert_eq!(fleet.inflight(), if fails { 256 } else { 255 });
        fleet.join(7);
        fleet.live(1, &all_but_one);
        assert_eq!(fleet.inflight(), 255 + 7, "{fails}");
    }
}
