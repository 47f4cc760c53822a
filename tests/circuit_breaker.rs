//! Circuit breakers through their public interface.

use tidegate::control::circuit_breaker::{CircuitBreakers, Denied, Outcome, Settings, State};
use tidegate::control::{Nanos, Random};
use tidegate::share::Memory;

const SECOND: Nanos = 1_000_000_000;

struct SplitMix(u64);

impl Random for SplitMix {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[test]
fn a_breaker_trips_tries_and_closes() {
    let share = Memory::new();
    let rng = &mut SplitMix(1);
    let mut breakers = CircuitBreakers::new(Settings::default(), &share, "a").unwrap();
    let slot = breakers.slot(&share, 7, "x");
    for _ in 0..20 {
        let permit = breakers.acquire(&share, slot, SECOND, rng).unwrap();
        breakers.settle(&share, permit, Outcome::Failure { retry_after: None }, 0, SECOND, rng);
    }
    assert_eq!(breakers.state(&share, slot), State::Open);
    assert!(matches!(breakers.acquire(&share, slot, 2 * SECOND, rng), Err(Denied::Open { .. })));
    let now = 7 * SECOND;
    for _ in 0..5 {
        let permit = breakers.acquire(&share, slot, now, rng).unwrap();
        assert!(permit.is_probe());
        breakers.settle(&share, permit, Outcome::Success, 0, now, rng);
    }
    assert_eq!(breakers.state(&share, slot), State::Closed);
    assert_eq!(std::iter::from_fn(|| breakers.take_transition()).count(), 3);
    assert_eq!(breakers.take_errors(), 0);
}
