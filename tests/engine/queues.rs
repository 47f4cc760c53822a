//! Requests that wait for a place, on several simulated workers: who goes next, who waits in vain, and that nobody who is
//! gone leaves anything behind.

use super::workers::{Admitted, Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MS: u64 = SECOND / 1000;
const INFLIGHT: &str = "tidegate_inflight.policy.p";
const LENGTH: &str = "tidegate_queue_length.policy.p";
/// `response.flags` of a client that left.
const LEFT: u64 = 1 << 14;

const LEVELS: &str = r#""priority": {"levels": [
    {"name": "critical", "match": {"headers": [{"name": "x-level", "exact": "critical"}]}},
    {"name": "normal"},
    {"name": "batch", "match": {"headers": [{"name": "x-level", "exact": "batch"}]}, "share": 50}],
    "default": "normal"}"#;

const CRITICAL: &[(&str, &str)] = &[("x-level", "critical")];
const NORMAL: &[(&str, &str)] = &[];
const BATCH: &[(&str, &str)] = &[("x-level", "batch")];

fn ok() -> Answer {
    Answer::status("200")
}

/// Load shedding with so many places, this queue, and whatever `more` adds to it.
fn queued(limit: u32, queue: &str, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    format!(
        r#"{{"policies": [{{"name": "p", "load_shedding": {{
            "limit": {{"algorithm": "fixed", "limit": {limit}}}, "queue": {{{queue}}}{more}}}}}]}}"#
    )
}

fn fifo(limit: u32) -> String {
    queued(limit, r#""order": "fifo", "max_wait": "1s", "max_length": 50"#, "")
}

/// Those of whom something has become, by their numbers.
type Numbered<T> = Vec<(u32, T)>;

/// A proxy, and who waits at it. Requests are numbered from 1 in the order in which they ask.
struct Scene {
    proxy: Workers,
    waiting: Vec<Admitted>,
    asked: u32,
}

impl Scene {
    fn new(workers: usize, configuration: &str) -> Self {
        Self { proxy: Workers::new(workers, configuration), waiting: Vec::new(), asked: 0 }
    }

    /// A request that is admitted at once.
    fn enters(&mut self, worker: usize, headers: &[(&str, &str)]) -> Admitted {
        self.asked += 1;
        let admitted = self.proxy.ask(worker, headers).expect("a place");
        assert!(!admitted.queued, "request {} waits", self.asked);
        admitted
    }

    /// A request that has to wait: its number.
    fn waits(&mut self, worker: usize, headers: &[(&str, &str)]) -> u32 {
        self.asked += 1;
        let waiting = self.proxy.ask(worker, headers).expect("room in the queue");
        assert!(waiting.queued, "request {} does not wait", self.asked);
        self.waiting.push(waiting);
        self.asked
    }

    /// A request that is refused at once: the decision, and after how long it may come again.
    fn refused(&mut self, worker: usize, headers: &[(&str, &str)]) -> (String, Option<String>) {
        self.asked += 1;
        let (reply, line) = self.proxy.ask(worker, headers).expect_err("no place and no room");
        let after = reply.headers.into_iter().find(|(name, _)| name == "retry-after");
        (line, after.map(|(_, seconds)| seconds))
    }

    /// Who goes on at this worker, and who is turned away there.
    fn wake(&mut self, worker: usize) -> (Numbered<Admitted>, Numbered<String>) {
        let (mut entered, mut turned_away) = (Vec::new(), Vec::new());
        for (number, what) in self.proxy.wake(worker, &mut self.waiting) {
            match what {
                Ok(admitted) => entered.push((number, admitted)),
                Err(line) => turned_away.push((number, line)),
            }
        }
        (entered, turned_away)
    }

    fn turned_away(&mut self, worker: usize) -> Numbered<String> {
        let (entered, turned_away) = self.wake(worker);
        assert!(entered.is_empty(), "{entered:?}");
        turned_away
    }

    /// One request after the other ends, each at once, until nobody goes on at this worker any more: in which order they
    /// went.
    fn served(&mut self, worker: usize, first: Admitted) -> Vec<u32> {
        let (mut order, mut held) = (Vec::new(), vec![(0, first)]);
        while let Some((_, done)) = held.pop() {
            self.proxy.answer(done, &ok());
            let (entered, turned_away) = self.wake(worker);
            assert!(turned_away.is_empty(), "{turned_away:?}");
            order.extend(entered.iter().map(|(number, _)| *number));
            held.extend(entered);
        }
        order
    }

    fn idle(&self) {
        assert_eq!((self.proxy.stat(INFLIGHT), self.proxy.stat(LENGTH)), (0, 0));
    }
}

#[test]
fn forty_at_once_are_served_in_order_and_never_more_than_the_limit_over_all_workers() {
    for workers in [1, 2, 4] {
        let mut scene = Scene::new(workers, &fifo(10));
        let mut held: Vec<_> = (0..10).map(|n| scene.enters(n % workers, NORMAL)).collect();
        let waiting: Vec<_> = (10..40).map(|n| (n % workers, scene.waits(n % workers, NORMAL))).collect();
        assert_eq!((scene.proxy.stat(INFLIGHT), scene.proxy.stat(LENGTH)), (10, 30));
        let mut order = vec![Vec::new(); workers];
        while !held.is_empty() {
            scene.proxy.answer(held.remove(0), &ok());
            for (worker, order) in order.iter_mut().enumerate() {
                let (entered, turned_away) = scene.wake(worker);
                assert!(turned_away.is_empty(), "{turned_away:?}");
                order.extend(entered.iter().map(|(number, _)| *number));
                held.extend(entered.into_iter().map(|(_, admitted)| admitted));
            }
            scene.proxy.advance(MS);
            assert!(scene.proxy.stat(INFLIGHT) <= 10);
        }
        for (worker, order) in order.into_iter().enumerate() {
            let expected: Vec<_> = waiting.iter().filter(|(at, _)| *at == worker).map(|(_, number)| *number).collect();
            assert_eq!(order, expected, "worker {worker} of {workers}");
        }
        scene.idle();
    }
    // The control: without a queue ten are served.
    let mut proxy = Workers::new(
        2,
        r#"{"policies": [{"name": "p", "load_shedding": {"limit": {"algorithm": "fixed", "limit": 10}}}]}"#,
    );
    let all: Vec<_> = (0..40).map(|n| proxy.ask(n % 2, NORMAL)).collect();
    assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 10);
}

#[test]
fn who_comes_while_others_wait_does_not_pass_them_by_though_a_place_is_free() {
    let mut scene = Scene::new(2, &fifo(1));
    let first = scene.enters(0, NORMAL);
    let second = scene.waits(1, NORMAL);
    scene.proxy.answer(first, &ok());
    // The place is free, and the one who waits for it has not looked yet.
    let third = scene.waits(1, NORMAL);
    let (mut entered, _) = scene.wake(1);
    let (number, admitted) = entered.pop().expect("its turn");
    assert_eq!(number, second);
    assert_eq!(scene.served(1, admitted), [third]);
    scene.idle();
}

#[test]
fn the_order_says_who_of_one_level_goes_first() {
    for (order, expected) in [("fifo", [2, 3, 4]), ("lifo", [4, 3, 2]), ("adaptive_lifo", [2, 3, 4])] {
        let mut scene = Scene::new(1, &queued(1, &format!(r#""order": "{order}", "max_wait": "1s""#), ""));
        let first = scene.enters(0, NORMAL);
        for _ in 0..3 {
            scene.waits(0, NORMAL);
            scene.proxy.advance(MS);
        }
        assert_eq!(scene.served(0, first), expected, "{order}");
    }
}

#[test]
fn a_queue_that_stands_turns_to_the_newest_and_loses_patience() {
    let mut scene = Scene::new(1, &queued(1, r#""order": "adaptive_lifo", "max_wait": "100ms""#, ""));
    let mut held = scene.enters(0, NORMAL);
    let (mut order, mut late) = (Vec::new(), Vec::new());
    // Twice as many come as are served: for longer than a request may wait somebody always does.
    for _ in 0..10 {
        scene.waits(0, NORMAL);
        scene.waits(0, NORMAL);
        scene.proxy.advance(10 * MS);
        scene.proxy.answer(held, &ok());
        let (mut entered, turned_away) = scene.wake(0);
        late.extend(turned_away);
        let (number, admitted) = entered.pop().expect("somebody waits");
        order.push(number);
        held = admitted;
    }
    assert_eq!(order, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11], "the oldest while it may yet drain");
    assert_eq!(late, []);
    let newest = [scene.waits(0, NORMAL), scene.waits(0, NORMAL)];
    scene.proxy.advance(4 * MS);
    scene.proxy.answer(held, &ok());
    let (mut entered, turned_away) = scene.wake(0);
    let (number, admitted) = entered.pop().expect("somebody waits");
    assert_eq!(number, newest[1]);
    held = admitted;
    assert!(turned_away.len() >= 5, "{turned_away:?}");
    assert!(turned_away.iter().all(|(_, line)| line == "queue_timeout;policy=p"), "{turned_away:?}");
    assert_eq!(scene.proxy.stat(LENGTH), 1);
    assert_eq!(scene.turned_away(0), []);
    // A twentieth of the longest wait is over for the last of them too.
    scene.proxy.advance(MS);
    assert_eq!(scene.turned_away(0), [(newest[0], "queue_timeout;policy=p".to_owned())]);
    // It has drained: patience is back.
    let patient = scene.waits(0, NORMAL);
    scene.proxy.advance(90 * MS);
    assert_eq!(scene.served(0, held), [patient]);
    scene.idle();
}

#[test]
fn levels_are_served_by_their_importance_and_each_enters_within_its_share_only() {
    let mut scene = Scene::new(1, &queued(2, r#""order": "fifo", "max_wait": "1s""#, LEVELS));
    let (first, second) = (scene.enters(0, NORMAL), scene.enters(0, NORMAL));
    let batch = scene.waits(0, BATCH);
    let normal = scene.waits(0, NORMAL);
    let critical = scene.waits(0, CRITICAL);
    scene.proxy.answer(first, &ok());
    let (mut entered, _) = scene.wake(0);
    assert_eq!(entered.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [critical]);
    scene.proxy.answer(second, &ok());
    let (normals, _) = scene.wake(0);
    assert_eq!(normals.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [normal]);
    // One place of two is half the limit: the least important one has to wait until nobody else is in flight.
    scene.proxy.answer(entered.pop().unwrap().1, &ok());
    assert!(scene.wake(0).0.is_empty());
    for (_, admitted) in normals {
        assert_eq!(scene.served(0, admitted), [batch]);
    }
    scene.idle();
}

#[test]
fn a_more_important_request_that_waits_elsewhere_goes_before() {
    let mut scene = Scene::new(2, &queued(1, r#""order": "fifo", "max_wait": "1s""#, LEVELS));
    let first = scene.enters(0, NORMAL);
    let (batch, critical) = (scene.waits(0, BATCH), scene.waits(1, CRITICAL));
    scene.proxy.answer(first, &ok());
    assert!(scene.wake(0).0.is_empty(), "the place is left to the other worker");
    let (mut entered, _) = scene.wake(1);
    let (number, admitted) = entered.pop().expect("its turn");
    assert_eq!(number, critical);
    scene.proxy.answer(admitted, &ok());
    let (entered, _) = scene.wake(0);
    assert_eq!(entered.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [batch]);
}

#[test]
fn a_worker_that_does_not_take_its_turn_loses_it() {
    let mut scene = Scene::new(2, &queued(1, r#""order": "fifo", "max_wait": "1s""#, LEVELS));
    let first = scene.enters(0, NORMAL);
    let batch = scene.waits(0, BATCH);
    scene.waits(1, CRITICAL);
    scene.proxy.answer(first, &ok());
    let mut waited = 0;
    let entered = loop {
        let (entered, _) = scene.wake(0);
        if !entered.is_empty() {
            break entered;
        }
        scene.proxy.advance(MS);
        waited += 1;
        assert!(waited < 100, "a place stays empty");
    };
    assert_eq!(entered.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [batch]);
    assert!(waited >= 4, "{waited} ms");
}

#[test]
fn in_a_full_queue_the_more_important_displaces_the_least_and_nobody_else() {
    let mut scene = Scene::new(1, &queued(1, r#""order": "fifo", "max_wait": "1s", "max_length": 2"#, LEVELS));
    let first = scene.enters(0, NORMAL);
    let (batch, normal) = (scene.waits(0, BATCH), scene.waits(0, NORMAL));
    assert_eq!(scene.refused(0, BATCH).0, "overloaded;policy=p", "the same level gives nobody's place up");
    let critical = scene.waits(0, CRITICAL);
    assert_eq!(scene.turned_away(0), [(batch, "overloaded;policy=p;cause=displaced".to_owned())]);
    assert_eq!(scene.refused(0, NORMAL).0, "overloaded;policy=p");
    let second = scene.waits(0, CRITICAL);
    assert_eq!(scene.turned_away(0), [(normal, "overloaded;policy=p;cause=displaced".to_owned())]);
    assert_eq!(scene.refused(0, CRITICAL).0, "overloaded;policy=p");
    assert_eq!(scene.proxy.stat(LENGTH), 2);
    assert_eq!(scene.served(0, first), [critical, second]);
    scene.idle();
    assert_eq!(scene.proxy.stat("tidegate_requests_total.policy.p.decision.overloaded"), 5);
}

#[test]
fn who_has_waited_for_too_long_is_told_so_and_charged_nothing() {
    let with_rate =
        fifo(1).replace(r#""name": "p","#, r#""name": "p", "rate_limits": [{"name": "r", "rate": "3/h"}],"#);
    let mut scene = Scene::new(2, &with_rate);
    let first = scene.enters(0, NORMAL);
    let late = scene.waits(1, NORMAL);
    scene.proxy.advance(SECOND - 1);
    assert!(scene.turned_away(1).is_empty());
    scene.proxy.advance(1);
    assert_eq!(scene.turned_away(1), [(late, "queue_timeout;policy=p".to_owned())]);
    assert_eq!(scene.proxy.stat("tidegate_requests_total.policy.p.decision.queue_timeout"), 1);
    assert_eq!(scene.proxy.stat("tidegate_queue_wait_ms"), 1000, "the last sample");
    scene.proxy.answer(first, &ok());
    // Of three tokens one is used: the one who waited in vain has not used the second.
    for _ in 0..2 {
        let admitted = scene.enters(0, NORMAL);
        scene.proxy.answer(admitted, &ok());
    }
    assert_eq!(scene.refused(0, NORMAL).0, "rate_limited;policy=p;limit=r");
    scene.idle();
}

#[test]
fn who_leaves_gives_its_place_in_the_queue_up() {
    let mut scene = Scene::new(2, &queued(1, r#""order": "fifo", "max_wait": "1s", "max_length": 2"#, ""));
    let first = scene.enters(0, NORMAL);
    scene.waits(0, NORMAL);
    let stays = scene.waits(0, NORMAL);
    assert_eq!(scene.refused(1, NORMAL).0, "overloaded;policy=p");
    let gone = scene.waiting.remove(0);
    scene.proxy.answer(gone, &Answer::none(LEFT));
    assert_eq!(scene.proxy.stat(LENGTH), 1);
    let another = scene.waits(0, NORMAL);
    assert_eq!(scene.served(0, first), [stays, another]);
    assert_eq!(scene.proxy.stat("tidegate_requests_total.policy.p.decision.admitted"), 3);
    scene.idle();
}

#[test]
fn a_displaced_request_whose_client_leaves_before_it_is_told_is_forgotten() {
    let mut scene = Scene::new(1, &queued(1, r#""order": "fifo", "max_wait": "1s", "max_length": 1"#, LEVELS));
    let first = scene.enters(0, NORMAL);
    scene.waits(0, BATCH);
    let critical = scene.waits(0, CRITICAL);
    let displaced = scene.waiting.remove(0);
    scene.proxy.answer(displaced, &Answer::none(LEFT));
    assert_eq!(scene.proxy.stat(LENGTH), 1);
    assert_eq!(scene.served(0, first), [critical]);
    scene.idle();
}

#[test]
fn what_cannot_be_answered_in_the_time_it_has_left_is_rejected_on_arrival() {
    let deadline = r#""deadline": {"header": "x-request-timeout-ms"}"#;
    let mut scene = Scene::new(1, &queued(1, r#""order": "fifo", "max_wait": "10s", "max_length": 50"#, deadline));
    // A tenth of a second each.
    for _ in 0..30 {
        let admitted = scene.enters(0, NORMAL);
        scene.proxy.advance(100 * MS);
        scene.proxy.answer(admitted, &ok());
        scene.proxy.tick();
    }
    let within = |ms: &'static str| [("x-request-timeout-ms", ms)];
    let first = scene.enters(0, &within("50"));
    assert_eq!(scene.refused(0, &within("50")).0, "overloaded;policy=p;cause=deadline");
    assert_eq!(scene.refused(0, &within("150")).0, "overloaded;policy=p;cause=deadline", "it has to wait first");
    let second = scene.waits(0, &within("250"));
    // With two to be served before it.
    let (line, after) = scene.refused(0, &within("250"));
    assert_eq!((line.as_str(), after.as_deref()), ("overloaded;policy=p;cause=deadline", Some("1")));
    let third = scene.waits(0, &within("350"));
    // Whoever says nothing waits as long as anybody may; so does a header that is no number.
    let (fourth, fifth) = (scene.waits(0, NORMAL), scene.waits(0, &within("soon")));
    // The place is held for longer than usual: who has no time left leaves the queue.
    scene.proxy.advance(160 * MS);
    assert_eq!(scene.turned_away(0), [(second, "queue_timeout;policy=p".to_owned())]);
    assert_eq!(scene.served(0, first), [third, fourth, fifth]);
    scene.idle();
}

/// While anything at all was in flight, say a stream, requests with too little time were refused for as long as it lasted,
/// whatever the upstream could do by then.
#[test]
fn what_was_usual_once_keeps_nobody_out_for_good() {
    let deadline = r#""deadline": {"header": "x-request-timeout-ms"}"#;
    let config = format!(
        r#"{{"policies": [{{"name": "p", "load_shedding": {{
            "limit": {{"algorithm": "fixed", "limit": 50}}, {deadline}}}}}]}}"#
    );
    let second = [("x-request-timeout-ms", "1000")];
    // How many of ten a second are let in over ten seconds, the upstream taking so long now.
    let admitted = |takes: u64, ends: &dyn Fn() -> Answer| {
        let mut scene = Scene::new(2, &config);
        let _stream = scene.enters(0, NORMAL);
        for turn in 0..30 {
            let slow = scene.enters(turn % 2, NORMAL);
            scene.proxy.advance(2 * SECOND);
            scene.proxy.answer(slow, &ok());
            scene.proxy.tick();
        }
        let (mut seconds, mut under_way) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let mut admitted = 0;
            for turn in 0..10 {
                match scene.proxy.ask(turn % 2, &second) {
                    Ok(request) => {
                        admitted += 1;
                        under_way.push((scene.proxy.now + takes, request));
                    }
                    Err((_, line)) => assert_eq!(line, "overloaded;policy=p;cause=deadline"),
                }
                scene.proxy.advance(100 * MS);
                let now = scene.proxy.now;
                for (_, request) in under_way.extract_if(.., |(end, _)| *end <= now) {
                    scene.proxy.answer(request, &ends());
                }
                scene.proxy.tick();
            }
            seconds.push(admitted);
        }
        seconds
    };
    let well = admitted(100 * MS, &ok);
    assert!(well[0] < 10 && well[3..].iter().all(|admitted| *admitted == 10), "{well:?}");
    // The control: who takes too long still is tried now and then, and nobody else is let in.
    let slow = admitted(SECOND, &|| Answer::none(LEFT));
    assert!(slow[3..].iter().all(|admitted| (1..=2).contains(admitted)), "{slow:?}");
}

#[test]
fn each_value_of_the_key_has_places_and_a_queue_of_its_own() {
    let key = r#""key": [{"header": "x-tenant"}]"#;
    let mut scene = Scene::new(2, &queued(1, r#""order": "fifo", "max_wait": "1s", "max_length": 1"#, key));
    let (a, b) = ([("x-tenant", "a")], [("x-tenant", "b")]);
    let (first_of_a, first_of_b) = (scene.enters(0, &a), scene.enters(0, &b));
    let second_of_a = scene.waits(0, &a);
    assert_eq!(scene.refused(1, &a).0, "overloaded;policy=p");
    let second_of_b = scene.waits(0, &b);
    // Without a tenant they have one together.
    let of_none = scene.enters(0, NORMAL);
    assert_eq!(scene.served(0, first_of_b), [second_of_b], "the place of one is of no use to the other");
    assert_eq!(scene.served(0, first_of_a), [second_of_a]);
    scene.proxy.answer(of_none, &ok());
    scene.idle();
}

#[test]
fn what_a_dead_worker_held_and_who_waited_there_is_forgotten_by_the_others() {
    for (key, headers) in [("", NORMAL), (r#""key": [{"header": "x-tenant"}]"#, &[("x-tenant", "a")] as &[_])] {
        let configuration = queued(2, r#""order": "fifo", "max_wait": "60s", "max_length": 4"#, key);
        let mut scene = Scene::new(3, &configuration);
        let lost = [scene.enters(0, headers), scene.enters(0, headers)];
        let here = scene.waits(1, headers);
        for _ in 0..3 {
            scene.waits(0, headers);
        }
        assert_eq!(scene.refused(2, headers).0, "overloaded;policy=p", "the queue is full");
        assert_eq!((scene.proxy.stat(INFLIGHT), scene.proxy.stat(LENGTH)), (2, 4));
        scene.proxy.kill(0, &configuration);
        drop(lost);
        scene.waiting.truncate(1);
        for _ in 0..4 {
            scene.proxy.advance(SECOND / 2);
            scene.proxy.tick();
        }
        assert!(scene.wake(1).0.is_empty(), "it might only be asleep");
        for _ in 0..8 {
            scene.proxy.advance(SECOND / 2);
            scene.proxy.tick();
        }
        assert_eq!((scene.proxy.stat(INFLIGHT), scene.proxy.stat(LENGTH)), (0, 1), "{key}");
        let (mut entered, _) = scene.wake(1);
        let (number, admitted) = entered.pop().expect("its turn has come");
        assert_eq!(number, here);
        // The queue has all of its room again, at every worker.
        let second = scene.enters(0, headers);
        for worker in [0, 1, 2, 2] {
            scene.waits(worker, headers);
        }
        assert_eq!(scene.refused(0, headers).0, "overloaded;policy=p");
        for gone in std::mem::take(&mut scene.waiting) {
            scene.proxy.answer(gone, &Answer::none(LEFT));
        }
        scene.proxy.answer(admitted, &ok());
        scene.proxy.answer(second, &ok());
        scene.idle();
    }
}

#[test]
fn requests_that_a_rate_limit_held_at_a_dead_worker_do_not_count_as_waiting_for_ever() {
    let configuration = fifo(10).replace(
        r#""name": "p","#,
        r#""name": "p", "rate_limits": [{"name": "r", "rate": "1/s", "burst": 1, "pace": {"max_wait": "60s"}}],"#,
    );
    let mut proxy = Workers::new(2, &configuration);
    let held: Vec<_> = (0..3).map(|_| proxy.ask(0, NORMAL).unwrap()).collect();
    assert_eq!((proxy.stat(INFLIGHT), proxy.stat(LENGTH)), (1, 2));
    proxy.kill(0, &configuration);
    drop(held);
    for _ in 0..12 {
        proxy.advance(SECOND / 2);
        proxy.tick();
    }
    assert_eq!((proxy.stat(INFLIGHT), proxy.stat(LENGTH)), (0, 0));
}

#[test]
fn the_breaker_that_opened_meanwhile_has_the_last_word() {
    let with_breaker = fifo(1).replace(
        r#""name": "p","#,
        r#""name": "p", "circuit_breaker": {"minimum_calls": 1, "failure_rate_threshold": 100},"#,
    );
    let mut scene = Scene::new(1, &with_breaker);
    let first = scene.enters(0, NORMAL);
    let second = scene.waits(0, NORMAL);
    scene.proxy.answer(first, &Answer::status("500"));
    let (entered, turned_away) = scene.wake(0);
    assert!(entered.is_empty(), "{entered:?}");
    assert_eq!(turned_away, [(second, "circuit_open;policy=p;trip=failure_rate".to_owned())]);
    scene.idle();
}

#[test]
fn a_queue_in_shadow_holds_nobody_and_where_nobody_can_be_held_it_rejects() {
    let shadow = fifo(1).replace(r#""name": "p","#, r#""name": "p", "mode": "shadow","#);
    let mut scene = Scene::new(1, &shadow);
    let (first, second) = (scene.enters(0, NORMAL), scene.enters(0, NORMAL));
    assert_eq!((first.shadow.as_deref(), second.shadow.as_deref()), (None, Some("shadow_overloaded;policy=p")));
    for admitted in [first, second] {
        scene.proxy.answer(admitted, &ok());
    }
    scene.idle();

    let mut scene = Scene::new(1, &fifo(1));
    scene.proxy.may_wait = false;
    let first = scene.enters(0, NORMAL);
    assert_eq!(scene.refused(0, NORMAL).0, "overloaded;policy=p");
    scene.proxy.answer(first, &ok());
    scene.idle();
}

#[test]
fn a_place_released_with_the_headers_is_for_the_next_while_the_body_goes_on() {
    for (release, expected) in [("headers", Some(2)), ("end", None)] {
        let more = format!(r#""release": "{release}""#);
        let mut scene = Scene::new(1, &queued(1, r#""order": "fifo", "max_wait": "1s""#, &more));
        let mut first = scene.enters(0, NORMAL);
        scene.waits(0, NORMAL);
        scene.proxy.start_answer(&mut first, &ok());
        let (entered, _) = scene.wake(0);
        assert_eq!(entered.first().map(|(number, _)| *number), expected, "{release}");
        scene.proxy.answer(first, &ok());
        for (_, admitted) in entered.into_iter().chain(scene.wake(0).0) {
            scene.proxy.answer(admitted, &ok());
        }
        scene.idle();
    }
}
