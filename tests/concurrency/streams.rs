//! Streams that are in flight for as long as their clients like, beside requests that are answered at once.

use tidegate::control::concurrency::{Algorithm, Bounds};

use super::sim::{Change, MS, Run, SECOND, Scenario, run};

const ADAPTIVE: Algorithm = Algorithm::Adaptive(Bounds { initial: 20, min: 1, max: 1000 });
/// What 10 slots of 20 ms carry.
const CAPACITY: f64 = 500.0;

/// So many streams open all the while, and ten seconds of overload from `from` on.
fn overload(algorithm: Algorithm, streams: usize, from: u64) -> Scenario {
    let (from, calm) = (from * SECOND, Change::Rate(250.0));
    let changes = [(0, Change::Streams(streams)), (0, calm), (from, Change::Rate(1200.0)), (from + 10 * SECOND, calm)];
    Scenario::new(algorithm, 30, &changes)
}

fn over_seeds(scenario: &Scenario, mut check: impl FnMut(&Run, &str)) {
    for workers in [1, 2, 4] {
        for seed in 1..=5 {
            let run = run(&Scenario { workers, seed, ..scenario.clone() });
            check(&run, &format!("{workers} workers, seed {seed}"));
        }
    }
}

/// From two seconds after the overload on.
fn rejected_after(run: &Run, overload: u64) -> usize {
    run.rejected((overload + 12) * SECOND, 30 * SECOND)
}

/// In the ten seconds of overload.
fn share(run: &Run, overload: u64) -> f64 {
    run.goodput(overload * SECOND, (overload + 10) * SECOND) / CAPACITY
}

/// They are in flight, and three knees are fewer: the limit went below their number, and nobody was admitted again.
#[test]
fn an_overload_beside_open_streams_is_one_of_the_other_requests_and_passes() {
    for streams in [8, 15, 30, 150] {
        over_seeds(&overload(ADAPTIVE, streams, 3), |run, what| {
            let share = share(run, 3);
            assert!(share >= 0.85, "{streams} streams, {what}: {share}");
            assert_eq!(run.rejected(0, 3 * SECOND), 0, "{streams} streams, {what}: before");
            assert_eq!(rejected_after(run, 3), 0, "{streams} streams, {what}: after");
            assert_eq!(run.inflight_at_end, streams as i64, "{streams} streams, {what}");
        });
    }
    // The control: three knees without them is what admits nobody.
    let run = run(&overload(Algorithm::Fixed(150), 150, 3));
    assert!(share(&run, 3) < 0.1 && rejected_after(&run, 3) > 1_000);
}

/// An overload before anything is known, and streams that are more than the start is, or most of it: all places were theirs for four
/// seconds, until they were known for what they are.
#[test]
fn a_start_into_an_overload_beside_open_streams_comes_right_too() {
    for streams in [8, 15, 30, 150] {
        over_seeds(&overload(ADAPTIVE, streams, 0), |run, what| {
            let good = run.goodput(2 * SECOND, 10 * SECOND) / CAPACITY;
            assert!(good >= 0.93, "{streams} streams, {what}: {good}");
            assert_eq!(rejected_after(run, 0), 0, "{streams} streams, {what}: after");
        });
    }
}

/// Each told, when it ended, of all the time it had been open, as if that were work.
#[test]
fn streams_that_end_while_others_come_are_no_slow_work() {
    for streams in [30, 150] {
        let mut scenario = overload(ADAPTIVE, streams, 3);
        for at in 2..58 {
            scenario.changes.push((at * 500 * MS, Change::Streams(streams - 1)));
            scenario.changes.push((at * 500 * MS + 20 * MS, Change::Streams(streams)));
        }
        let mut all = Vec::new();
        over_seeds(&scenario, |run, what| {
            all.push(share(run, 3));
            assert_eq!(rejected_after(run, 3), 0, "{streams} streams, {what}: after");
        });
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        assert!(mean >= 0.85 && all.iter().all(|share| *share >= 0.7), "{streams} streams: {all:?}");
    }
}
