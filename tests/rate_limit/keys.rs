//! Many keys in a table of fixed size.

use tidegate::control::rate_limit::{Algorithm, NotMade, RateLimiter, Settings};

use super::support::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_million_fresh_keys_neither_reset_an_exhausted_key_nor_grow_memory() {
    let share = Counting::default();
    let settings = settings(Algorithm::TokenBucket, quota(1, HOUR, 5), 1_024);
    let mut limiter = RateLimiter::new(&settings, &share, "limit").unwrap();
    let (pages, bytes) = (share.page_count(), limiter.shared_bytes());
    assert!(limiter.charge(&share, key(0), 0, 5, 0).is_ok());
    let (mut own, mut shared) = (0, 0);
    for number in 1..=1_000_000 {
        match limiter.charge(&share, key(number), 0, 1, number) {
            Ok(charged) if charged.budget.overflow => shared += 1,
            Ok(_) => own += 1,
            Err(refused) => assert!(refused.budget.overflow, "only what is shared is exhausted"),
        }
    }
    assert!((1_023..=2_047).contains(&own), "{own} keys got a slot beside the exhausted one");
    assert_eq!(shared, 5, "the overflow budget is one key's");
    let refused = limiter.charge(&share, key(0), 0, 1, HOUR - 1).unwrap_err();
    assert!(!refused.budget.overflow);
    assert_eq!(refused.wait, Some(1));
    assert_eq!((share.page_count(), limiter.shared_bytes()), (pages, bytes));
}

#[test]
fn as_many_live_keys_as_asked_for_all_get_a_slot() {
    let mut solo = Solo::new(&settings(Algorithm::TokenBucket, quota(1, HOUR, 2), 65_536));
    for number in 0..65_536 {
        let charged = solo.charge(key(number), 1, 0).unwrap();
        assert!(!charged.budget.overflow, "key {number}");
    }
}

#[test]
fn a_small_table_holds_exactly_as_many_keys_as_asked_for_and_the_rest_share_one_budget() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        let mut solo = Solo::new(&settings(algorithm, quota(3, HOUR, 3), 4));
        for number in 0..4 {
            assert!(!solo.charge(key(number), 3, 0).unwrap().budget.overflow);
        }
        assert!(solo.charge(key(4), 2, 0).unwrap().budget.overflow);
        assert!(solo.charge(key(5), 1, 0).unwrap().budget.overflow);
        let refused = solo.charge(key(4), 1, 0).unwrap_err();
        assert!(refused.budget.overflow && refused.wait > Some(0));
        assert!(!solo.charge(key(0), 1, 0).unwrap_err().budget.overflow);
    }
}

#[test]
fn a_slot_is_handed_on_at_the_nanosecond_its_key_is_fresh_again_and_not_before() {
    let mut solo = Solo::new(&settings(Algorithm::TokenBucket, quota(7, SECOND, 3), 1));
    assert!(solo.takes(key(0), 3, 0));
    // Three tokens at seven a second are 428 571 428.57 ns.
    assert!(solo.charge(key(1), 1, 428_571_428).unwrap().budget.overflow);
    assert!(!solo.charge(key(1), 1, 428_571_429).unwrap().budget.overflow);
}

#[test]
fn a_refund_frees_a_slot_that_nothing_else_holds() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        let mut solo = Solo::new(&settings(algorithm, quota(3, HOUR, 3), 1));
        let charged = solo.charge(key(0), 1, SECOND).unwrap();
        assert!(solo.limiter.refund(&solo.share, charged, SECOND).is_ok());
        assert!(!solo.charge(key(1), 1, SECOND).unwrap().budget.overflow);
    }
}

#[test]
fn a_charge_to_the_overflow_budget_is_refunded_and_charged_late_there() {
    let mut solo = Solo::new(&settings(Algorithm::TokenBucket, quota(1, HOUR, 3), 1));
    assert!(solo.takes(key(0), 1, 0));
    let charged = solo.charge(key(1), 2, 0).unwrap();
    assert_eq!(charged.budget.remaining, 1);
    assert!(solo.limiter.refund(&solo.share, charged, 0).is_ok());
    assert_eq!(solo.remaining(key(2), 0), 3);
    let mut charged = solo.charge(key(1), 1, 0).unwrap();
    assert!(solo.limiter.charge_late(&solo.share, &mut charged, 4, 0).is_ok());
    assert_eq!(solo.wait(key(2), 1, 0), Some(3 * HOUR));
    assert_eq!(solo.remaining(key(0), 0), 2);
}

#[test]
fn what_a_response_adds_to_a_key_that_lost_its_slot_is_not_charged_to_others() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        let mut solo = Solo::new(&settings(algorithm, quota(3, SECOND, 3), 1));
        let mut slow = solo.charge(key(0), 1, 0).unwrap();
        // The slot is fresh again and goes to another key, which stays; so the next one shares the overflow budget.
        assert!(!solo.charge(key(1), 3, 2 * SECOND).unwrap().budget.overflow);
        assert!(solo.charge(key(2), 1, 2 * SECOND).unwrap().budget.overflow);
        let told = slow.budget;
        assert_eq!(solo.limiter.charge_late(&solo.share, &mut slow, 100, 2 * SECOND), Err(NotMade::NoSlot));
        assert_eq!((slow.budget, solo.remaining(key(2), 2 * SECOND)), (told, 2), "{algorithm:?}");
        assert_eq!(solo.remaining(key(1), 2 * SECOND), 0);
        // The control: once a slot is free again it is charged there.
        let later = 100 * SECOND;
        assert_eq!(solo.limiter.charge_late(&solo.share, &mut slow, 100, later), Ok(()));
        assert!(!slow.budget.overflow && !solo.takes(key(0), 1, later), "{algorithm:?}");
    }
}

#[test]
fn a_refund_is_whole_whatever_the_other_keys_of_its_page_were_promised() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        let mut solo = Solo::new(&settings(algorithm, quota(2, SECOND, 2), 8));
        let now = SECOND / 2;
        // Another key on the page has a place far ahead.
        for _ in 0..6 {
            assert!(solo.limiter.reserve(&solo.share, key(1), 0, 1, 60 * SECOND, now).is_ok());
        }
        let charged = solo.charge(key(0), 1, now).unwrap();
        assert!(solo.limiter.refund(&solo.share, charged, now).is_ok());
        assert_eq!(solo.remaining(key(0), now), 2, "{algorithm:?}");
    }
}

#[test]
fn keys_with_quotas_of_their_own_share_the_table_and_nothing_else() {
    let settings = Settings {
        quotas: vec![quota(1, HOUR, 1), quota(7, SECOND, 100)],
        algorithm: Algorithm::TokenBucket,
        max_keys: 2,
    };
    let mut solo = Solo::new(&settings);
    let mut take = |number, quota| {
        let charged = solo.limiter.charge(&solo.share, key(number), quota, 1, 0);
        charged.ok().map(|charged| (charged.budget.capacity, charged.budget.remaining, charged.budget.overflow))
    };
    assert_eq!(take(0, 0), Some((1, 0, false)));
    assert_eq!(take(1, 1), Some((100, 99, false)));
    assert_eq!(take(0, 0), None);
    assert_eq!(take(1, 1), Some((100, 98, false)));
    assert_eq!(take(2, 0), Some((1, 0, true)));
    assert_eq!(take(3, 1), Some((100, 99, true)), "each quota overflows into a budget of its own");
}

#[test]
fn what_was_asked_for_one_key_is_not_taken_for_another() {
    // One page for both. A look at one of them serves the charge that follows at the same time, if it is the same key's.
    let mut solo = Solo::new(&settings(Algorithm::TokenBucket, quota(5, SECOND, 5), 2));
    assert!(solo.takes(key(1), 5, SECOND));
    assert_eq!(solo.remaining(key(1), SECOND), 0);
    assert!(solo.takes(key(2), 5, SECOND));
    assert_eq!((solo.remaining(key(1), SECOND), solo.remaining(key(2), SECOND)), (0, 0));
    // The control: of the same key it tells.
    assert!(!solo.takes(key(2), 1, SECOND));
}
