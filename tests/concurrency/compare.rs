//! All algorithms over all scenarios.

use tidegate::control::concurrency::{Algorithm, Bounds, Share};

use super::sim::{Change, MS, Run, SECOND, Scatter, Scenario, run};

const BOUNDS: Bounds = Bounds { initial: 20, min: 1, max: 1000 };

pub const ALGORITHMS: [(&str, Algorithm); 5] = [
    ("fixed 30", Algorithm::Fixed(30)),
    ("aimd", Algorithm::Aimd(BOUNDS)),
    ("vegas", Algorithm::Vegas(BOUNDS)),
    ("gradient2", Algorithm::Gradient2(BOUNDS)),
    ("adaptive", Algorithm::Adaptive(BOUNDS)),
];

fn overload(algorithm: Algorithm) -> Scenario {
    let changes = [(0, Change::Rate(250.0)), (3 * SECOND, Change::Rate(1200.0)), (13 * SECOND, Change::Rate(250.0))];
    Scenario::new(algorithm, 20, &changes)
}

fn show(name: &str, run: &Run, from: u64, to: u64) -> String {
    let (from, to) = (from * SECOND, to * SECOND);
    format!(
        "{name}: good {:.0}/s p50 {:.0} p99 {:.0} ms, rejected {} of {}",
        run.goodput(from, to),
        run.latency(from, to, 0.5),
        run.latency(from, to, 0.99),
        run.rejected(from, to),
        run.asked(from, to)
    )
}

#[test]
fn explore() {
    let only = std::env::var("ONLY").unwrap_or_default();
    for (name, algorithm) in ALGORITHMS {
        if !name.contains(&only) {
            continue;
        }
        println!("== {name}");
        for (what, scatter) in [("fixed", Scatter::None), ("exp", Scatter::Exponential), ("bimodal", Scatter::Bimodal)]
        {
            for workers in [1, 4] {
                let run = run(&Scenario { scatter, workers, ..overload(algorithm) });
                println!("{}", show(&format!("overload {what} x{workers} 250/s"), &run, 0, 3));
                println!("{}", show("     1200/s", &run, 3, 13));
                println!(
                    "{}  limits {:?}",
                    show("     after", &run, 14, 20),
                    run.limits.iter().skip(28).step_by(4).take(29).collect::<Vec<_>>()
                );
            }
            let run =
                run(&Scenario { scatter, critical: 0.125, bulk_share: Share(8000), workers: 4, ..overload(algorithm) });
            println!("  critical {:.4}", run.critical_goodput(3 * SECOND, 13 * SECOND));
        }
        for scatter in [Scatter::None, Scatter::Exponential] {
            for rate in [300.0, 400.0, 450.0, 475.0] {
                let run = run(&Scenario { scatter, ..Scenario::new(algorithm, 60, &[(0, Change::Rate(rate))]) });
                println!("{}", show(&format!("carry {rate} {scatter:?}"), &run, 0, 60));
            }
            for clients in [8, 16, 30, 64] {
                let run = run(&Scenario { scatter, ..Scenario::new(algorithm, 60, &[(0, Change::Clients(clients))]) });
                println!("{}", show(&format!("closed {clients} {scatter:?}"), &run, 0, 60));
            }
            for size in [30, 60, 100] {
                let every = u64::from(size) * 1000 / 250 * MS;
                let run =
                    run(&Scenario { scatter, ..Scenario::new(algorithm, 60, &[(0, Change::Bursts(size, every))]) });
                println!("{}", show(&format!("bursts {size} {scatter:?}"), &run, 0, 60));
            }
            for (what, worse, better) in [
                ("slots", Change::Slots(5), Change::Slots(10)),
                ("service", Change::Service(40 * MS), Change::Service(20 * MS)),
                ("double slots", Change::Slots(20), Change::Slots(10)),
                ("half service", Change::Service(10 * MS), Change::Service(20 * MS)),
            ] {
                let changes = [(0, Change::Rate(1200.0)), (8 * SECOND, worse), (16 * SECOND, better)];
                let run = run(&Scenario { scatter, ..Scenario::new(algorithm, 24, &changes) });
                println!("{:?}", run.limits.iter().step_by(4).collect::<Vec<_>>());
                let half = if what.contains(' ') { 1000.0 } else { 250.0 };
                println!(
                    "capacity {what} {scatter:?}: after 2 s {:.3} {:.3}; good {:.0} {:.0} {:.0}; p99 {:.0} {:.0} {:.0}",
                    run.goodput(10 * SECOND, 16 * SECOND) / half,
                    run.goodput(18 * SECOND, 24 * SECOND) / 500.0,
                    run.goodput(0, 8 * SECOND),
                    run.goodput(8 * SECOND, 16 * SECOND),
                    run.goodput(16 * SECOND, 24 * SECOND),
                    run.latency(0, 8 * SECOND, 0.99),
                    run.latency(8 * SECOND, 16 * SECOND, 0.99),
                    run.latency(16 * SECOND, 24 * SECOND, 0.99),
                );
            }
            // An upstream with room to spare that becomes three times slower, and one that is full and does.
            let changes = [(0, Change::Slots(200)), (0, Change::Rate(250.0)), (10 * SECOND, Change::Service(100 * MS))];
            let run = run(&Scenario { scatter, ..Scenario::new(algorithm, 30, &changes) });
            println!("{}", show(&format!("shift {scatter:?}"), &run, 10, 30));
            println!("{:?}", run.limits.iter().skip(95).step_by(2).take(60).collect::<Vec<_>>());
        }
        let run1 = run(&Scenario { cancelled: 0.2, failing: 0.2, ..overload(algorithm) });
        println!("{}", show("cancels and failures, 1200/s", &run1, 3, 13));
        println!("{}  {}", show("cancels and failures, after", &run1, 14, 20), run1.inflight_at_end);
    }
}
