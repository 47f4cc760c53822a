//! Limits whose settings change, on a host that never forgets a name.

use tidegate::control::rate_limit::{Algorithm, KeyHash, RateLimiter};
use tidegate::share::{LEASE, ROWS, ShareError};

use super::support::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NONE: KeyHash = KeyHash::NONE;

fn open(share: &Counting, owner: u64, now: u64) -> RateLimiter {
    let settings = settings(Algorithm::TokenBucket, quota(1, HOUR, 5), 1_000);
    RateLimiter::reusing(&settings, share, "limit", owner, now).unwrap()
}

#[test]
fn the_same_owner_finds_its_balances_and_another_has_its_own() {
    let share = Counting::default();
    assert!(open(&share, 1, 0).charge(&share, NONE, 0, 5, 0).is_ok());
    assert!(open(&share, 1, 1).charge(&share, NONE, 0, 1, 1).is_err());
    assert!(open(&share, 2, 2).charge(&share, NONE, 0, 5, 2).is_ok());
    assert!(open(&share, 1, 3).charge(&share, NONE, 0, 1, 3).is_err(), "back again, also after another");
}

#[test]
fn a_thousand_changes_take_no_more_pages_than_the_first_two() {
    let share = Counting::default();
    let mut opened = Vec::new();
    for change in 0..1_000 {
        let now = change * LEASE / 2;
        let mut limiter = open(&share, change, now);
        assert!(limiter.charge(&share, NONE, 0, 5, now).is_ok(), "a changed limit starts anew");
        assert!(limiter.charge(&share, NONE, 0, 1, now).is_err());
        opened.push(share.page_count());
    }
    assert_eq!(opened[2], opened[999]);
    // The control: a name for each would have taken pages for each.
    assert!(opened[999] < 1_000 * opened[0] / 50, "{} pages", opened[999]);
}

#[test]
fn a_row_in_use_is_not_given_away_while_it_is_kept() {
    let share = Counting::default();
    let mut kept = open(&share, 1, 0);
    assert!(kept.charge(&share, NONE, 0, 5, 0).is_ok());
    let mut now = 0;
    for change in 2..100 {
        now += LEASE / 2;
        kept.keep(&share, now);
        assert!(open(&share, change, now).charge(&share, NONE, 0, 5, now).is_ok());
    }
    let refused = kept.charge(&share, NONE, 0, 1, now).unwrap_err();
    assert!(refused.wait.is_some());
}

#[test]
fn who_has_lost_its_row_sees_nothing_of_the_new_owners_and_says_so() {
    let share = Counting::default();
    let mut lost = open(&share, 0, 0);
    assert!(lost.charge(&share, NONE, 0, 5, 0).is_ok());
    let mut others: Vec<_> = (1..=u64::try_from(ROWS).unwrap()).map(|owner| open(&share, owner, 1)).collect();
    let now = 2;
    for other in &mut others {
        assert!(other.charge(&share, NONE, 0, 4, now).is_ok());
    }
    let charged = lost.charge(&share, NONE, 0, 1, now).unwrap();
    assert!(charged.failed(), "admitted, and to be counted");
    for other in &mut others {
        assert!(other.charge(&share, NONE, 0, 1, now).is_ok());
        assert!(other.charge(&share, NONE, 0, 1, now).is_err());
    }
}

#[test]
fn two_workers_that_configure_the_same_at_once_share_one_row() {
    let share = Counting::default();
    let (mut one, mut two) = (open(&share, 7, 0), open(&share, 7, 0));
    assert!(one.charge(&share, NONE, 0, 3, 0).is_ok());
    assert!(two.charge(&share, NONE, 0, 3, 0).is_err());
}

#[test]
fn a_host_that_always_says_another_was_first_refuses_a_limit_and_does_not_hang() {
    let share = Counting::default();
    share.fail_store.set(Some(ShareError::Conflict));
    let settings = settings(Algorithm::TokenBucket, quota(1, HOUR, 5), 1_000);
    let refused = RateLimiter::reusing(&settings, &share, "limit", 1, 0).err();
    assert_eq!(refused, Some(ShareError::Conflict));
    share.fail_store.set(None);
    assert!(open(&share, 1, 0).charge(&share, NONE, 0, 5, 0).is_ok());
}
