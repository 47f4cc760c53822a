//! Who may enter: exact over workers, by level, by key, and whatever becomes of a worker.

use tidegate::control::Nanos;
use tidegate::control::concurrency::{Algorithm, Bounds, ConcurrencyLimits, Ended, Place, Settings, Share, SlotId};
use tidegate::engine::SplitMix64;
use tidegate::share::{Memory, SharedState};

use super::sim::{MS, SECOND};

const START: Nanos = 1_000 * SECOND;

fn fixed(limit: u32) -> Settings {
    Settings { algorithm: Algorithm::Fixed(limit), max_keys: 0, measure: false, levels: false }
}

fn open(share: &Memory, settings: Settings) -> ConcurrencyLimits {
    ConcurrencyLimits::new(settings, share, "test", "inflight").unwrap()
}

fn enter(worker: &mut ConcurrencyLimits, share: &Memory, seed: u64) -> Option<Place> {
    worker.acquire(share, SlotId::ONLY, Share::ALL, START, &mut SplitMix64::new(seed))
}

fn leave(worker: &mut ConcurrencyLimits, share: &Memory, place: Place) {
    worker.release(share, place, Ended::Success, 20 * MS, START, &mut SplitMix64::new(0));
}

fn inflight(share: &Memory) -> i64 {
    share.read(share.cell("inflight").unwrap())
}

#[test]
fn admits_up_to_the_limit_over_all_workers_and_again_after_release() {
    let share = Memory::new();
    let mut workers: Vec<_> = (0..4).map(|_| open(&share, fixed(10))).collect();
    let mut places = Vec::new();
    for turn in 0..40 {
        places.extend(enter(&mut workers[turn % 4], &share, turn as u64 % 4));
    }
    assert_eq!(places.len(), 10);
    leave(&mut workers[0], &share, places.pop().unwrap());
    assert!(enter(&mut workers[3], &share, 3).is_some());
    assert!(enter(&mut workers[2], &share, 2).is_none());
}

#[cfg(not(target_family = "wasm"))]
#[test]
fn threads_that_race_for_the_last_places_never_pass_the_limit_and_leave_zero() {
    use std::sync::atomic::{AtomicI64, Ordering};
    let share = Memory::new();
    let peak = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (share, peak) = (share.clone(), &peak);
            scope.spawn(move || {
                let mut worker = open(&share, fixed(3));
                let holders = share.cell("holders").unwrap();
                for _ in 0..2_000 {
                    if let Some(place) = enter(&mut worker, &share, seed) {
                        share.add(holders, 1);
                        peak.fetch_max(share.read(holders), Ordering::SeqCst);
                        share.add(holders, -1);
                        leave(&mut worker, &share, place);
                    }
                }
            });
        }
    });
    assert!((1..=3).contains(&peak.into_inner()));
    assert_eq!(inflight(&share), 0);
}

#[test]
fn a_level_enters_only_below_its_share() {
    let share = Memory::new();
    let mut worker = open(&share, Settings { levels: true, ..fixed(10) });
    let mut enter = |level| worker.acquire(&share, SlotId::ONLY, level, START, &mut SplitMix64::new(0));
    let bulk = (0..20).map_while(|_| enter(Share(7_500))).count();
    // 7 in flight are less than 7.5, 8 are not.
    assert_eq!(bulk, 8);
    let critical = (0..20).map_while(|_| enter(Share::ALL)).count();
    assert_eq!(critical, 2);
}

#[test]
fn a_small_share_of_a_small_limit_is_one() {
    let share = Memory::new();
    let mut worker = open(&share, fixed(3));
    let mut enter = || worker.acquire(&share, SlotId::ONLY, Share(100), START, &mut SplitMix64::new(0));
    assert!(enter().is_some());
    assert!(enter().is_none());
}

#[test]
fn keys_have_limits_of_their_own_and_those_beyond_the_most_share_one() {
    let share = Memory::new();
    let settings = Settings { max_keys: 2, ..fixed(1) };
    let (mut one, mut two) = (open(&share, settings), open(&share, settings));
    let random = &mut SplitMix64::new(0);
    let mut enter = |worker: &mut ConcurrencyLimits, key| {
        let slot = worker.slot(&share, key);
        worker.acquire(&share, slot, Share::ALL, START, random).is_some()
    };
    assert!(enter(&mut one, 11));
    assert!(!enter(&mut two, 11), "the other worker knows");
    assert!(enter(&mut two, 22));
    assert!(enter(&mut one, 33), "the first of those beyond");
    assert!(!enter(&mut two, 44), "the second shares its limit");
    assert_eq!(one.inflight(&share) + two.inflight(&share), 5, "each sees the limits it has used");
}

/// By how much in-flight was changed for workers' deaths.
fn tick_for(workers: &mut [&mut ConcurrencyLimits], share: &Memory, from: Nanos, seconds: u64) -> i64 {
    for step in 0..seconds * 10 {
        for (seed, worker) in workers.iter_mut().enumerate() {
            worker.tick(share, from + step * 100 * MS, &mut SplitMix64::new(seed as u64 + 100));
        }
    }
    workers.iter_mut().map(|worker| worker.take_corrected()).sum()
}

#[test]
fn what_a_dead_worker_held_is_taken_back_once_and_no_more() {
    let share = Memory::new();
    let [mut one, mut two, mut three] = [(); 3].map(|()| open(&share, fixed(10)));
    let kept = enter(&mut one, &share, 1);
    for _ in 0..4 {
        let _ = enter(&mut two, &share, 2);
    }
    tick_for(&mut [&mut one, &mut two, &mut three], &share, START, 2);
    assert_eq!(inflight(&share), 5);
    drop(two);
    // The third has had no traffic, as the proxy's main thread has none.
    let corrected = tick_for(&mut [&mut one, &mut three], &share, START + 2 * SECOND, 10);
    assert_eq!(corrected, -4, "one worker alone takes back");
    assert_eq!(inflight(&share), 1);
    leave(&mut one, &share, kept.unwrap());
    assert_eq!(inflight(&share), 0);
}

/// Its records lay under the name of its settings, where nobody looked once all others had new ones: its places were taken
/// for ever.
#[test]
fn what_a_dead_worker_held_is_taken_back_when_the_limit_has_other_settings_by_then() {
    let share = Memory::new();
    let named = |name: &str, limit| ConcurrencyLimits::new(fixed(limit), &share, name, "inflight").unwrap();
    let [mut dead, mut other] = ["before", "before"].map(|name| named(name, 10));
    let kept = enter(&mut other, &share, 1);
    for _ in 0..4 {
        let _ = enter(&mut dead, &share, 2);
    }
    tick_for(&mut [&mut dead, &mut other], &share, START, 2);
    // An update: its requests serve to their end, and so do those of the one that lives.
    let [mut next, mut of_the_dead] = ["after", "after"].map(|name| named(name, 5));
    let _ = enter(&mut of_the_dead, &share, 3);
    assert!(enter(&mut next, &share, 4).is_none(), "five of five are taken");
    tick_for(&mut [&mut dead, &mut of_the_dead, &mut other, &mut next], &share, START + 2 * SECOND, 2);
    drop((dead, of_the_dead));
    leave(&mut other, &share, kept.unwrap());
    drop(other);
    assert_eq!(inflight(&share), 4);
    assert_eq!(tick_for(&mut [&mut next], &share, START + 4 * SECOND, 10), -4);
    assert_eq!(inflight(&share), 0);
}

#[test]
fn limits_that_only_the_dead_worker_had_seen_are_freed_too() {
    let share = Memory::new();
    let settings = Settings { max_keys: 8, ..fixed(1) };
    let (mut dead, mut other) = (open(&share, settings), open(&share, settings));
    let random = &mut SplitMix64::new(5);
    let slot = dead.slot(&share, 77);
    assert!(dead.acquire(&share, slot, Share::ALL, START, random).is_some());
    tick_for(&mut [&mut dead, &mut other], &share, START, 1);
    drop(dead);
    tick_for(&mut [&mut other], &share, START + SECOND, 10);
    let slot = other.slot(&share, 77);
    assert!(other.acquire(&share, slot, Share::ALL, START, random).is_some());
}

#[test]
fn a_process_that_stood_still_buries_nobody() {
    let share = Memory::new();
    let [mut one, mut two] = [(); 2].map(|()| open(&share, fixed(10)));
    let places = [enter(&mut one, &share, 1), enter(&mut two, &share, 2)];
    tick_for(&mut [&mut one, &mut two], &share, START, 2);
    let corrected = tick_for(&mut [&mut one, &mut two], &share, START + 3_600 * SECOND, 10);
    assert_eq!(corrected, 0);
    assert_eq!(inflight(&share), 2);
    assert_eq!(places.iter().flatten().count(), 2);
}

#[test]
fn a_worker_taken_for_dead_counts_again_when_it_wakes() {
    let share = Memory::new();
    let [mut one, mut sleeper] = [(); 2].map(|()| open(&share, fixed(10)));
    let _kept = enter(&mut one, &share, 1);
    let places: Vec<_> = (0..4).filter_map(|_| enter(&mut sleeper, &share, 2)).collect();
    tick_for(&mut [&mut one, &mut sleeper], &share, START, 1);
    assert_eq!(tick_for(&mut [&mut one], &share, START + SECOND, 10), -4);
    assert_eq!(inflight(&share), 1);
    let mut places = places.into_iter();
    // It wakes, and before its next heartbeat one of its requests ends.
    leave(&mut sleeper, &share, places.next().unwrap());
    tick_for(&mut [&mut one, &mut sleeper], &share, START + 11 * SECOND, 2);
    assert_eq!(inflight(&share), 4);
    places.for_each(|place| leave(&mut sleeper, &share, place));
    assert_eq!(inflight(&share), 1);
}

#[test]
fn a_worker_that_joins_late_goes_by_the_limit_the_others_found() {
    let share = Memory::new();
    let bounds = Bounds { initial: 20, min: 1, max: 1000 };
    let settings = Settings { algorithm: Algorithm::Adaptive(bounds), ..fixed(1) };
    let mut one = open(&share, settings);
    let places: Vec<_> = (0..100).filter_map(|_| enter(&mut one, &share, 1)).collect();
    assert_eq!(places.len(), 100, "a burst finds room");
    let found = one.limit(SlotId::ONLY);
    assert!(found >= 100);
    assert_eq!(open(&share, settings).limit(SlotId::ONLY), found);
}

#[test]
fn the_usual_latency_is_that_of_all_workers_and_not_of_quick_failures() {
    let share = Memory::new();
    let settings = Settings { measure: true, ..fixed(100) };
    let mut workers = [open(&share, settings), open(&share, settings)];
    let random = &mut SplitMix64::new(0);
    assert_eq!(workers[0].usual_latency(SlotId::ONLY), None);
    for step in 0..400 {
        let now = START + step * 10 * MS;
        for (worker, took) in workers.iter_mut().zip([20 * MS, 40 * MS]) {
            for (ended, took) in [(Ended::Success, took), (Ended::Failure, MS), (Ended::Ignored, MS)] {
                let place = worker.acquire(&share, SlotId::ONLY, Share::ALL, now, random).unwrap();
                // The first failures come before anything is known to compare them with.
                let ended = if step < 200 && ended == Ended::Failure { Ended::Ignored } else { ended };
                worker.release(&share, place, ended, took, now, random);
            }
        }
    }
    for worker in &workers {
        assert_eq!(worker.usual_latency(SlotId::ONLY), Some(30 * MS));
    }
}
