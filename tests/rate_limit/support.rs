//! One worker alone.

use tidegate::control::Nanos;
use tidegate::control::rate_limit::{Algorithm, Charged, KeyHash, Quota, RateLimiter, Refused, Settings};
use tidegate::share::Memory;

pub use super::counting::Counting;

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000_000_000;
pub const HOUR: Nanos = 3_600 * SECOND;

/// A hash as good as the engine's, and the same in each run (SplitMix64).
pub fn key(number: u64) -> KeyHash {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    KeyHash::from(u128::from(mix(2 * number + 1)) << 64 | u128::from(mix(2 * number + 2)))
}

pub fn settings(algorithm: Algorithm, quota: Quota, max_keys: u32) -> Settings {
    Settings { quotas: vec![quota], algorithm, max_keys }
}

pub fn quota(count: u64, period: Nanos, burst: u64) -> Quota {
    Quota { count, period, burst }
}

/// One worker alone.
pub struct Solo {
    pub share: Memory,
    pub limiter: RateLimiter,
}

impl Solo {
    pub fn new(settings: &Settings) -> Self {
        let share = Memory::new();
        let limiter = RateLimiter::new(settings, &share, "limit").unwrap();
        Self { share, limiter }
    }

    pub fn charge(&mut self, key: KeyHash, cost: u64, now: Nanos) -> Result<Charged, Refused> {
        self.limiter.charge(&self.share, key, 0, cost, now)
    }

    pub fn takes(&mut self, key: KeyHash, cost: u64, now: Nanos) -> bool {
        self.charge(key, cost, now).is_ok()
    }

    /// How long until the cost conforms.
    pub fn wait(&mut self, key: KeyHash, cost: u64, now: Nanos) -> Option<Nanos> {
        self.limiter.check(&self.share, key, 0, cost, now).map_or_else(|refused| refused.wait, |_| Some(0))
    }

    pub fn remaining(&mut self, key: KeyHash, now: Nanos) -> u64 {
        self.limiter.check(&self.share, key, 0, 0, now).map_or(0, |budget| budget.remaining)
    }
}
