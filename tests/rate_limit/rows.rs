//! Limits whose settings change, on a host that never forgets a name.

use tidegate::control::rate_limit::{Algorithm, KeyHash, RateLimiter};
use tidegate::share::{GRACE, LEASE, ROWS, ShareError};

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

/// As many owners as there are rows, which all are in use.
fn all_rows(share: &Counting, now: u64) -> Vec<RateLimiter> {
    (1..=u64::try_from(ROWS).unwrap()).map(|owner| open(share, owner, now)).collect()
}

fn admitted(limiter: &mut RateLimiter, share: &Counting, now: u64) -> usize {
    let charged = (0..20).filter_map(|_| limiter.charge(share, NONE, 0, 1, now).ok());
    charged.inspect(|charged| assert!(!charged.failed())).count()
}

#[test]
fn a_live_limit_never_loses_its_row_and_one_too_many_holds_on_each_worker_until_there_is_one() {
    let share = Counting::default();
    let mut others = all_rows(&share, 0);
    for other in &mut others {
        assert_eq!(admitted(other, &share, 0), 5);
    }
    // It used to take the row of another, which from then on admitted everything.
    let (mut one, mut two) = (open(&share, 0, 1), open(&share, 0, 1));
    for late in [&mut one, &mut two] {
        assert_eq!((late.take_missed(), late.take_news(), late.take_news()), (1, Some(true), None));
        assert_eq!(admitted(late, &share, 1), 5, "no less than a bucket, and no more, for each worker");
    }
    for other in &mut others {
        assert_eq!((admitted(other, &share, 1), other.take_missed()), (0, 0));
    }
    // While nothing changes it looks in vain.
    one.keep(&share, 2);
    assert_eq!((one.take_missed(), one.take_news(), admitted(&mut one, &share, 2)), (1, None, 0));
    // A row is given up, and is free once the others have had time to say that they use it.
    others.pop().unwrap().release(&share, 2);
    one.keep(&share, 1 + GRACE);
    assert_eq!(one.take_missed(), 1);
    for late in [&mut one, &mut two] {
        late.keep(&share, 2 + GRACE);
        assert_eq!((late.take_missed(), late.take_news()), (0, Some(false)));
    }
    assert_eq!(admitted(&mut one, &share, 2 + GRACE), 5);
    assert_eq!(admitted(&mut two, &share, 2 + GRACE), 0, "one budget for both again");
}

#[test]
fn a_limit_that_each_worker_holds_keeps_a_budget_for_each_key() {
    let share = Counting::default();
    let _others = all_rows(&share, 0);
    let mut late = open(&share, 0, 1);
    for number in 0..1_000 {
        assert!(late.charge(&share, key(number), 0, 5, 1).is_ok_and(|charged| !charged.failed()), "{number}");
    }
    assert!((0..1_000).all(|number| late.charge(&share, key(number), 0, 1, 1).is_err()));
}

#[test]
fn who_has_lost_its_row_while_the_process_stood_still_has_another_at_its_next_request() {
    for all_taken in [false, true] {
        let share = Counting::default();
        let (mut lost, mut same) = (open(&share, 0, 0), open(&share, 0, 0));
        let charged = lost.charge(&share, NONE, 0, 1, 0).unwrap();
        assert_eq!(admitted(&mut lost, &share, 0), 4);
        let now = LEASE;
        // The control: of nobody it hears that it has lost anything.
        assert_eq!(admitted(&mut lost, &share, now), 0);
        let mut others = if all_taken { all_rows(&share, now) } else { vec![open(&share, 1, now)] };
        for other in &mut others {
            assert_eq!(admitted(other, &share, now), 5, "whose row it was is nothing to the new owner");
        }
        // It used to admit everything, for good.
        assert_eq!(admitted(&mut lost, &share, now), 5);
        assert_eq!((lost.take_missed(), lost.take_news()), (u64::from(all_taken), all_taken.then_some(true)));
        assert_eq!(lost.refund(&share, charged, now), Ok(()));
        let wait = lost.check(&share, NONE, 0, 1, now).unwrap_err().wait;
        assert_eq!(wait, Some(HOUR), "what it gives back is not of the new place");
        // One that only looks notices it as well, and so does one that only says that it is there.
        same.keep(&share, now);
        let there = if all_taken { 5 } else { 0 };
        assert_eq!(same.check(&share, NONE, 0, 0, now).unwrap().remaining, there);
        for other in &mut others {
            assert_eq!(admitted(other, &share, now), 0);
        }
    }
}

#[test]
fn a_check_notices_that_the_row_is_gone() {
    let share = Counting::default();
    let mut lost = open(&share, 0, 0);
    assert_eq!(admitted(&mut lost, &share, 0), 5);
    assert_eq!(admitted(&mut open(&share, 1, LEASE), &share, LEASE), 5);
    assert_eq!(lost.check(&share, NONE, 0, 5, LEASE).unwrap().remaining, 5);
    assert_eq!(admitted(&mut lost, &share, LEASE), 5);
    assert_eq!(lost.check(&share, NONE, 0, 1, LEASE).unwrap_err().budget.remaining, 0);
}

#[test]
fn changes_each_second_take_few_rows_where_the_settings_before_are_given_up() {
    let share = Counting::default();
    let mut pages = Vec::new();
    let mut before: Option<RateLimiter> = None;
    for change in 0..200 {
        let now = change * SECOND;
        let mut limiter = open(&share, change, now);
        assert_eq!((limiter.take_news(), admitted(&mut limiter, &share, now)), (None, 5));
        if let Some(before) = before.replace(limiter) {
            before.release(&share, now);
        }
        pages.push(share.page_count());
    }
    // As many as changes in the time for which a row is kept, and the two of now and before.
    let rows = |pages: u32, one: u32| pages.div_ceil(one);
    assert_eq!(pages[199], pages[10]);
    assert!(rows(pages[199], pages[0]) <= 7, "{} rows", rows(pages[199], pages[0]));
}

#[test]
fn a_row_that_one_worker_gives_up_stays_with_the_others_that_use_it() {
    let share = Counting::default();
    let (gone, mut kept) = (open(&share, 0, 0), open(&share, 0, 0));
    assert_eq!(admitted(&mut kept, &share, 0), 5);
    gone.release(&share, 2 * SECOND);
    assert_eq!(admitted(&mut open(&share, 500, 2 * SECOND), &share, 2 * SECOND), 5);
    kept.keep(&share, 3 * SECOND);
    for owner in 1..100 {
        let now = 3 * SECOND + GRACE + owner;
        open(&share, owner, now);
    }
    assert_eq!(admitted(&mut kept, &share, 4 * SECOND + GRACE), 0);
    assert_eq!(kept.take_news(), None);
}

#[test]
fn a_host_that_refuses_a_new_place_or_its_pages_leaves_each_worker_its_own() {
    // The register, and the pages of the second row.
    for refused in [" rows", "/1"] {
        let share = Counting::default();
        let mut lost = open(&share, 0, 0);
        assert_eq!(admitted(&mut lost, &share, 0), 5);
        assert_eq!(admitted(&mut open(&share, 1, LEASE), &share, LEASE), 5);
        share.refused_pages.set(Some(refused));
        assert_eq!(admitted(&mut lost, &share, LEASE), 5, "{refused}");
        assert_eq!((lost.take_missed(), lost.take_news()), (1, Some(true)), "{refused}");
        share.refused_pages.set(None);
        lost.keep(&share, LEASE);
        assert_eq!((lost.take_missed(), lost.take_news()), (0, Some(false)), "{refused}");
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
