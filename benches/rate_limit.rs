//! What a charge costs natively, with shared state in memory and a fake clock.
//!
//! The time to copy a page and to search it is the same in a proxy; the host's calls come on top.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::control::rate_limit::{Algorithm, KeyHash, Quota, RateLimiter, Settings};
use tidegate::share::Memory;

const SECOND: u64 = 1_000_000_000;

/// A permutation-like walk over keys, so that each charge meets another page.
fn key(number: u64) -> KeyHash {
    let mixed = u128::from(number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    KeyHash::from(mixed ^ (mixed >> 61))
}

fn charges(c: &mut Criterion) {
    let cases = [
        ("token bucket, no key", Algorithm::TokenBucket, 1_000_000, 1, 1),
        ("token bucket, 100 keys", Algorithm::TokenBucket, 1_000_000, 65_536, 100),
        ("token bucket, 1 000 000 keys", Algorithm::TokenBucket, 1_000_000, 1_000_000, 1_000_000),
        ("token bucket, 7 per second, 1 000 000 keys", Algorithm::TokenBucket, 7, 1_000_000, 1_000_000),
        ("sliding window, 1 000 000 keys", Algorithm::SlidingWindow, 1_000_000, 1_000_000, 1_000_000),
        ("fixed window, 1 000 000 keys", Algorithm::FixedWindow, 1_000_000, 1_000_000, 1_000_000),
    ];
    for (name, algorithm, count, max_keys, keys) in cases {
        let share = Memory::new();
        let quotas = vec![Quota { count, period: SECOND, burst: count }];
        let settings = Settings { quotas, algorithm, max_keys };
        let mut limiter = RateLimiter::new(&settings, &share, "limit").unwrap();
        let (mut now, mut next) = (SECOND, 0);
        c.bench_function(&format!("admitted, {name}"), |b| {
            b.iter(|| {
                now += 1_000;
                next = (next + 7_919) % keys;
                black_box(limiter.charge(&share, key(next), 0, 1, now)).is_ok()
            });
        });
    }
    let share = Memory::new();
    let quotas = vec![Quota { count: 1, period: u64::MAX / 4, burst: 1 }];
    let settings = Settings { quotas, algorithm: Algorithm::TokenBucket, max_keys: 65_536 };
    let mut limiter = RateLimiter::new(&settings, &share, "limit").unwrap();
    let mut next = 0;
    c.bench_function("refused, token bucket, 100 keys", |b| {
        b.iter(|| {
            next = (next + 7_919) % 100;
            black_box(limiter.charge(&share, key(next), 0, 1, SECOND)).is_ok()
        });
    });
}

criterion_group!(benches, charges);
criterion_main!(benches);
