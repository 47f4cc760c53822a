//! How much of a limit's places each worker has where more come than are served, on simulated time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print their seeds"
)]

mod places;

use std::collections::{BTreeMap, HashMap};

use tidegate::control::queue::{Order, Places, Queue, Settings, Standing, Waiting};
use tidegate::control::{Nanos, Random};
use tidegate::engine::SplitMix64;
use tidegate::share::Memory;

use places::Limit;

const MS: Nanos = 1_000_000;
const STEP: Nanos = MS / 10;
const START: Nanos = 1_000_000 * MS;

/// Requests of one kind: where they come, their level, how many a second at random times, and how long they take on average.
#[derive(Debug, Clone, Copy)]
struct Kind {
    worker: usize,
    level: usize,
    rate: u64,
    takes: Nanos,
}

struct Scene {
    workers: usize,
    order: Order,
    /// How many places there are, by the second.
    limit: fn(u64) -> i64,
    kinds: Vec<Kind>,
}

/// By kind.
#[derive(Debug)]
struct Outcome {
    come: Vec<u64>,
    served: Vec<u64>,
}

impl Outcome {
    /// The least that any of these kinds was served of what it would be were each served by its part of those who come.
    fn fairness(&self, kinds: std::ops::Range<usize>) -> f64 {
        let all = |of: &[u64]| of[kinds.clone()].iter().sum::<u64>() as f64;
        let part = all(&self.served) / all(&self.come);
        kinds.clone().map(|kind| self.served[kind] as f64 / self.come[kind] as f64 / part).fold(f64::MAX, f64::min)
    }
}

const SECONDS: u64 = 20;

fn run(scene: &Scene, seed: u64) -> Outcome {
    let (share, mut limit) = (Memory::new(), Limit(1, 0));
    let settings = Settings { max_length: 500, max_wait: 300 * MS, order: scene.order, levels: 2 };
    let open = |_| Queue::new(settings, &share, "queue", "length").unwrap();
    let mut queues: Vec<_> = (0..scene.workers).map(open).collect();
    let mut random = SplitMix64::new(seed);
    let mut draw = |most: Nanos| random.next_u64() % most.max(1);
    // By when they end: at which worker.
    let mut flying: BTreeMap<(Nanos, u32), usize> = BTreeMap::new();
    let (mut kind_of, mut id, mut looks) = (HashMap::new(), 0, vec![START; scene.workers]);
    let mut outcome = Outcome { come: vec![0; scene.kinds.len()], served: vec![0; scene.kinds.len()] };
    for step in 0..SECONDS * 1_000 * (MS / STEP) {
        let now = START + step * STEP;
        limit.0 = (scene.limit)(step * STEP / (1_000 * MS));
        let mut served = |id: u32, kind: usize, flying: &mut BTreeMap<_, _>, draw: &mut dyn FnMut(Nanos) -> Nanos| {
            let Kind { worker, takes, .. } = scene.kinds[kind];
            outcome.served[kind] += 1;
            flying.insert((now + takes / 2 + draw(takes), id), worker);
        };
        while let Some(ended) = flying.first_entry().filter(|first| first.key().0 <= now) {
            limit.1 -= 1;
            // It looks at once where a place was given back, and every millisecond or two anyhow.
            looks[ended.remove()] = now;
        }
        for (kind, Kind { worker, level, rate, .. }) in scene.kinds.iter().copied().enumerate() {
            if draw(1_000 * MS / STEP) >= rate {
                continue;
            }
            outcome.come[kind] += 1;
            id += 1;
            let queue = &mut queues[worker];
            if queue.ahead(&share, level, Standing::New, now) <= 0 && limit.enter(level).is_some() {
                served(id, kind, &mut flying, &mut draw);
            } else {
                let request = Waiting { id, level, since: now, deadline: Nanos::MAX, called: false };
                // Nothing becomes of those who find it full.
                queue.push(&share, u32::try_from(worker).unwrap(), request, now).unwrap();
                kind_of.insert(id, kind);
            }
        }
        for at in 0..scene.workers {
            // None is always the first.
            let worker = (at + step as usize) % scene.workers;
            if looks[worker] > now {
                continue;
            }
            looks[worker] = now + MS + draw(MS);
            queues[worker].expire(&share, now, &mut Vec::new());
            while let Some((waiting, ())) = queues[worker].pop(&share, now, &mut limit) {
                served(waiting.id, kind_of[&waiting.id], &mut flying, &mut draw);
            }
        }
    }
    outcome
}

/// A kind at each worker, at these rates.
fn kinds(rates: &[u64], level: usize, takes: Nanos) -> Vec<Kind> {
    rates.iter().enumerate().map(|(worker, rate)| Kind { worker, level, rate: *rate, takes }).collect()
}

/// What comes to each worker in a second, in which 200 are served.
const LOADS: [&[u64]; 8] = [
    &[4_000, 200],
    &[175, 175],
    &[250, 100],
    &[343, 7],
    &[88, 88, 87, 87],
    &[280, 35, 23, 12],
    &[300, 10, 10, 10, 5, 5, 5, 5],
    &[44, 44, 44, 44, 44, 43, 43, 44],
];

/// Whoever gave a place back took it again: of two workers one was not served at all with a limit of 1 or 2, and one to which
/// few requests come not with 8.
#[test]
fn each_worker_is_served_by_its_part_of_those_who_come() {
    let limits: [fn(u64) -> i64; 4] = [|_| 1, |_| 2, |_| 8, |_| 50];
    for (limit, rates) in limits.into_iter().flat_map(|limit| LOADS.map(|load| (limit, load))) {
        for (order, seed) in
            [(Order::Fifo, 1), (Order::Fifo, 2), (Order::Lifo, 3), (Order::AdaptiveLifo, 4), (Order::AdaptiveLifo, 5)]
        {
            let places = limit(0);
            let kinds = kinds(rates, 0, places as u64 * 5 * MS);
            let outcome = run(&Scene { workers: rates.len(), order, limit, kinds }, seed);
            let (fairness, all) = (outcome.fairness(0..rates.len()), outcome.served.iter().sum::<u64>());
            println!("limit {places}, {rates:?}, {order:?}, seed {seed}: {fairness:.2}, {all} served");
            assert!(fairness >= 0.6, "{outcome:?}");
            // Nearly all that there is room for: a place that changes hands is idle for a millisecond or so.
            assert!(all >= 200 * SECONDS * 92 / 100, "{outcome:?}");
        }
    }
}

#[test]
fn so_it_is_where_the_limit_changes_and_where_some_take_longer() {
    let mut unlike = kinds(&[250, 100], 0, 10 * MS);
    unlike[1].takes = 40 * MS;
    let changes: fn(u64) -> i64 = |second| [1, 8, 2, 3][second as usize % 4];
    for (limit, kinds) in [(changes, kinds(&[700, 280], 0, 10 * MS)), (|_| 2, unlike)] {
        for seed in 0..5 {
            let outcome = run(&Scene { workers: 2, order: Order::Fifo, limit, kinds: kinds.clone() }, seed);
            println!("seed {seed}: {outcome:?}");
            assert!(outcome.fairness(0..2) >= 0.8, "{outcome:?}");
        }
    }
}

#[test]
fn so_it_is_within_a_level_and_more_important_ones_come_first() {
    for (places, limit) in [(1, (|_| 1) as fn(u64) -> i64), (2, |_| 2), (8, |_| 8)] {
        let takes = places * 5 * MS;
        // The most important take half of what there is.
        let kinds = [kinds(&[20, 80], 0, takes), kinds(&[250, 50], 1, takes)].concat();
        for seed in 0..5 {
            let outcome = run(&Scene { workers: 2, order: Order::Fifo, limit, kinds: kinds.clone() }, seed);
            println!("limit {places}, seed {seed}: {outcome:?}");
            for important in 0..2 {
                assert!(outcome.served[important] * 100 >= outcome.come[important] * 97, "{outcome:?}");
            }
            assert!(outcome.fairness(2..4) >= 0.8, "{outcome:?}");
        }
    }
}

/// Somebody comes to a worker that was quiet, while the only place goes from one to the next of those who always wait at others:
/// how many
/// go before it.
fn before_it(busy: usize, at_each: u32, seed: u64) -> u32 {
    let (share, mut random) = (Memory::new(), SplitMix64::new(seed));
    let settings = Settings { max_length: 5_000, max_wait: Nanos::MAX, order: Order::Fifo, levels: 1 };
    let open = |_| Queue::new(settings, &share, "queue", "length").unwrap();
    let mut queues: Vec<_> = (0..=busy).map(open).collect();
    let wait = |queue: &mut Queue, worker: usize, now| {
        let request = Waiting { id: 0, level: 0, since: now, deadline: Nanos::MAX, called: false };
        queue.push(&share, u32::try_from(worker).unwrap(), request, now).unwrap();
    };
    for (worker, queue) in queues.iter_mut().enumerate().take(busy) {
        (0..at_each).for_each(|_| wait(queue, worker, START));
    }
    let (mut limit, mut now, mut worker) = (Limit(1, 0), START, 0);
    let comes = 50 + random.next_u64() % 50;
    for place in 0..100_000 {
        if place == comes {
            wait(&mut queues[busy], busy, now);
        }
        // First where it was given back, then at any.
        while queues[worker].pop(&share, now, &mut limit).is_none() {
            worker = usize::try_from(random.next_u64()).unwrap() % queues.len();
            now += MS / 2;
        }
        if worker == busy {
            return u32::try_from(place - comes).unwrap();
        }
        wait(&mut queues[worker], worker, now);
        limit.1 -= 1;
        now += 5 * MS;
    }
    u32::MAX
}

#[test]
fn who_comes_to_a_quiet_worker_has_its_turn_before_as_many_as_documented() {
    for (busy, at_each) in [(1, 1), (1, 10), (1, 100), (3, 1), (3, 10), (7, 10)] {
        let most = (0..50).map(|seed| before_it(busy, at_each, seed)).max().unwrap();
        // m (3 s + 1) w/h, with h = 1; of 5 ms two are served in a spell.
        let bound = 7 * busy as u32 * (busy as u32 * at_each + 1);
        println!("{busy} workers with {at_each} each, seeds 0 to 49: {most} before it, of {bound} at most");
        assert!(most < bound);
    }
}
