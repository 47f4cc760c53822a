//! The bounded queue, on simulated time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use tidegate::control::queue::{Order, Places, Pushed, Queue, Settings, Standing, Waiting, answered_in};
use tidegate::control::{Beat, Nanos};
use tidegate::share::Memory;

const MS: Nanos = 1_000_000;
const START: Nanos = 1_000_000 * MS;

/// Places for all, or none.
struct Free(bool);

fn free() -> Free {
    Free(true)
}

impl Places for Free {
    type Place = ();

    fn free(&mut self, _: usize, places: i64) -> bool {
        self.0 && places == 1
    }

    fn enter(&mut self, _: usize) -> Option<()> {
        Some(())
    }
}

/// A place seems free and is taken by another each time. Who asked.
#[derive(Default)]
struct TooLate(Vec<usize>);

impl Places for TooLate {
    type Place = ();

    fn free(&mut self, _: usize, _: i64) -> bool {
        true
    }

    fn enter(&mut self, level: usize) -> Option<()> {
        self.0.push(level);
        None
    }
}

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
        let request = Waiting { id, level, since: self.now, deadline, called: false };
        self.queue.push(&self.share, 0, request, self.now).unwrap()
    }

    fn pop(&mut self) -> Option<u32> {
        self.queue.pop(&self.share, self.now, &mut free()).map(|(waiting, ())| waiting.id)
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
    let mut places = TooLate::default();
    assert_eq!(bench.queue.pop(&bench.share, bench.now, &mut places), None);
    assert_eq!(places.0, [1], "a less important one is not asked in its stead");
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
        let request = Waiting { id, level: 0, since: bench.now, deadline: Nanos::MAX, called: false };
        other.push(&bench.share, 1, request, bench.now).unwrap()
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
        let patience = bench.queue.patience(0, bench.now);
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
    assert_eq!(bench.queue.patience(0, bench.now), 5 * MS);
    assert_eq!(bench.expire(), [2]);
    assert_eq!(bench.queue.patience(0, bench.now), 100 * MS);
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
            assert_eq!(bench.queue.patience(0, bench.now), 100 * MS, "{order:?}");
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
fn requests_ahead_are_those_that_are_to_be_served_before_wherever_they_wait() {
    for (order, expected) in [(Order::Fifo, [1, 3, 3]), (Order::Lifo, [0, 1, 3])] {
        let mut bench = Bench::new(settings(order));
        let mut other = Queue::new(settings(order), &bench.share, "queue", "length").unwrap();
        for (id, level) in [(1, 0), (2, 1)] {
            bench.push(id, level);
        }
        let request = Waiting { id: 3, level: 1, since: bench.now, deadline: Nanos::MAX, called: false };
        other.push(&bench.share, 1, request, bench.now).unwrap();
        assert_eq!(
            [0, 1, 2].map(|level| bench.queue.ahead(&bench.share, level, Standing::New, bench.now)),
            expected,
            "{order:?}"
        );
    }
    let mut bench = Bench::new(Settings { levels: 1, ..settings(Order::Fifo) });
    bench.push(1, 0);
    assert_eq!(bench.queue.ahead(&bench.share, 0, Standing::New, bench.now), 1);
    let mut bench = Bench::new(Settings { levels: 1, ..settings(Order::Lifo) });
    bench.push(1, 0);
    assert_eq!(bench.queue.ahead(&bench.share, 0, Standing::New, bench.now), 0);
}

/// Two workers' parts of one queue.
fn two(settings: Settings) -> (Memory, [Queue; 2]) {
    let share = Memory::new();
    let queues = [(); 2].map(|()| Queue::new(settings, &share, "queue", "length").unwrap());
    (share, queues)
}

fn wait_at(queues: &mut [Queue; 2], share: &Memory, worker: u32, id: u32, level: usize) {
    let request = Waiting { id, level, since: START, deadline: Nanos::MAX, called: false };
    assert_eq!(queues[worker as usize].push(share, worker, request, START).unwrap(), Pushed::Queued);
}

#[test]
fn a_place_is_left_for_a_more_important_request_that_waits_elsewhere_but_not_for_long() {
    let (share, mut queues) = two(settings(Order::Fifo));
    wait_at(&mut queues, &share, 0, 1, 1);
    wait_at(&mut queues, &share, 1, 2, 0);
    let pop = |queue: &mut Queue, now| queue.pop(&share, now, &mut free()).map(|(it, ())| it.id);
    assert_eq!(pop(&mut queues[0], START), None);
    assert_eq!(pop(&mut queues[0], START + 19 * MS), None);
    assert_eq!(pop(&mut queues[0], START + 20 * MS), Some(1), "the other has lost its turn");
    wait_at(&mut queues, &share, 0, 3, 1);
    assert_eq!(pop(&mut queues[0], START + 20 * MS), None, "the next place is another");
    assert_eq!(pop(&mut queues[1], START + 20 * MS), Some(2));
    assert_eq!(pop(&mut queues[0], START + 20 * MS), Some(3));
}

/// Who goes on at a worker, at each of so many moments of a millisecond, at which there is a place each time.
fn each_ms(queue: &mut Queue, share: &Memory, ms: std::ops::Range<u64>) -> Vec<Option<u32>> {
    ms.map(|ms| queue.pop(share, START + ms * MS, &mut free()).map(|(it, ())| it.id)).collect()
}

#[test]
fn a_worker_that_owes_a_place_leaves_the_next_to_the_others_that_wait() {
    let (share, mut queues) = two(Settings { max_length: 20, ..settings(Order::Fifo) });
    for id in 0..5 {
        wait_at(&mut queues, &share, 0, id, 0);
        wait_at(&mut queues, &share, 1, 10 + id, 0);
    }
    let [here, there] = &mut queues;
    // Half of a place each that goes to one of its own, then a little more, as fewer of them wait.
    let some = |ids: &[u32]| ids.iter().copied().map(Some).collect::<Vec<_>>();
    assert_eq!(each_ms(here, &share, 0..6), [&some(&[0, 1])[..], &[None; 4]].concat());
    // Who does not take it within its turn has lost it, and what was owed is forgotten.
    assert_eq!(each_ms(here, &share, 6..9), [Some(2), Some(3), None]);
    assert_eq!(each_ms(there, &share, 9..11), some(&[10, 11]), "what went to others is less than it is due");
    assert_eq!(each_ms(here, &share, 11..12), some(&[4]), "and what goes to others is paid");
    // Nobody else waits: all places are its own.
    assert_eq!(each_ms(there, &share, 12..15), some(&[12, 13, 14]));
}

#[test]
fn what_went_to_others_while_nobody_waited_here_is_not_due_here() {
    let share = Memory::new();
    let settings = Settings { max_length: 50, levels: 1, ..settings(Order::Fifo) };
    let mut queues = [(); 3].map(|()| Queue::new(settings, &share, "queue", "length").unwrap());
    let mut wait_at = |worker: usize, id| {
        let request = Waiting { id, level: 0, since: START, deadline: Nanos::MAX, called: false };
        queues[worker].push(&share, worker as u32, request, START).unwrap();
    };
    (0..20).for_each(|id| wait_at(id % 2, id as u32));
    assert!(each_ms(&mut queues[0], &share, 0..40).iter().flatten().count() >= 8, "turns that are lost");
    let request = |id| Waiting { id, level: 0, since: START, deadline: Nanos::MAX, called: false };
    for id in 20..26 {
        queues[2].push(&share, 2, request(id), START).unwrap();
    }
    // With what is owed to it at most it would take four and more.
    let taken = each_ms(&mut queues[2], &share, 40..44);
    assert_eq!(taken.iter().flatten().count(), 2, "{taken:?}");
}

#[test]
fn who_goes_first_here_does_not_take_what_is_owed_to_others() {
    for (order, standing) in [(Order::Lifo, Standing::New), (Order::Fifo, Standing::Called(START))] {
        let (share, mut queues) = two(Settings { max_length: 20, ..settings(order) });
        for id in 0..4 {
            wait_at(&mut queues, &share, 0, id, 0);
            wait_at(&mut queues, &share, 1, 10 + id, 0);
        }
        assert_eq!(queues[0].ahead(&share, 0, standing, START), 0);
        assert_eq!(each_ms(&mut queues[0], &share, 0..3).iter().flatten().count(), 2);
        assert_eq!(queues[0].ahead(&share, 0, standing, START), 4, "{order:?}");
        assert_eq!(queues[1].ahead(&share, 0, standing, START), 0, "to whom it is owed");
    }
}

#[test]
fn what_is_owed_at_one_level_is_not_owed_at_another() {
    let (share, mut queues) = two(Settings { max_length: 20, ..settings(Order::Fifo) });
    for id in 0..4 {
        wait_at(&mut queues, &share, 0, id, 0);
        wait_at(&mut queues, &share, 0, 20 + id, 1);
        wait_at(&mut queues, &share, 1, 10 + id, 0);
    }
    let [here, there] = &mut queues;
    assert_eq!(each_ms(here, &share, 0..3), [Some(0), Some(1), None]);
    for id in [0, 1, 2, 3, 10, 11, 12, 13] {
        let _ = here.remove(&share, id, START) || there.remove(&share, id, START);
    }
    let low = Waiting { id: 30, level: 1, since: START, deadline: Nanos::MAX, called: false };
    assert_eq!(there.push(&share, 1, low, START).unwrap(), Pushed::Queued);
    assert_eq!(each_ms(here, &share, 3..4), [Some(20)]);
}

/// A worker whose VM has died takes no place, and its requests count as waiting for some seconds.
#[test]
fn places_that_nobody_takes_are_left_more_and_more_seldom() {
    // How many of those that wait here are served in a second, in which there is always a place; the other worker's level.
    let served = |level: usize, others: &dyn Fn(u64, &mut Queue, &Memory)| {
        let (share, mut queues) = two(Settings { max_length: 10_000, max_wait: 10_000 * MS, ..settings(Order::Fifo) });
        for id in 0..2_000 {
            wait_at(&mut queues, &share, 0, id, 1);
            wait_at(&mut queues, &share, 1, 10_000 + id, level);
        }
        let [here, there] = &mut queues;
        let each = |ms| {
            others(ms, there, &share);
            usize::from(here.pop(&share, START + ms * MS, &mut free()).is_some())
        };
        (0..1_000).map(each).sum::<usize>()
    };
    let nobody = |_: u64, _: &mut Queue, _: &Memory| {};
    // It used to be 200, and 47.
    assert_eq!((served(1, &nobody), served(0, &nobody)), (864, 415));
    // The control: while more and more come to wait there each place is left to them for as long as before.
    let more = |ms: u64, there: &mut Queue, share: &Memory| {
        let request = Waiting { id: 20_000 + ms as u32, level: 0, since: START, deadline: Nanos::MAX, called: false };
        there.push(share, 1, request, START).unwrap();
    };
    assert_eq!(served(0, &more), 47);
}

#[test]
fn who_takes_a_place_that_was_left_is_left_the_next_again() {
    let (share, mut queues) = two(settings(Order::Fifo));
    wait_at(&mut queues, &share, 0, 1, 1);
    wait_at(&mut queues, &share, 1, 2, 0);
    let mut now = START;
    let [here, _] = &mut queues;
    // Taken at once as many as there are between one that is left and the next, after each turn that was lost.
    let at_once = |here: &mut Queue, now: &mut Nanos| {
        let mut taken = 0;
        while let Some((waiting, ())) = here.pop(&share, *now, &mut free()) {
            here.push(&share, 0, Waiting { since: *now, ..waiting }, *now).unwrap();
            taken += 1;
        }
        *now += 20 * MS;
        taken
    };
    assert_eq!([(); 7].map(|()| at_once(here, &mut now)), [0, 1, 2, 4, 8, 16, 16]);
    // Somebody took the one that is left now.
    assert!(here.pop(&share, now, &mut Free(false)).is_none());
    assert_eq!([(); 4].map(|()| at_once(here, &mut now)), [0, 1, 2, 4]);
}

#[test]
fn who_finds_no_place_free_has_not_yielded() {
    let (share, mut queues) = two(settings(Order::Fifo));
    wait_at(&mut queues, &share, 0, 1, 1);
    wait_at(&mut queues, &share, 1, 2, 0);
    for ms in 0..100 {
        assert!(queues[0].pop(&share, START + ms * MS, &mut Free(false)).is_none());
    }
    assert!(queues[0].pop(&share, START + 100 * MS, &mut free()).is_none(), "its turn begins now");
}

#[test]
fn the_time_to_an_answer_is_the_wait_and_the_work() {
    assert_eq!(answered_in(3, Some(10 * MS), Some(20 * MS)), 50 * MS);
    assert_eq!(answered_in(-1, Some(10 * MS), Some(20 * MS)), 20 * MS, "a count that others are changing");
    assert_eq!(answered_in(5, None, None), 0, "what is not known takes no time");
    assert_eq!(answered_in(i64::MAX, Some(Nanos::MAX), Some(1)), Nanos::MAX, "and what is endless does not wrap");
}

#[test]
fn who_is_called_goes_first_within_its_level_and_who_came_earlier_before_those_who_came_later() {
    for (order, expected) in [(Order::Fifo, [2, 3, 4, 1]), (Order::Lifo, [2, 3, 1, 4])] {
        let mut bench = Bench::new(settings(order));
        bench.wait(10);
        bench.push(1, 1);
        let mut push = |id, level, since, called| {
            let request = Waiting { id, level, since, deadline: Nanos::MAX, called };
            assert_eq!(bench.queue.push(&bench.share, 0, request, bench.now).unwrap(), Pushed::Queued);
        };
        push(3, 1, START + 5 * MS, true);
        push(4, 1, START, false);
        push(2, 0, START + 10 * MS, false);
        assert_eq!([(); 4].map(|()| bench.pop().unwrap()), expected, "{order:?}");
    }
}

#[test]
fn who_is_called_finds_room_among_its_own_level_and_is_not_displaced() {
    for order in [Order::Fifo, Order::Lifo] {
        let mut bench = Bench::new(settings(order));
        let called = |id, level| Waiting { id, level, since: START, deadline: Nanos::MAX, called: true };
        for request in [called(1, 2), called(2, 2), called(3, 1)] {
            assert_eq!(bench.queue.push(&bench.share, 0, request, START).unwrap(), Pushed::Queued);
        }
        bench.push(4, 2);
        assert_eq!(bench.push(5, 2), Pushed::Full);
        let Pushed::Displaced(gone) = bench.queue.push(&bench.share, 0, called(6, 2), START).unwrap() else {
            panic!("{order:?}: not displaced")
        };
        assert_eq!(gone.id, 4);
        assert_eq!(bench.queue.push(&bench.share, 0, called(7, 2), START).unwrap(), Pushed::Full);
        assert_eq!(bench.push(8, 0), Pushed::Full, "who was called is never displaced");
        assert_eq!(bench.length(), 4);
    }
}

#[test]
fn a_level_has_the_patience_of_what_goes_before_it_or_with_it() {
    let mut bench = Bench::new(Settings { max_length: 1000, ..settings(Order::AdaptiveLifo) });
    let mut id = 0;
    for step in 0..300 {
        // Some of the second level always wait.
        id += 1;
        bench.push(id, 1);
        bench.wait(1);
        if step % 2 == 1 {
            bench.pop();
        }
        bench.expire();
        let patience = [0, 1, 2].map(|level| bench.queue.patience(level, bench.now));
        let below = if step < 100 { 100 * MS } else { 5 * MS };
        assert_eq!(patience, [100 * MS, below, below], "at {step} ms");
    }
    bench.push(1001, 0);
    bench.wait(1);
    bench.push(1002, 0);
    bench.wait(50);
    assert!(!bench.expire().contains(&1001));
    assert_eq!([bench.pop(), bench.pop()], [Some(1001), Some(1002)], "the oldest first");
}
