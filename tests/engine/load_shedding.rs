//! Concurrency limits that are found, on several simulated workers: that they are, and what they learn from.

use std::collections::VecDeque;

use super::workers::{Admitted, Answer, SECOND, Workers};

const MILLI: u64 = SECOND / 1000;
const LIMIT: &str = "tidegate_concurrency_limit.policy.p";
const INFLIGHT: &str = "tidegate_inflight.policy.p";

fn shedding(limit: &str) -> String {
    format!(r#"{{"policies": [{{"name": "p", "load_shedding": {{"limit": {limit}}}}}]}}"#)
}

/// A load, before an upstream with slots of 20 ms and a queue without end.
#[derive(Default)]
struct Run {
    /// With the time at which they had their places.
    queue: VecDeque<(u64, Admitted)>,
    slots: VecDeque<(u64, u64, Admitted)>,
    /// In the proxy's queue.
    waiting: Vec<Admitted>,
    sent: u64,
    milli: u64,
    rejected: usize,
    /// Answered within 250 ms.
    good: usize,
}

impl Run {
    /// A millisecond, with so many requests a second and so many slots.
    fn milli(&mut self, proxy: &mut Workers, workers: usize, (rate, slots): (u64, usize), answer: &Answer) {
        proxy.advance(MILLI);
        if self.milli.is_multiple_of(500) {
            proxy.tick();
        }
        while self.slots.front().is_some_and(|(until, ..)| *until <= proxy.now) {
            let (_, since, done) = self.slots.pop_front().unwrap();
            proxy.answer(done, answer);
            self.good += usize::from(proxy.now - since <= 250 * MILLI);
        }
        for worker in 0..workers {
            for (_, what) in proxy.wake(worker, &mut self.waiting) {
                match what {
                    Ok(admitted) => self.queue.push_back((proxy.now, admitted)),
                    Err(_) => self.rejected += 1,
                }
            }
        }
        while rate > 0 && self.sent * 1000 <= rate * self.milli {
            self.sent += 1;
            match proxy.ask(self.sent as usize % workers, &[]) {
                Ok(admitted) if admitted.queued => self.waiting.push(admitted),
                Ok(admitted) => self.queue.push_back((proxy.now, admitted)),
                Err(_) => self.rejected += 1,
            }
        }
        while self.slots.len() < slots
            && let Some((since, next)) = self.queue.pop_front()
        {
            self.slots.push_back((proxy.now + 20 * MILLI, since, next));
        }
        self.milli += 1;
    }
}

/// So many requests a second for so many seconds, before ten slots.
fn run(proxy: &mut Workers, workers: usize, rate: u64, seconds: u64, answer: &Answer) -> Run {
    let mut run = Run::default();
    while run.milli < seconds * 1000 || !run.slots.is_empty() {
        let rate = if run.milli < seconds * 1000 { rate } else { 0 };
        run.milli(proxy, workers, (rate, 10), answer);
    }
    run
}

fn good() -> Answer {
    Answer::status("200")
}

#[test]
fn each_algorithm_keeps_an_overloaded_upstream_answering_in_time() {
    for limit in ["{}", r#"{"algorithm": "gradient2"}"#, r#"{"algorithm": "vegas"}"#, r#"{"algorithm": "aimd"}"#] {
        for workers in [1, 2, 4] {
            let mut proxy = Workers::new(workers, &shedding(limit));
            assert_eq!(proxy.stat(LIMIT), 20);
            let Run { good, rejected, .. } = run(&mut proxy, workers, 1200, 8, &good());
            assert!(good >= 3600, "{limit}, {workers} workers: {good} of 4000 in time, {rejected} rejected");
            assert_eq!(proxy.stat(INFLIGHT), 0);
        }
    }
    // The control: nothing bounds what is in flight.
    let mut proxy = Workers::new(2, r#"{"policies": [{"name": "p"}]}"#);
    let collapsed = run(&mut proxy, 2, 1200, 8, &good()).good;
    assert!(collapsed < 1200, "{collapsed} in time");
}

/// Those who came while others waited asked for no place, and a limit that nobody asks for stays: at what it had grown to before the
/// overload was known for one, or at what the upstream once could do.
#[test]
fn a_limit_is_found_though_all_who_come_wait_in_a_queue() {
    for queue in ["", r#", "queue": {"order": "fifo", "max_wait": "200ms", "max_length": 100}"#] {
        for workers in [1, 2, 4] {
            let mut proxy = Workers::new(workers, &shedding(&format!("{{}}{queue}")));
            let mut run = Run::default();
            // Two slots are kept busy by a limit of 2, and how many are good says whether they are.
            for (phase, slots, (low, high)) in [(0, 10, (20, 45)), (1, 2, (2, 15)), (2, 10, (20, 45))] {
                for second in 0..8 {
                    let (before, mut highest) = (run.good, 0);
                    for _ in 0..1000 {
                        run.milli(&mut proxy, workers, (1200, slots), &good());
                        highest = highest.max(proxy.stat(LIMIT));
                    }
                    let (good, capacity) = (run.good - before, slots * 50);
                    let what =
                        format!("{workers} workers, {queue:?}, phase {phase}, second {second}: {highest}, {good} good");
                    println!("{what}");
                    // The first two seconds are for finding out.
                    assert!(second < 2 || (low..=high).contains(&highest), "{what}");
                    assert!(second < 2 || good * 10 >= capacity * 7, "{what}");
                    assert!(second < 5 || good * 10 >= capacity * 9, "{what}");
                }
            }
        }
    }
}

#[test]
fn the_default_limit_rejects_nothing_that_can_be_carried() {
    let mut proxy = Workers::new(2, &shedding("{}"));
    assert_eq!(run(&mut proxy, 2, 250, 10, &good()).rejected, 0);
    assert_eq!(run(&mut proxy, 2, 450, 10, &good()).rejected, 0);
}

#[test]
fn the_limit_told_is_the_one_found_within_its_bounds() {
    let mut proxy = Workers::new(2, &shedding(r#"{"algorithm": "adaptive", "initial": 5, "min": 4, "max": 8}"#));
    assert_eq!(proxy.stat(LIMIT), 5);
    run(&mut proxy, 2, 1200, 3, &good());
    proxy.tick();
    let told = proxy.stat(LIMIT);
    assert!((4..=8).contains(&told) && told != 5, "{told}");
}

#[test]
fn an_upstream_that_asks_for_less_gets_less() {
    let limit = r#"{"algorithm": "aimd", "initial": 100, "max": 100}"#;
    let after = |answer: &Answer| {
        let mut proxy = Workers::new(2, &shedding(limit));
        run(&mut proxy, 2, 400, 6, answer);
        proxy.tick();
        proxy.stat(LIMIT)
    };
    for status in ["429", "503"] {
        assert!(after(&Answer::status(status)) < 90, "{status}");
    }
    // The controls: answers, failures of another kind, and the proxy's own.
    for answer in [good(), Answer::status("500"), Answer::status("503").local()] {
        assert_eq!(after(&answer), 100);
    }
}

#[test]
fn what_a_limit_found_outlives_a_configuration_that_does_not_change_it() {
    let mut proxy = Workers::new(2, &shedding(r#"{"max": 40}"#));
    run(&mut proxy, 2, 1200, 4, &good());
    proxy.tick();
    let found = proxy.stat(LIMIT);
    assert_ne!(found, 20);
    let held = proxy.ask(0, &[]).expect("a place");
    let same = shedding(r#"{"max": 40}"#).replace(r#""name": "p","#, r#""name": "p", "headers": {"reason": false},"#);
    proxy.reconfigure(&same);
    assert_eq!(proxy.stat(LIMIT), found);
    for _ in 0..20 {
        proxy.advance(SECOND / 2);
        proxy.tick();
    }
    assert_eq!(proxy.stat(INFLIGHT), 1, "nobody takes its worker for dead");
    proxy.answer(held, &good());
    assert_eq!(proxy.stat(INFLIGHT), 0);
}

#[test]
fn what_the_last_of_two_hundred_workers_held_is_taken_back_when_it_dies() {
    // 64 were watched: the places of any beyond were lost for good.
    const COUNT: usize = 200;
    let config = r#"{"policies": [{"name": "p", "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1000}}}]}"#;
    let mut proxy = Workers::new(COUNT, config);
    let mut held: Vec<_> = (0..COUNT).map(|worker| proxy.ask(worker, &[]).unwrap()).collect();
    let pass = |proxy: &mut Workers, seconds: u64| {
        for _ in 0..2 * seconds {
            proxy.advance(SECOND / 2);
            proxy.tick();
        }
    };
    pass(&mut proxy, 2);
    proxy.kill(COUNT - 1, config);
    held.truncate(COUNT - 1);
    for request in held {
        proxy.answer(request, &Answer::status("200"));
    }
    assert_eq!(proxy.stat(INFLIGHT), 1, "nobody knows of the death yet");
    pass(&mut proxy, 10);
    assert_eq!(proxy.stat(INFLIGHT), 0);
}
