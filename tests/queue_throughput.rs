//! How many are served where work is short and more come than are served, on simulated time: every place that changes
//! hands is idle until the other worker looks.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod places;

use std::collections::BTreeMap;

use tidegate::control::queue::{Order, Places, Queue, Settings, Standing, Waiting};
use tidegate::control::{Nanos, Random};
use tidegate::engine::SplitMix64;
use tidegate::share::Memory;

use places::Limit;

const US: Nanos = 1_000;
const MS: Nanos = 1_000 * US;
const STEP: Nanos = 10 * US;
const START: Nanos = 1_000_000 * MS;

/// What part of the limit's capacity is used, of a second. `rates` are what comes to each worker, in parts of that capacity.
fn used(order: Order, limit: i64, takes: Nanos, rates: &[f64], seed: u64) -> (f64, Vec<u64>) {
    let (share, mut places) = (Memory::new(), Limit(limit, 0));
    let settings = Settings { max_length: 100, max_wait: 100 * MS, order, levels: 1 };
    let mut queues: Vec<_> = rates.iter().map(|_| Queue::new(settings, &share, "queue", "length").unwrap()).collect();
    let mut random = SplitMix64::new(seed);
    let mut draw = |most: Nanos| random.next_u64() % most.max(1);
    let capacity = limit as f64 / takes as f64;
    let mut flying: BTreeMap<(Nanos, u32), usize> = BTreeMap::new();
    let (mut id, mut looks) = (0, vec![START; rates.len()]);
    let mut next: Vec<Nanos> = vec![START; rates.len()];
    let mut served = vec![0; rates.len()];
    let end = START + 1_000 * MS;
    let mut now = START;
    while now < end {
        while let Some(ended) = flying.first_entry().filter(|first| first.key().0 <= now) {
            places.1 -= 1;
            looks[ended.remove()] = now;
        }
        for worker in 0..rates.len() {
            while next[worker] <= now {
                let gap = 1.0 / (rates[worker] * capacity);
                let u = (draw(1 << 30) + 1) as f64 / (1u64 << 30) as f64;
                next[worker] += (-u.ln() * gap) as Nanos + 1;
                id += 1;
                let queue = &mut queues[worker];
                if queue.ahead(&share, 0, Standing::New, now) <= 0 && places.enter(0).is_some() {
                    served[worker] += 1;
                    flying.insert((now + takes / 2 + draw(takes), id), worker);
                } else {
                    let request = Waiting { id, level: 0, since: now, deadline: Nanos::MAX, called: false };
                    queue.push(&share, u32::try_from(worker).unwrap(), request, now).unwrap();
                }
            }
        }
        for at in 0..rates.len() {
            let worker = (at + (now / STEP) as usize) % rates.len();
            if looks[worker] > now {
                continue;
            }
            looks[worker] = now + MS + draw(MS);
            queues[worker].expire(&share, now, &mut Vec::new());
            while let Some((waiting, ())) = queues[worker].pop(&share, now, &mut places) {
                served[worker] += 1;
                flying.insert((now + takes / 2 + draw(takes), waiting.id), worker);
            }
        }
        now += STEP;
    }
    let all: u64 = served.iter().sum();
    (all as f64 / (capacity * (end - START) as f64), served)
}

/// A worker that owed a place left all that came free at it: of work of half a millisecond with the default order a third of what
/// there was room for was served, and of a fifth of one next to nothing.
#[test]
fn nearly_all_places_are_used_where_work_is_shorter_than_the_moment_in_which_a_place_changes_hands() {
    for (takes, least) in [(200 * US, 0.7), (500 * US, 0.9), (5 * MS, 0.9)] {
        for limit in [1, 2, 8, 64] {
            for rates in [&[0.8, 0.8][..], &[1.5, 0.1], &[0.4, 0.4, 0.4, 0.4], &[1.3, 0.1, 0.1, 0.1]] {
                for order in [Order::Fifo, Order::AdaptiveLifo] {
                    let (part, served) = used(order, limit, takes, rates, 1);
                    let what = format!("{} us, limit {limit}, {order:?}, {rates:?}: {part:.2}, {served:?}", takes / US);
                    println!("{what}");
                    assert!(part >= least, "{what}");
                }
            }
        }
    }
}
