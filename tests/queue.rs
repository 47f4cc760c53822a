//! The bounded queue, on simulated time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use tidegate::control::queue::{Order, Pushed, Queue, Settings, Waiting, in_time};
use tidegate::control::{Beat, Nanos};
use tidegate::share::Memory;

const MS: Nanos = 1_000_000;
const START: Nanos = 1_000_000 * MS;

struct Bench {
    share: Memory,
    queue: Queue,
    now: Nanos,
}

fn settings(order: Order) -> Settings {
    Settings { max_length: 4, max_wait: 100 * MS, order, levels: 3 }
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let share = Memory::new();
        let queue = Queue::new(settings, &share, "queue", "length").unwrap();
        Self { share, queue, now: START }
    }

    fn push(&mut self, id: u32, level: usize) -> Pushed {
        self.push_until(id, level, Nanos::MAX)
    }

    fn push_until(&mut self, id: u32, level: usize, deadline: Nanos) -> Pushed {
        let request = Waiting { id, level, since: self.now, deadline };
        self.queue.push(&self.share, 0, request).unwrap()
    }

    fn pop(&mut self) -> Option<u32> {
        self.queue.pop(&self.share, self.now, |_| true).map(|waiting| waiting.id)
    }

    fn expire(&mut self) -> Vec<u32> {
        let mut expired = Vec::new();
        self.queue.expire(&self.share, self.now, &mut expired);
        expired.iter().map(|waiting| waiting.id).collect()
    }

    fn wait(&mut self, ms: u64) {
        self.now += ms * MS;
    }

    fn length(&self) -> i64 {
        self.queue.length(&self.share)
    }
}

#[test]
fn fifo_serves_the_oldest_and_lifo_the_newest() {
    for (order, expected) in [(Order::Fifo, [1, 2, 3]), (Order::Lifo, [3, 2, 1]), (Order::AdaptiveLifo, [1, 2, 3])] {
        let mut bench = Bench::new(settings(order));
        for id in [1, 2, 3] {
            bench.push(id, 0);
            bench.wait(1);
        }
        assert_eq!([(); 3].map(|()| bench.pop().unwrap()), expected, "{order:?}");
        assert_eq!(bench.length(), 0);
    }
}

#[test]
fn a_more_important_level_is_served_first_whatever_the_order() {
    for order in [Order::Fifo, Order::Lifo, Order::AdaptiveLifo] {
        let mut bench = Bench::new(settings(order));
        for (id, level) in [(1, 2), (2, 0), (3, 1)] {
            bench.push(id, level);
        }
        assert_eq!([(); 3].map(|()| bench.pop().unwrap()), [2, 3, 1], "{order:?}");
    }
}

#[test]
fn who_finds_no_place_keeps_its_turn() {
    let mut bench = Bench::new(settings(Order::Fifo));
    bench.push(1, 1);
    bench.push(2, 2);
    let mut asked = Vec::new();
    let refused = bench.queue.pop(&bench.share, bench.now, |level| {
        asked.push(level);
        false
    });
    assert_eq!((refused, asked), (None, vec![1]), "a less important one is not asked in its stead");
    assert_eq!(bench.pop(), Some(1));
}

#[test]
fn a_full_queue_refuses_and_a_more_important_request_displaces_the_least_important() {
    for (order, last) in [(Order::Fifo, 4), (Order::Lifo, 3), (Order::AdaptiveLifo, 4)] {
        let mut bench = Bench::new(settings(order));
        for (id, level) in [(1, 0), (2, 1), (3, 2), (4, 2)] {
            assert_eq!(bench.push(id, level), Pushed::Queued);
        }
        assert_eq!(bench.push(5, 2), Pushed::Full, "as important is not more important");
        let Pushed::Displaced(gone) = bench.push(6, 1) else { panic!("{order:?}: not displaced") };
        assert_eq!(gone.id, last, "{order:?}: the one that would be served last");
        assert_eq!(bench.length(), 4);
    }
}

#[test]
fn the_length_is_bounded_over_all_workers() {
    let mut bench = Bench::new(settings(Order::Fifo));
    let mut other = Queue::new(settings(Order::Fifo), &bench.share, "queue", "length").unwrap();
    for id in 0..3 {
        bench.push(id, 0);
    }
    let mut push = |id| {
        let request = Waiting { id, level: 0, since: bench.now, deadline: Nanos::MAX };
        other.push(&bench.share, 1, request).unwrap()
    };
    assert_eq!(push(3), Pushed::Queued);
    assert_eq!(push(4), Pushed::Full);
}

#[test]
fn a_request_leaves_after_the_longest_wait_or_at_its_deadline() {
    let mut bench = Bench::new(settings(Order::Fifo));
    bench.push_until(1, 0, START + 30 * MS);
    bench.push(2, 0);
    bench.wait(29);
    assert!(bench.expire().is_empty());
    bench.wait(1);
    assert_eq!(bench.expire(), [1]);
    bench.wait(69);
    assert!(bench.expire().is_empty());
    bench.wait(1);
    assert_eq!(bench.expire(), [2]);
    assert_eq!(bench.length(), 0);
}

#[test]
fn one_whose_time_is_over_is_not_served_though_nobody_has_looked() {
    let mut bench = Bench::new(settings(Order::Fifo));
    bench.push(1, 0);
    bench.wait(50);
    bench.push(2, 0);
    bench.wait(50);
    assert_eq!(bench.pop(), Some(2));
    assert_eq!(bench.expire(), [1]);
}

#[test]
fn a_client_that_left_waits_no_more() {
    let mut bench = Bench::new(settings(Order::Fifo));
    bench.push(1, 0);
    bench.push(2, 1);
    assert!(bench.queue.remove(&bench.share, 1, bench.now));
    assert!(!bench.queue.remove(&bench.share, 1, bench.now));
    assert_eq!(bench.length(), 1);
    assert_eq!(bench.pop(), Some(2));
}

// Facebook, "Fail at Scale": patience 5 ms when the queue was last empty more than 100 ms ago, else 100 ms; newest
// first meanwhile.

#[test]
fn a_queue_that_has_not_been_empty_for_the_longest_wait_loses_patience_and_turns_round() {
    let mut bench = Bench::new(Settings { max_length: 1000, ..settings(Order::AdaptiveLifo) });
    // One comes each millisecond, one is served every two: the queue never empties.
    let (mut id, mut served) = (0, Vec::new());
    let mut expired = 0;
    for step in 0..400 {
        id += 1;
        bench.push(id, 0);
        bench.wait(1);
        expired += bench.expire().len();
        if step % 2 == 1 {
            served.push((step, id - bench.pop().unwrap()));
        }
        let patience = bench.queue.patience(bench.now);
        assert_eq!(patience, if step < 100 { 100 * MS } else { 5 * MS }, "at {step} ms");
    }
    for (step, behind) in served {
        let newest = behind == 0;
        assert_eq!(newest, step > 100, "at {step} ms served the one {behind} behind the newest");
    }
    assert!(expired > 150, "those that waited in vain have left: {expired}");
}

#[test]
fn a_queue_that_drains_is_patient_and_fair_again() {
    let mut bench = Bench::new(Settings { max_length: 1000, ..settings(Order::AdaptiveLifo) });
    bench.push(1, 0);
    bench.wait(60);
    bench.push(2, 0);
    bench.wait(39);
    assert_eq!(bench.pop(), Some(1));
    bench.wait(2);
    assert_eq!(bench.queue.patience(bench.now), 5 * MS);
    assert_eq!(bench.expire(), [2]);
    assert_eq!(bench.queue.patience(bench.now), 100 * MS);
    bench.push(3, 0);
    bench.wait(1);
    bench.push(4, 0);
    assert_eq!(bench.pop(), Some(3));
}

#[test]
fn only_adaptive_lifo_gives_up_early() {
    for order in [Order::Fifo, Order::Lifo] {
        let mut bench = Bench::new(settings(order));
        for id in 0..300 {
            bench.push(id, 0);
            bench.wait(1);
            bench.expire();
            assert_eq!(bench.queue.patience(bench.now), 100 * MS, "{order:?}");
        }
    }
}

#[test]
fn what_a_dead_worker_had_waiting_counts_no_more() {
    let mut bench = Bench::new(settings(Order::Fifo));
    bench.push(1, 0);
    bench.push(2, 0);
    let mut other = Queue::new(settings(Order::Fifo), &bench.share, "queue", "length").unwrap();
    other.heed(&bench.share, &Beat { dead: vec![0], rejoined: None }).unwrap();
    assert_eq!(other.length(&bench.share), 0);
}

#[test]
fn requests_ahead_are_those_that_would_be_served_before() {
    for (order, expected) in [(Order::Fifo, [1, 3, 3]), (Order::Lifo, [0, 1, 3])] {
        let mut bench = Bench::new(settings(order));
        for (id, level) in [(1, 0), (2, 1), (3, 1)] {
            bench.push(id, level);
        }
        assert_eq!([0, 1, 2].map(|level| bench.queue.ahead(level, bench.now)), expected, "{order:?}");
    }
}

#[test]
fn what_cannot_be_answered_in_time_is_known_on_arrival() {
    assert!(in_time(50 * MS, 3, Some(10 * MS), Some(20 * MS)));
    assert!(!in_time(50 * MS - 1, 3, Some(10 * MS), Some(20 * MS)));
    assert!(in_time(0, 3, None, None), "what is not known takes no time");
    assert!(!in_time(Nanos::MAX - 1, usize::MAX, Some(Nanos::MAX), Some(1)), "and what is endless does not wrap");
}
