//! A machine that others use too: upstream, workers and clients stand still now and then. Meanwhile requests take long, and
//! the limit cannot know why; afterwards it must be right again soon.

use tidegate::control::concurrency::{Algorithm, Bounds};

use super::sim::{Change, MS, Noise, Run, SECOND, Scenario, Whom, run};

const ADAPTIVE: Algorithm = Algorithm::Adaptive(Bounds { initial: 20, min: 1, max: 1000 });
/// What 10 slots of 20 ms carry.
const CAPACITY: f64 = 500.0;
const QUIET_FROM: u64 = 8;

/// An overload from the second second on. From the first to the eighth there are stalls.
fn overload_with_stalls(algorithm: Algorithm, whom: &[Whom], every: u64, (least, most): (u64, u64)) -> Scenario {
    let changes = [(0, Change::Rate(250.0)), (2 * SECOND, Change::Rate(1200.0))];
    let noise = Noise {
        whom: whom.to_vec(),
        from: SECOND,
        until: QUIET_FROM * SECOND,
        every: every * MS,
        lasting: (least * MS, most * MS),
    };
    Scenario { noise: vec![noise], ..Scenario::new(algorithm, 16, &changes) }
}

/// Answered in time from two seconds after the last stall on, as a share of capacity.
fn afterwards(run: &Run) -> f64 {
    run.goodput((QUIET_FROM + 2) * SECOND, (QUIET_FROM + 7) * SECOND) / CAPACITY
}

/// One slow window was enough: what requests took while the machine stood still was taken for what work takes, the limit rose
/// to its most, windows became as long as that, and the next look was half a minute away.
#[test]
fn stalls_do_not_lead_the_limit_astray_for_longer_than_two_seconds() {
    let whom =
        [&[Whom::Upstream][..], &[Whom::Workers], &[Whom::Clients], &[Whom::Upstream, Whom::Workers, Whom::Clients]];
    for whom in whom {
        for (every, lasting) in [(1000, (50, 500)), (200, (10, 50))] {
            let scenario = overload_with_stalls(ADAPTIVE, whom, every, lasting);
            for seed in 1..=8 {
                for workers in [1, 2, 4] {
                    // An upstream whose timers are coarse answers in batches.
                    let quantum = if seed % 2 == 0 { 10 * MS } else { 0 };
                    let run = run(&Scenario { workers, seed, quantum, ..scenario.clone() });
                    let share = afterwards(&run);
                    assert!(share >= 0.95, "{whom:?} every {every} ms, {workers} workers, seed {seed}: {share}");
                    assert_eq!(run.inflight_at_end, 0);
                }
            }
        }
    }
    // The control: with as many in flight as found a place meanwhile nobody is answered in time for long.
    let scenario = overload_with_stalls(Algorithm::Fixed(1000), &[Whom::Upstream], 1000, (50, 500));
    assert!(afterwards(&run(&scenario)) < 0.1);
}

#[test]
fn a_healthy_upstream_that_stands_still_now_and_then_sees_no_rejection_but_while_it_does() {
    for seed in 1..=5 {
        let mut scenario = overload_with_stalls(ADAPTIVE, &[Whom::Upstream], 1000, (50, 500));
        scenario.changes.truncate(1);
        let run = run(&Scenario { seed, ..scenario });
        assert_eq!(run.rejected((QUIET_FROM + 1) * SECOND, 16 * SECOND), 0, "seed {seed}");
        println!("seed {seed}: {} rejected while it stood still now and then", run.rejected(0, QUIET_FROM * SECOND));
    }
}
