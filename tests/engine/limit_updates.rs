//! Concurrency limits over updates of the configuration: what is kept, what begins anew, and what that leaves behind.

use tidegate::config;
use tidegate::engine::stats::Registry;
use tidegate::engine::{Engine, Env, SplitMix64};
use tidegate::share::{GRACE, LEASE, Memory, ROWS};

use super::counting::Counting;
use super::nothing::Nothing;
use super::workers::{Admitted, Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ERRORS: &str = "tidegate_errors_total.kind.load_shedding";
const INFLIGHT: &str = "tidegate_inflight.policy.p";
const LIMIT: &str = "tidegate_concurrency_limit.policy.p";

fn policy(mode: &str, shedding: &str) -> String {
    format!(r#"{{"policies": [{{"name": "p", "mode": "{mode}", "load_shedding": {{{shedding}}}}}]}}"#)
}

/// A limit that is found. `marks` makes settings of their own, of which no request takes notice.
fn aimd(marks: usize) -> String {
    let limit = format!(r#""limit": {{"algorithm": "aimd", "initial": 100, "min": 1, "max": {}}}"#, 1_000 + marks);
    policy("enforce", &limit)
}

fn fixed(limit: u32, more: &str) -> String {
    policy("enforce", &format!(r#""limit": {{"algorithm": "fixed", "limit": {limit}}}{more}"#))
}

const KEY: &str = r#", "key": [{"header": "x-tenant"}], "max_keys": 4"#;

/// Seconds in which the upstream refuses everything: what the newest limit is then.
fn refuse(proxy: &mut Workers, workers: usize, seconds: u64) -> i64 {
    for turn in 0..20 * seconds as usize {
        proxy.serve(turn % workers, &[], &Answer::status("503"));
        proxy.advance(SECOND / 20);
    }
    proxy.tick();
    proxy.stat(LIMIT)
}

/// All that enter, of ten that ask at each worker.
fn fill(proxy: &mut Workers, workers: usize, headers: &[(&str, &str)]) -> Vec<Admitted> {
    (0..10 * workers).filter_map(|turn| proxy.ask(turn % workers, headers).ok()).collect()
}

fn end(proxy: &mut Workers, requests: Vec<Admitted>) {
    requests.into_iter().for_each(|request| drop(proxy.answer(request, &Answer::status("200"))));
}

#[test]
fn a_limit_keeps_what_it_found_while_more_settings_than_there_is_room_for_come_and_go() {
    let mut proxy = Workers::new(2, &aimd(0));
    let found = refuse(&mut proxy, 2, 4);
    assert!(found < 90, "{found}");
    for marks in 1..ROWS {
        proxy.reconfigure(&aimd(marks));
        assert_eq!(proxy.stat(LIMIT), 100, "{marks} begins anew");
    }
    assert_eq!(proxy.stat(ERRORS), 0);
    // One more than there are places: each worker finds a limit by itself, for what is in flight over all of them.
    proxy.reconfigure(&aimd(ROWS));
    assert_eq!((proxy.stat(ERRORS), proxy.stat(LIMIT)), (2, 100), "once for each worker");
    let held: Vec<_> = (0..120).filter_map(|turn| proxy.ask(turn % 2, &[]).ok()).collect();
    assert_eq!((held.len(), proxy.stat(INFLIGHT)), (100, 100));
    end(&mut proxy, held);
    proxy.advance(SECOND);
    proxy.tick();
    assert_eq!(proxy.stat(ERRORS), 4, "it looks again");
    proxy.free_places_of(1);
    assert_eq!(proxy.stat(ERRORS), 4, "the place of one that is gone is the last one's");
    let together = refuse(&mut proxy, 2, 4);
    assert!(together < 90, "{together}");
    for worker in 0..2 {
        (1..ROWS).for_each(|_| proxy.retire_newest(worker));
    }
    proxy.tick();
    assert_eq!(proxy.stat(LIMIT), found, "the first has what it had");
    assert_eq!(proxy.stat(INFLIGHT), 0);
}

#[test]
fn settings_that_come_back_find_what_they_left_unless_others_have_their_place() {
    for others in [1, 3] {
        let mut proxy = Workers::new(2, &aimd(0));
        let found = refuse(&mut proxy, 2, 4);
        for marks in 1..=others {
            proxy.reconfigure(&aimd(marks));
            (0..2).for_each(|worker| proxy.retire_oldest(worker));
            proxy.advance(GRACE);
        }
        proxy.reconfigure(&aimd(0));
        assert_eq!(proxy.stat(LIMIT), if others == 1 { found } else { 100 }, "{others}");
    }
}

/// What the pages said belonged to settings that had been silent for a minute: a process that stood still.
#[test]
fn a_limit_that_lost_its_place_finds_another_and_knows_what_is_in_flight() {
    let mut proxy = Workers::new(2, &aimd(0));
    assert!(refuse(&mut proxy, 2, 4) < 90);
    let held = fill(&mut proxy, 2, &[]);
    assert_eq!(held.len(), 20);
    proxy.advance(LEASE);
    proxy.reconfigure(&aimd(1));
    assert_eq!(proxy.stat(LIMIT), 100);
    let of_the_next = fill(&mut proxy, 2, &[]);
    for turn in 0..60 {
        proxy.serve(turn % 2, &[], &Answer::status("503"));
        proxy.advance(SECOND / 20);
    }
    for worker in 0..2 {
        proxy.retire_newest(worker);
    }
    // Before anybody has looked: whoever comes first finds out.
    let more: Vec<_> = (0..100).filter_map(|turn| proxy.ask(turn % 2, &[]).ok()).collect();
    assert_eq!((more.len(), proxy.stat(INFLIGHT)), (60, 100), "40 of 100 were taken");
    proxy.tick();
    assert_eq!((proxy.stat(LIMIT), proxy.stat(ERRORS)), (100, 0));
    drop(of_the_next);
    end(&mut proxy, held);
    end(&mut proxy, more);
    assert_eq!(proxy.stat(INFLIGHT), 20);
}

#[test]
fn what_is_in_flight_for_a_key_is_so_whatever_the_limit() {
    for (before, after, more) in [(2, 3, 1), (3, 2, 0)] {
        let mut proxy = Workers::new(2, &fixed(before, KEY));
        let held = fill(&mut proxy, 2, &[("x-tenant", "a")]);
        assert_eq!(held.len(), before as usize);
        proxy.reconfigure(&fixed(after, KEY));
        assert_eq!(fill(&mut proxy, 2, &[("x-tenant", "a")]).len(), more, "{before} to {after}");
        assert_eq!(fill(&mut proxy, 2, &[("x-tenant", "b")]).len(), after as usize, "the control: another key");
        end(&mut proxy, held);
        assert_eq!(fill(&mut proxy, 2, &[("x-tenant", "a")]).len(), after as usize - more);
    }
}

/// Nobody had the settings any more under which it held them.
#[test]
fn what_a_dead_worker_held_for_a_key_is_taken_back_when_the_limit_has_other_settings_by_then() {
    let mut proxy = Workers::new(2, &fixed(4, KEY));
    let lost = (0..3).filter_map(|_| proxy.ask(0, &[("x-tenant", "a")]).ok()).count();
    proxy.tick();
    proxy.reconfigure_one(1, &fixed(5, KEY));
    proxy.retire_oldest(1);
    proxy.kill(0, &fixed(5, KEY));
    assert_eq!((lost, fill(&mut proxy, 2, &[("x-tenant", "a")]).len()), (3, 2));
    for _ in 0..40 {
        proxy.advance(SECOND / 4);
        proxy.tick();
    }
    assert_eq!(proxy.stat(INFLIGHT), 2);
    assert_eq!(fill(&mut proxy, 2, &[("x-tenant", "a")]).len(), 3);
}

#[test]
fn a_shadow_and_its_enforced_twin_take_no_place_of_each_other() {
    let limit = r#""limit": {"algorithm": "fixed", "limit": 2}"#;
    for (first, second) in [("shadow", "enforce"), ("enforce", "shadow")] {
        let mut proxy = Workers::new(2, &policy(first, limit));
        let admitted = |proxy: &mut Workers| {
            let asked: Vec<_> = (0..5).filter_map(|turn| proxy.ask(turn % 2, &[]).ok()).collect();
            asked.iter().filter(|one| one.shadow.is_none()).count()
        };
        assert_eq!(admitted(&mut proxy), 2);
        proxy.reconfigure(&policy(second, limit));
        assert_eq!(admitted(&mut proxy), 2, "{first}, then {second}");
        // The control: the first again has its places taken.
        proxy.reconfigure(&policy(first, limit));
        assert_eq!(admitted(&mut proxy), 0);
    }
}

#[test]
fn a_shadows_limit_and_throttle_learn_nothing_for_their_enforced_twins() {
    const REJECTS: &str = "tidegate_throttle_rejection_percent.policy.p";
    let shedding = r#""limit": {"algorithm": "aimd", "initial": 100, "min": 1, "max": 1000}, "throttle": {}"#;
    for (first, second) in [("shadow", "enforce"), ("enforce", "shadow")] {
        let mut proxy = Workers::new(2, &policy(first, shedding));
        let found = refuse(&mut proxy, 2, 10);
        assert!(found < 90 && proxy.stat(REJECTS) > 50, "{found}");
        proxy.reconfigure(&policy(second, shedding));
        assert_eq!((proxy.stat(LIMIT), proxy.stat(REJECTS)), (100, 0), "{first}, then {second}");
        // The control: the first goes on where it was.
        proxy.reconfigure(&policy(first, shedding));
        assert_eq!(proxy.stat(LIMIT), found);
        assert!(proxy.stat(REJECTS) > 50);
    }
}

#[test]
fn queues_go_where_the_limits_are() {
    let of = |limit| fixed(limit, r#", "queue": {"max_length": 1, "max_wait": "9s", "order": "fifo"}"#);
    for (ticks, waiting) in [(true, 1), (false, 2)] {
        let mut proxy = Workers::new(2, &of(2));
        (1..ROWS as u32).for_each(|marks| proxy.reconfigure(&of(2 + marks)));
        // No place is left for the first worker, and the second comes when there is one.
        proxy.reconfigure_one(0, &of(1));
        (0..2).for_each(|worker| proxy.retire(worker, 3));
        proxy.advance(GRACE);
        proxy.reconfigure_one(1, &of(1));
        if ticks {
            proxy.tick();
        }
        let _in_flight = proxy.ask(0, &[]).unwrap();
        let asked: Vec<_> = (0..2).filter_map(|worker| proxy.ask(worker, &[]).ok()).collect();
        // The control: two places, and a queue in each.
        assert_eq!(asked.iter().filter(|one| one.queued).count(), waiting);
        assert_eq!(proxy.stat(ERRORS), 0, "nothing is found, so nothing is found by each for itself");
    }
}

/// How many pages and numbers there are after so many settings, each of which is gone before the next but one comes, or none.
fn left_behind(settings: usize, goes: bool, of: impl Fn(usize) -> String) -> (u32, usize) {
    let (share, own, stats, mut random) = (Counting::default(), Memory::new(), Registry::default(), SplitMix64::new(1));
    let mut before: Option<Engine> = None;
    for marks in 0..settings {
        let mut env = Env {
            now: (1_000 + 10 * marks as u64) * SECOND,
            share: &share,
            own: &own,
            random: &mut random,
            metrics: &Nothing,
            stats: &stats,
            may_wait: true,
            hash_key: (1, 2),
        };
        let config = config::read(of(marks).as_bytes()).unwrap();
        let next = Engine::new(&config, before.as_slice().iter().collect::<Vec<_>>().as_slice(), "test", &mut env);
        if let Some(gone) = before.replace(next.unwrap()).filter(|_| goes) {
            gone.release_rows(&env);
        }
    }
    (share.page_count(), share.cell_count())
}

#[test]
fn changes_leave_nothing_behind_but_the_places_that_are_used_again() {
    let queue = r#", "queue": {"max_length": 9, "max_wait": "1s", "order": "fifo"}"#;
    let found = |key: &str, marks: usize| aimd(marks).replace("}}}]}", &format!("}}{queue}{key}}}}}]}}"));
    for key in ["", KEY] {
        let few = left_behind(4, true, |marks| found(key, marks));
        assert_eq!(left_behind(100, true, |marks| found(key, marks)), few, "{key}");
        let known = left_behind(100, true, |marks| fixed(1 + marks as u32, &format!("{queue}{key}")));
        assert_eq!(known, left_behind(4, true, |marks| fixed(1 + marks as u32, &format!("{queue}{key}"))), "{key}");
        // The control: who never says that it is gone has a place of its own, as long as there is one.
        let all = left_behind(10, false, |marks| found(key, marks));
        assert!(all.0 > few.0 && all.1 >= few.1, "{all:?}, {few:?}");
    }
}
