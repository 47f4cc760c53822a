//! What the limits make of an upstream that refuses everything at once, as one does whose own limit is reached or that has
//! nobody to work: far quicker than work is done, so that there is no latency to go by.

use tidegate::control::concurrency::{Algorithm, Bounds, ConcurrencyLimits, Ended, Settings, Share, SlotId};
use tidegate::engine::SplitMix64;
use tidegate::share::Memory;

use super::sim::{MS, SECOND};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const BOUNDS: Bounds = Bounds { initial: 100, min: 20, max: 1000 };

/// The limit at the end of each second, when the one before has been judged: two seconds of work that takes 20 ms, then requests that all end so after a
/// millisecond; so many requests a second over two workers, one at a time.
fn limits(algorithm: Algorithm, per_second: u64, ended: Ended) -> Vec<u32> {
    let share = Memory::new();
    let settings = Settings { algorithm, max_keys: 0, measure: false, levels: false };
    let mut workers = [(); 2].map(|()| ConcurrencyLimits::new(settings, &share, "test", "inflight").unwrap());
    let random = &mut SplitMix64::new(1);
    let mut limits = Vec::new();
    for second in 0..8 {
        for turn in 0..per_second {
            let now = (1_000 + second) * SECOND + turn * SECOND / per_second;
            let (ended, took) = if second < 2 { (Ended::Success, 20 * MS) } else { (ended, MS) };
            let worker = &mut workers[turn as usize % 2];
            let place = worker.acquire(&share, SlotId::ONLY, Share::ALL, now, random).unwrap();
            worker.release(&share, place, ended, took, now + took, random);
        }
        limits.push(workers[0].limit(SlotId::ONLY));
    }
    limits
}

#[test]
fn aimd_and_vegas_ask_for_less_window_by_window_and_the_others_go_by_latency() {
    for per_second in [1000, 20] {
        let dropped = |algorithm| limits(algorithm, per_second, Ended::Dropped);
        assert_eq!(dropped(Algorithm::Aimd(BOUNDS)), [100, 100, 100, 90, 81, 72, 64, 57], "{per_second}");
        assert_eq!(dropped(Algorithm::Vegas(BOUNDS)), [100, 100, 100, 98, 97, 96, 95, 94], "{per_second}");
        // The control: what fails faster than work is done tells these nothing.
        for algorithm in [Algorithm::Gradient2(BOUNDS), Algorithm::Adaptive(BOUNDS)] {
            let failures = limits(algorithm, per_second, Ended::Failure);
            assert_eq!(dropped(algorithm), failures, "{algorithm:?}");
        }
        for algorithm in [Algorithm::Gradient2(BOUNDS), Algorithm::Aimd(BOUNDS), Algorithm::Vegas(BOUNDS)] {
            assert_eq!(limits(algorithm, per_second, Ended::Failure), [100; 8], "{algorithm:?}");
        }
    }
}

/// Of those that are not heeded no window is made: with the few answers between them it would say too little.
#[test]
fn drops_make_a_window_only_where_they_are_heeded() {
    let usual = |algorithm| {
        let share = Memory::new();
        let settings = Settings { algorithm, max_keys: 0, measure: false, levels: false };
        let mut worker = ConcurrencyLimits::new(settings, &share, "test", "inflight").unwrap();
        let random = &mut SplitMix64::new(1);
        // Twenty a second; from the second second on a quarter is answered, twice as slow as before.
        for turn in 0..45 {
            let now = 1_000 * SECOND + turn * SECOND / 20;
            let (ended, took) = match (turn < 20, turn % 4) {
                (true, _) => (Ended::Success, 20 * MS),
                (false, 0) => (Ended::Success, 40 * MS),
                (false, _) => (Ended::Dropped, MS),
            };
            let place = worker.acquire(&share, SlotId::ONLY, Share::ALL, now, random).unwrap();
            worker.release(&share, place, ended, took, now, random);
        }
        worker.usual_latency(SlotId::ONLY).unwrap() / MS
    };
    assert_eq!([Algorithm::Aimd(BOUNDS), Algorithm::Vegas(BOUNDS)].map(usual), [40, 40]);
    assert_eq!(usual(Algorithm::Gradient2(BOUNDS)), 20);
}
