//! Envoy's vector for concurrent use, with the threads it is told for. Interleaved by hand it is among the
//! [vectors](super::vectors), which run as WebAssembly too.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tidegate::control::rate_limit::{Algorithm, KeyHash, RateLimiter};
use tidegate::share::Memory;

use super::support::*;

#[test]
fn four_threads_are_granted_exactly_the_1200_tokens_that_time_adds() {
    let share = Memory::new();
    let settings = settings(Algorithm::TokenBucket, quota(1, SECOND, 1_200), 1);
    let mut own = RateLimiter::new(&settings, &share, "limit").unwrap();
    assert!(own.charge(&share, KeyHash::NONE, 0, 1_200, 0).is_ok());

    let (clock, done, granted) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut limiter = RateLimiter::new(&settings, &share, "limit").unwrap();
            let (share, clock, done, granted) = (share.clone(), &clock, &done, &granted);
            scope.spawn(move || {
                loop {
                    let last = done.load(Ordering::SeqCst);
                    match limiter.charge(&share, KeyHash::NONE, 0, 1, clock.load(Ordering::SeqCst)) {
                        Ok(_) => _ = granted.fetch_add(1, Ordering::SeqCst),
                        Err(refused) if last && !refused.contended => break,
                        Err(_) => thread::yield_now(),
                    }
                }
            });
        }
        for step in (0..200).map(|_| SECOND).chain((0..100).map(|_| 10 * SECOND)) {
            clock.fetch_add(step, Ordering::SeqCst);
            thread::yield_now();
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(granted.load(Ordering::SeqCst), 1_200);
}
