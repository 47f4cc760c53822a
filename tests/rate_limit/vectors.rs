//! Published vectors of others: Envoy's token bucket, Cloudflare's sliding window, nginx's leaky bucket.

use tidegate::control::Nanos;
use tidegate::control::rate_limit::{Algorithm, KeyHash, Quota};

use super::support::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NONE: KeyHash = KeyHash::NONE;

fn bucket(quota: Quota) -> Solo {
    Solo::new(&settings(Algorithm::TokenBucket, quota, 1))
}

#[test]
fn a_bucket_of_one_lets_one_through() {
    let mut bucket = bucket(quota(1, SECOND, 1));
    assert!(bucket.takes(NONE, 1, 0));
    assert!(!bucket.takes(NONE, 1, 0));
}

#[test]
fn envoys_bucket_of_three_refills_to_three_and_no_more() {
    let mut bucket = bucket(quota(1, SECOND, 3));
    assert!(bucket.takes(NONE, 3, 0));
    assert!(!bucket.takes(NONE, 4, 10 * SECOND));
    assert!(bucket.takes(NONE, 3, 10 * SECOND));
    assert!(!bucket.takes(NONE, 1, 10 * SECOND));
}

#[test]
fn envoys_bucket_of_ten_refills_at_whole_seconds() {
    let mut bucket = bucket(quota(1, SECOND, 10));
    assert!(!bucket.takes(NONE, 20, 0));
    assert!(bucket.takes(NONE, 9, 0));
    assert!(bucket.takes(NONE, 1, 0));
    assert!(!bucket.takes(NONE, 1, 999 * MS));
    assert!(!bucket.takes(NONE, 6, 5_999 * MS));
    assert!(bucket.takes(NONE, 6, 6_000 * MS));
    assert!(!bucket.takes(NONE, 1, 6_000 * MS));
}

#[test]
fn envoys_bucket_at_half_a_token_a_second_refills_in_two() {
    let mut bucket = bucket(quota(1, 2 * SECOND, 1));
    assert!(bucket.takes(NONE, 1, 0));
    assert!(!bucket.takes(NONE, 1, 500 * MS));
    assert!(!bucket.takes(NONE, 1, 1_500 * MS));
    assert!(bucket.takes(NONE, 1, 2_000 * MS));
}

#[test]
fn envoys_emptied_bucket_at_five_a_second_says_when_the_next_token_comes() {
    let mut bucket = bucket(quota(5, SECOND, 10));
    assert!(bucket.takes(NONE, 10, 0));
    assert_eq!(bucket.wait(NONE, 1, 0), Some(200 * MS));
}

#[test]
fn envoys_bucket_of_sixteen_refills_each_sixteenth_of_a_second() {
    let mut bucket = bucket(quota(16, SECOND, 16));
    assert_eq!(bucket.remaining(NONE, 0), 16, "18 wanted, 16 there");
    assert!(bucket.takes(NONE, 16, 0));
    assert_eq!(bucket.wait(NONE, 1, 0), Some(62_500_000), "63 ms in whole milliseconds");
    assert!(!bucket.takes(NONE, 1, 62 * MS));
    assert!(bucket.takes(NONE, 1, 63 * MS));
}

#[test]
fn cloudflares_sliding_window_of_fifty_allows_at_49_and_a_half() {
    const MINUTE: Nanos = 60 * SECOND;
    let mut window = Solo::new(&settings(Algorithm::SlidingWindow, quota(50, MINUTE, 1), 1));
    assert!(window.takes(NONE, 42, 0));
    assert!(window.takes(NONE, 18, MINUTE + 15 * SECOND));
    assert!(window.takes(NONE, 1, MINUTE + 15 * SECOND));
    // 42 * 45/60 + 19 = 50.5
    assert!(!window.takes(NONE, 1, MINUTE + 15 * SECOND));
}

#[test]
fn nginx_would_decide_the_same_with_burst_one_less() {
    // ngx_http_limit_req: excess in thousandths of a request, time in milliseconds.
    let (rate, burst) = (10_000i64, 5i64);
    let mut solo = bucket(quota(10, SECOND, 6));
    let (mut excess, mut last, mut now) = (0i64, None::<i64>, 0u64);
    for step in 0..5_000u64 {
        now += (step * 7_919) % 151;
        let ms = i64::try_from(now).unwrap();
        let next = last.map_or(0, |last| (excess - rate * (ms - last) / 1_000 + 1_000).max(0));
        let conforms = next <= burst * 1_000;
        if conforms {
            (excess, last) = (next, Some(ms));
        }
        assert_eq!(solo.takes(NONE, 1, now * MS), conforms, "at {now} ms");
    }
}
