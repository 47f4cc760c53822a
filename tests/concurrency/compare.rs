//! What the algorithms do before simulated upstreams, and what the default must do. `docs/load-shedding.md` holds the
//! table.

use std::fmt::Write as _;

use tidegate::control::concurrency::{Algorithm, Bounds, Share};

use super::sim::{Change, MS, Run, SECOND, Scatter, Scenario, run};

const BOUNDS: Bounds = Bounds { initial: 20, min: 1, max: 1000 };
const ADAPTIVE: Algorithm = Algorithm::Adaptive(BOUNDS);
/// What 10 slots of 20 ms carry.
const CAPACITY: f64 = 500.0;

fn overload(algorithm: Algorithm) -> Scenario {
    let changes = [(0, Change::Rate(250.0)), (3 * SECOND, Change::Rate(1200.0)), (13 * SECOND, Change::Rate(250.0))];
    Scenario::new(algorithm, 20, &changes)
}

fn capacity(algorithm: Algorithm, worse: Change, better: Change) -> Scenario {
    let changes = [(0, Change::Rate(1200.0)), (8 * SECOND, worse), (16 * SECOND, better)];
    Scenario::new(algorithm, 24, &changes)
}

fn shift(algorithm: Algorithm) -> Scenario {
    let changes = [(0, Change::Slots(200)), (0, Change::Rate(250.0)), (10 * SECOND, Change::Service(100 * MS))];
    Scenario::new(algorithm, 30, &changes)
}

fn steady(algorithm: Algorithm, load: Change) -> Scenario {
    Scenario::new(algorithm, 60, &[(0, load)])
}

const LOADS: [Change; 8] = [
    Change::Rate(250.0),
    Change::Rate(400.0),
    Change::Rate(450.0),
    Change::Clients(16),
    Change::Clients(64),
    Change::Bursts(30, 120 * MS),
    Change::Bursts(60, 240 * MS),
    Change::Bursts(100, 400 * MS),
];

fn over_seeds(scenario: &Scenario, mut check: impl FnMut(&Run)) {
    for workers in [1, 2, 4] {
        for seed in 1..=5 {
            println!("workers {workers}, seed {seed}");
            check(&run(&Scenario { workers, seed, ..scenario.clone() }));
        }
    }
}

#[test]
fn under_overload_the_upstream_is_kept_busy_and_the_admitted_wait_little() {
    over_seeds(&overload(ADAPTIVE), |run| {
        let (from, to) = (3 * SECOND, 13 * SECOND);
        assert_eq!(run.rejected(0, from), 0, "before");
        let (good, p99) = (run.goodput(from, to), run.latency(from, to, 0.99));
        assert!(good >= 0.95 * CAPACITY, "goodput {good}");
        assert!(p99 < 150.0, "p99 {p99} ms");
        assert_eq!(run.rejected(to + SECOND, 20 * SECOND), 0, "after");
        assert_eq!(run.inflight_at_end, 0);
    });
}

#[test]
fn service_times_that_scatter_cost_little_goodput() {
    for scatter in [Scatter::Exponential, Scatter::Bimodal] {
        let mut all = Vec::new();
        over_seeds(&Scenario { scatter, ..overload(ADAPTIVE) }, |run| {
            assert_eq!(run.rejected(14 * SECOND, 20 * SECOND), 0, "after");
            all.push(run.goodput(3 * SECOND, 13 * SECOND) / CAPACITY);
        });
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        println!("{scatter:?}: {mean}");
        assert!(mean >= 0.93, "{all:?}");
    }
}

#[test]
fn critical_requests_are_served_through_an_overload() {
    let scenario = Scenario { critical: 0.125, bulk_share: Share(8_000), ..overload(ADAPTIVE) };
    over_seeds(&scenario, |run| {
        let share = run.critical_goodput(3 * SECOND, 13 * SECOND);
        assert!(share >= 0.994, "{share}");
    });
}

#[test]
fn a_load_the_upstream_can_carry_sees_no_rejection_from_the_first_request_on() {
    for load in LOADS {
        println!("{load:?}");
        for seed in 1..=3 {
            let run = run(&Scenario { seed, ..steady(ADAPTIVE, load) });
            // Nine tenths of capacity, at random, is where it begins to matter: one in ten thousand may find no place.
            let allowed = if matches!(load, Change::Rate(rate) if rate > 425.0) { 3 } else { 0 };
            assert!(run.rejected(0, 60 * SECOND) <= allowed, "seed {seed}: {}", run.rejected(0, 60 * SECOND));
            assert_eq!(run.inflight_at_end, 0);
        }
    }
}

#[test]
fn goodput_follows_a_capacity_that_is_halved_or_doubled_within_two_seconds() {
    for (worse, better, capacity_meanwhile) in [
        (Change::Slots(5), Change::Slots(10), 250.0),
        (Change::Service(40 * MS), Change::Service(20 * MS), 250.0),
        (Change::Slots(20), Change::Slots(10), 1_000.0),
        (Change::Service(10 * MS), Change::Service(20 * MS), 1_000.0),
    ] {
        println!("{worse:?}");
        over_seeds(&capacity(ADAPTIVE, worse, better), |run| {
            let meanwhile = run.goodput(10 * SECOND, 16 * SECOND) / capacity_meanwhile;
            let restored = run.goodput(18 * SECOND, 24 * SECOND) / CAPACITY;
            assert!(meanwhile >= 0.95 && restored >= 0.95, "{meanwhile} {restored}");
        });
    }
}

#[test]
fn a_lasting_shift_of_latency_is_not_taken_for_overload() {
    over_seeds(&shift(ADAPTIVE), |run| {
        // It is noticed when a request finds no place, whenever that is; at most two seconds later all is well.
        let rejected = run.rejected(10 * SECOND, 30 * SECOND);
        assert!(rejected <= 500, "more than two seconds' worth: {rejected}");
    });
}

/// Where all of the load is of the most important level there is nobody else at whose cost it could be spared: while it was, no dip
/// measured anything, and it was rejected for twenty seconds.
#[test]
fn a_lasting_shift_of_latency_is_seen_as_soon_when_all_requests_are_of_the_most_important_level() {
    let mut all = Vec::new();
    over_seeds(&Scenario { critical: 1.0, bulk_share: Share(8_000), ..shift(ADAPTIVE) }, |run| {
        all.push(run.rejected(10 * SECOND, 30 * SECOND));
    });
    let mean = all.iter().sum::<usize>() / all.len();
    assert!(all.iter().all(|rejected| *rejected <= 750), "more than three seconds' worth: {all:?}");
    assert!(mean <= 250, "more than a second's worth on the average: {all:?}");
}

#[test]
fn cancels_and_quick_failures_do_not_move_the_limit() {
    over_seeds(&Scenario { cancelled: 0.2, failing: 0.2, ..overload(ADAPTIVE) }, |run| {
        let (from, to) = (3 * SECOND, 13 * SECOND);
        assert!(run.goodput(from, to) >= 0.93 * CAPACITY, "{}", run.goodput(from, to));
        assert!(run.latency(from, to, 0.99) < 150.0);
        assert_eq!(run.rejected(to + SECOND, 20 * SECOND), 0, "after");
        assert_eq!(run.inflight_at_end, 0);
    });
}

#[test]
fn a_start_into_an_overload_and_a_stall_does_not_end_with_everybody_waiting_in_vain() {
    // An upstream that stands still at first or later, clients that give up after a second, and requests without end.
    for stall in [0, 5 * SECOND] {
        for patience in [SECOND, 0] {
            let changes =
                [(0, Change::Rate(1200.0)), (stall, Change::Slots(0)), (stall + 1200 * MS, Change::Slots(10))];
            over_seeds(&Scenario { patience, ..Scenario::new(ADAPTIVE, 20, &changes) }, |run| {
                let (from, to) = (12 * SECOND, 20 * SECOND);
                let good: Vec<_> = (0..20).map(|s| run.goodput(s * SECOND, (s + 1) * SECOND) as u32).collect();
                println!("stall at {} s, patience {} s: {good:?}", stall / SECOND, patience / SECOND);
                assert!(run.goodput(from, to) >= 0.9 * CAPACITY, "{good:?}");
            });
        }
    }
}

const ALGORITHMS: [(&str, Algorithm); 5] = [
    ("fixed, 30", Algorithm::Fixed(30)),
    ("aimd", Algorithm::Aimd(BOUNDS)),
    ("vegas", Algorithm::Vegas(BOUNDS)),
    ("gradient2", Algorithm::Gradient2(BOUNDS)),
    ("adaptive", ADAPTIVE),
];

/// One row: what an algorithm does in all scenarios.
fn row(name: &str, algorithm: Algorithm) -> String {
    let mut row = format!("| {name} |");
    let overloaded = run(&overload(algorithm));
    let (from, to) = (3 * SECOND, 13 * SECOND);
    let _ = write!(row, " {:.0} / {:.0} |", overloaded.goodput(from, to), overloaded.latency(from, to, 0.99));
    let scattered = run(&Scenario { scatter: Scatter::Exponential, ..overload(algorithm) });
    let _ = write!(row, " {:.0} / {:.0} |", scattered.goodput(from, to), scattered.latency(from, to, 0.99));
    let scenario = Scenario { critical: 0.125, bulk_share: Share(8_000), ..overload(algorithm) };
    let _ = write!(row, " {:.1} |", 100.0 * run(&scenario).critical_goodput(from, to));
    for (worse, better, scale) in
        [(Change::Slots(5), Change::Slots(10), 250.0), (Change::Slots(20), Change::Slots(10), 1_000.0)]
    {
        let run = run(&capacity(algorithm, worse, better));
        let meanwhile = 100.0 * run.goodput(10 * SECOND, 16 * SECOND) / scale;
        let _ = write!(row, " {meanwhile:.0} / {:.0} |", 100.0 * run.goodput(18 * SECOND, 24 * SECOND) / CAPACITY);
    }
    for loads in [&LOADS[..3], &LOADS[3..5], &LOADS[5..]] {
        let runs: Vec<_> = loads.iter().map(|load| run(&steady(algorithm, *load))).collect();
        let rejected: usize = runs.iter().map(|run| run.rejected(0, 60 * SECOND)).sum();
        let asked: usize = runs.iter().map(|run| run.asked(0, 60 * SECOND)).sum();
        let _ = write!(row, " {} |", percent(rejected, asked));
    }
    let shifted = run(&shift(algorithm));
    let (from, to) = (10 * SECOND, 30 * SECOND);
    let _ = write!(row, " {} |", percent(shifted.rejected(from, to), shifted.asked(from, to)));
    row
}

fn percent(part: usize, whole: usize) -> String {
    if part == 0 { "0".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

#[test]
fn the_documented_comparison_is_what_the_simulation_says() {
    let rows: Vec<_> = ALGORITHMS.iter().map(|(name, algorithm)| row(name, *algorithm)).collect();
    println!("{}", rows.join("\n"));
    let document = include_str!("../../docs/load-shedding.md");
    for row in rows {
        assert!(document.contains(&row), "docs/load-shedding.md lacks the row\n{row}");
    }
}
