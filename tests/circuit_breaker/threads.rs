//! Workers as real threads, which really race.

use tidegate::control::circuit_breaker::CircuitBreakers;

use super::fleet::{KEY, SplitMix};
use super::probes::{probing, tripped};

#[test]
fn on_real_threads_exactly_the_probes_pass_and_one_reports_each_change() {
    for probes in [1, 3, 7] {
        let fleet = tripped(probing(probes), 1, 14);
        let (share, now) = (&fleet.share, fleet.now);
        let start = std::sync::Barrier::new(8);
        let results: Vec<(usize, usize)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|worker| {
                    let start = &start;
                    scope.spawn(move || {
                        let mut breakers = CircuitBreakers::new(probing(probes), share, "policy").unwrap();
                        let slot = breakers.slot(share, KEY, "upstream");
                        let rng = &mut SplitMix(worker);
                        start.wait();
                        let passed = (0..125).filter(|_| breakers.acquire(share, slot, now, rng).is_ok()).count();
                        (passed, std::iter::from_fn(|| breakers.take_transition()).count())
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(results.iter().map(|(passed, _)| passed).sum::<usize>(), probes as usize);
        assert_eq!(results.iter().map(|(_, changes)| changes).sum::<usize>(), 1);
    }
}
