//! Requests that need places of two policies, both with queues: everybody is served, in few turns, and nobody loses the
//! time it has waited.

use std::collections::{BTreeSet, VecDeque};

use tidegate::control::Random;
use tidegate::engine::SplitMix64;

use super::workers::{Admitted, Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MS: u64 = SECOND / 1000;
const P: &[(&str, &str)] = &[("x-p", "1")];
const Q: &[(&str, &str)] = &[("x-q", "1")];
const BOTH: &[(&str, &str)] = &[("x-p", "1"), ("x-q", "1")];
/// `response.flags` of a client that left.
const LEFT: u64 = 1 << 14;

fn ok() -> Answer {
    Answer::status("200")
}

/// Policies `p` and `q` with so many places each, for requests that say so.
fn two(limit: u32, queue: &str) -> String {
    in_order(["p", "q"], limit, queue)
}

fn in_order(names: [&str; 2], limit: u32, queue: &str) -> String {
    let policy = |name: &str| {
        format!(
            r#"{{"name": "{name}", "match": {{"headers": [{{"name": "x-{name}", "present": true}}]}}, "load_shedding": {{
                "limit": {{"algorithm": "fixed", "limit": {limit}}}, "queue": {{"max_length": 500, {queue}}}}}}}"#
        )
    };
    format!(r#"{{"policies": [{}]}}"#, names.map(policy).join(", "))
}

fn inflight(proxy: &Workers, policy: &str) -> i64 {
    proxy.stat(&format!("tidegate_inflight.policy.{policy}"))
}

/// What became of 120 requests that came at once.
#[derive(Debug, Default)]
struct Outcome {
    late: usize,
    turns: u32,
    /// When the last of them was answered.
    last_ms: u64,
}

/// A third of `p`, a third of `q`, and a third of both, or of `p` too where `both` is false. Four places each; work takes ten
/// milliseconds, or without a lockstep five to fifteen, and workers look once a millisecond, or at random times.
fn burst(workers: usize, queue: &str, seed: u64, lockstep: bool, both: bool) -> Outcome {
    let mut random = SplitMix64::new(seed);
    let mut draw = |most: u64| random.next_u64() % most;
    let mut proxy = Workers::new(workers, &two(4, queue));
    let (mut waiting, mut flying) = (Vec::new(), Vec::new());
    let took = |chance: u64| if lockstep { 10 * MS } else { 5 * MS + chance % (10 * MS) };
    for number in 0..120 {
        let worker = if lockstep { number } else { usize::try_from(draw(64)).unwrap() } % workers;
        let headers = match number % 3 {
            0 => Q,
            1 if both => BOTH,
            _ => P,
        };
        let asked = proxy.ask(worker, headers).unwrap();
        if asked.queued { waiting.push(asked) } else { flying.push((proxy.now + took(draw(u64::MAX)), asked)) }
    }
    let (begun, mut outcome) = (proxy.now, Outcome::default());
    let mut looks = vec![proxy.now; workers];
    while !(waiting.is_empty() && flying.is_empty()) {
        let now = proxy.now;
        assert!(now - begun < 5 * SECOND, "{outcome:?}");
        for (_, done) in flying.extract_if(.., |(end, _): &mut (u64, Admitted)| *end <= now) {
            looks[done.worker] = now;
            proxy.answer(done, &ok());
            outcome.last_ms = (now - begun) / MS;
        }
        for (worker, look) in looks.iter_mut().enumerate().filter(|(_, look)| **look <= now) {
            *look = now + if lockstep { MS } else { MS + draw(MS / 5) };
            for (_, what) in proxy.wake(worker, &mut waiting) {
                match what {
                    Ok(entered) => flying.push((now + took(draw(u64::MAX)), entered)),
                    Err(line) => {
                        assert!(line.starts_with("queue_timeout"), "{line}");
                        outcome.late += 1;
                    }
                }
            }
        }
        assert!(inflight(&proxy, "p") <= 4 && inflight(&proxy, "q") <= 4);
        proxy.advance(if lockstep { MS } else { MS / 20 });
    }
    outcome.turns = proxy.turns;
    for policy in ["p", "q"] {
        assert_eq!((inflight(&proxy, policy), proxy.stat(&format!("tidegate_queue_length.policy.{policy}"))), (0, 0));
    }
    assert_eq!(proxy.errors(), 0);
    outcome
}

/// Each of those who needed both lost its place in one queue by having its turn in the other, over and over: a third of all timed
/// out after half a million turns, with places free.
#[test]
fn whoever_needs_places_of_two_policies_gets_them_in_few_turns() {
    for workers in [1, 2, 4, 8] {
        for order in ["fifo", "lifo", "adaptive_lifo"] {
            let queue = format!(r#""max_wait": "2s", "order": "{order}""#);
            for seed in 0..21 {
                let lockstep = seed == 0;
                let outcome = burst(workers, &queue, seed, lockstep, true);
                println!("{workers} workers, {order}, seed {seed}: {outcome:?}");
                assert_eq!(outcome.late, 0);
                // 80 of them wait in one queue at least; who needs both has four turns at most.
                assert!(outcome.turns <= 80 + 4 * 40, "{outcome:?}");
                // 80 of each, four at a time: 200 ms, were no place ever idle.
                assert!(outcome.last_ms < 600, "{outcome:?}");
            }
        }
    }
    // The controls: where nobody needs both everybody has one turn, and who may wait for less than that takes is late.
    let apart = burst(2, r#""max_wait": "2s", "order": "fifo""#, 0, true, false);
    assert!(apart.late == 0 && apart.turns == 120 - 8, "{apart:?}");
    assert!(burst(2, r#""max_wait": "100ms", "order": "fifo""#, 0, true, true).late > 0);
}

/// Request 3 needs both and has had its turn in each queue, when the other had no place: it holds the place of `p` now and waits
/// for that of `q`, which request 4 has. Request 6 waits for `p`.
fn about_to_enter(configuration: &str, left: &'static str) -> (Workers, Vec<Admitted>, Admitted) {
    let mut proxy = Workers::new(1, configuration);
    let [a, b] = [P, Q].map(|headers| proxy.ask(0, headers).unwrap());
    let both = [BOTH, &[("x-left", left)]].concat();
    let mut waiting = Vec::new();
    for headers in [&both, Q, P] {
        waiting.push(proxy.ask(0, headers).unwrap());
        proxy.advance(MS);
    }
    assert!(waiting.iter().all(|one| one.queued));
    let next = |proxy: &mut Workers, waiting: &mut Vec<Admitted>, done: Admitted| {
        proxy.answer(done, &ok());
        let mut entered = proxy.wake(0, waiting);
        assert_eq!(entered.len(), 1, "{entered:?}");
        let (number, admitted) = entered.pop().unwrap();
        (number, admitted.unwrap())
    };
    let (fifth, d) = next(&mut proxy, &mut waiting, a);
    assert_eq!(fifth, 5, "there is no place of q for the third");
    // Before the fourth, which came later, but now there is no place of p.
    let (fourth, c) = next(&mut proxy, &mut waiting, b);
    assert_eq!((fourth, proxy.turns), (4, 4));
    waiting.push(proxy.ask(0, P).unwrap());
    proxy.answer(d, &ok());
    assert!(proxy.wake(0, &mut waiting).is_empty());
    assert_eq!((inflight(&proxy, "p"), inflight(&proxy, "q"), proxy.turns), (1, 1, 5));
    (proxy, waiting, c)
}

fn numbers(gone_on: &[(u32, Result<Admitted, String>)]) -> Vec<(u32, Result<(), &str>)> {
    gone_on.iter().map(|(number, what)| (*number, what.as_ref().map(|_| ()).map_err(String::as_str))).collect()
}

#[test]
fn who_has_had_its_turn_in_both_queues_goes_first_and_keeps_the_place_it_has() {
    let (mut proxy, mut waiting, c) = about_to_enter(&two(1, r#""max_wait": "10s", "order": "fifo""#), "");
    waiting.push(proxy.ask(0, Q).unwrap());
    proxy.answer(c, &ok());
    assert_eq!(numbers(&proxy.wake(0, &mut waiting)), [(3, Ok(()))]);
}

#[test]
fn a_place_that_was_kept_is_given_back_by_whoever_does_not_enter() {
    let configuration = two(1, r#""max_wait": "1s", "order": "fifo""#);
    // Its client leaves.
    let (mut proxy, mut waiting, _c) = about_to_enter(&configuration, "");
    let at = waiting.iter().position(|one| one.stream() == 3).unwrap();
    proxy.answer(waiting.swap_remove(at), &Answer::none(LEFT));
    assert_eq!(numbers(&proxy.wake(0, &mut waiting)), [(6, Ok(()))]);
    // It has waited for too long, and so has the other one.
    let (mut proxy, mut waiting, _c) = about_to_enter(&configuration, "");
    proxy.advance(SECOND / 2);
    waiting.push(proxy.ask(0, P).unwrap());
    proxy.advance(SECOND / 2);
    let gone_on = proxy.wake(0, &mut waiting);
    assert!(numbers(&gone_on).contains(&(3, Err("queue_timeout;policy=q"))), "{gone_on:?}");
    assert!(numbers(&gone_on).contains(&(7, Ok(()))), "{gone_on:?}");
    // The policy whose place it has kept finds that its time is over.
    let deadline =
        configuration.replacen(r#""load_shedding": {"#, r#""load_shedding": {"deadline": {"header": "x-left"}, "#, 1);
    let (mut proxy, mut waiting, c) = about_to_enter(&deadline, "100");
    proxy.advance(100 * MS);
    proxy.answer(c, &ok());
    let gone_on = proxy.wake(0, &mut waiting);
    assert_eq!(numbers(&gone_on), [(3, Err("overloaded;policy=p;cause=deadline")), (6, Ok(()))]);
}

/// Those of both passed by all who waited for `q` only, with every turn they had in `p`: of these nobody was served. So it was
/// over several workers too where there were one or two places.
#[test]
fn whoever_waits_for_one_policy_has_its_turn_among_those_that_come_from_another() {
    let places = [(1, 2), (2, 1), (2, 2), (2, 8), (4, 1), (4, 2)];
    let orders = [["p", "q"], ["q", "p"]];
    for (order, (workers, limit)) in orders.into_iter().flat_map(|order| places.map(|places| (order, places))) {
        let queue = r#""max_wait": "300ms", "order": "fifo""#;
        let mut proxy = Workers::new(workers, &in_order(order, limit, queue));
        let (mut waiting, mut flying) = (Vec::new(), VecDeque::new());
        let (mut served, mut late) = ([0, 0], [0, 0]);
        let mut of_both = BTreeSet::new();
        // Five milliseconds for each place: 200 a second. 250 a second need both, and 100 only `q`, at the last worker.
        for step in 0..4_000 {
            let comes = [(step % 4 == 0, 0, BOTH), (step % 10 == 5, workers - 1, Q)];
            for (_, worker, headers) in comes.into_iter().filter(|(comes, ..)| *comes) {
                let asked = proxy.ask(worker, headers).unwrap();
                if headers == BOTH {
                    of_both.insert(asked.stream());
                }
                waiting.push(asked);
            }
            while flying.front().is_some_and(|(end, _)| *end <= proxy.now) {
                proxy.answer(flying.pop_front().unwrap().1, &ok());
            }
            let mut entered: Vec<_> = waiting.extract_if(.., |one: &mut Admitted| !one.queued).map(Ok).collect();
            for worker in 0..workers {
                for (number, what) in proxy.wake(worker, &mut waiting) {
                    entered.push(what.map_err(|_| number));
                }
            }
            for what in entered {
                let number = what.as_ref().map_or_else(|number| *number, Admitted::stream);
                let kind = usize::from(!of_both.contains(&number));
                if let Ok(one) = what {
                    served[kind] += 1;
                    flying.push_back((proxy.now + 5 * u64::from(limit) * MS, one));
                } else {
                    late[kind] += 1;
                }
            }
            proxy.advance(MS);
        }
        let report = format!(
            "{order:?}, {workers} workers, limit {limit}: of both and of q alone {served:?} served, {late:?} late"
        );
        println!("{report}");
        assert!(served[0] + served[1] > 700, "places were idle: {report}");
        assert!(served[0] > 400 && served[1] > 200, "{report}");
    }
}

/// It displaced another from the queue, and had itself waited for longer than that queue bears: both were lost.
#[test]
fn who_has_waited_for_too_long_elsewhere_displaces_nobody() {
    let levels = r#""priority": {"levels": [{"name": "high", "match": {"headers": [{"name": "x-p", "present": true}]}},
        {"name": "low"}], "default": "low"}, "#;
    let patient = two(1, r#""max_wait": "10s", "order": "fifo""#);
    let (p, q) = patient.split_at(patient.rfind(r#""limit": {"#).unwrap());
    let q = q.replace("10s", "100ms").replace(r#""max_length": 500"#, r#""max_length": 1"#);
    let mut proxy = Workers::new(1, &format!("{p}{levels}{q}"));
    let of_p = proxy.ask(0, P).unwrap();
    let mut waiting = vec![proxy.ask(0, BOTH).unwrap()];
    proxy.advance(150 * MS);
    let _of_q = proxy.ask(0, Q).unwrap();
    waiting.push(proxy.ask(0, Q).unwrap());
    proxy.answer(of_p, &ok());
    assert_eq!(numbers(&proxy.wake(0, &mut waiting)), [(2, Err("queue_timeout;policy=q"))]);
    assert_eq!(waiting.len(), 1, "the other goes on waiting");
}

/// An update turns the order of the policies round, and reaches one worker first: one request held a place of `p` and waited for
/// `q`, another the other way round, until both had waited for too long.
#[test]
fn no_two_wait_for_each_other_while_an_update_reorders_policies() {
    let queue = r#""max_wait": "5s", "order": "fifo""#;
    let mut proxy = Workers::new(2, &two(1, queue));
    proxy.reconfigure_one(1, &in_order(["q", "p"], 1, queue));
    let [mut of_p, mut of_q] = [P, Q].map(|headers| Some(proxy.ask(0, headers).unwrap()));
    let mut waiting = [BOTH, BOTH].into_iter().enumerate().map(|(at, both)| proxy.ask(at, both).unwrap()).collect();
    // Over and over a place comes free, is taken again by somebody else, and the other one comes free.
    let (begun, mut gone_on) = (proxy.now, Vec::new());
    for step in 0..40 {
        let (one, headers) = if step % 2 == 0 { (&mut of_p, P) } else { (&mut of_q, Q) };
        if let Some(done) = one.take() {
            proxy.answer(done, &ok());
        }
        for worker in [step / 2 % 2, 1 - step / 2 % 2] {
            gone_on.extend(proxy.wake(worker, &mut waiting));
        }
        let again = proxy.ask(0, headers).unwrap();
        if again.queued {
            proxy.answer(again, &Answer::none(LEFT));
        } else {
            *one = Some(again);
        }
        proxy.advance(10 * MS);
    }
    assert!(proxy.now - begun < SECOND);
    assert!(!gone_on.is_empty() && gone_on.iter().all(|(_, what)| what.is_ok()), "{gone_on:?}");
}
