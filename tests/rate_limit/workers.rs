//! Several workers, one budget.

use tidegate::control::rate_limit::{ATTEMPTS, Algorithm, KeyHash, NotMade, RateLimiter};
use tidegate::share::{Memory, ShareError};

use super::interleaved::*;
use super::support::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn of_eight_workers_that_meet_each_of_sixty_new_keys_at_once_exactly_one_gets_its_only_token() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        let workers = Workers::new(8, &settings(algorithm, quota(1, HOUR, 1), 1_024), SECOND);
        let script = (0..60).flat_map(|key| {
            (0..8).map(move |worker| Op { worker, key, act: Act::Charge { cost: 1 }, after: 0, within: worker > 0 })
        });
        let mut keys: Vec<_> = workers.run(script).iter().map(|request| request.key).collect();
        keys.sort_unstable();
        assert_eq!(keys, (0..60).collect::<Vec<_>>());
        assert_eq!(workers.refused.get(), 7 * 60);
    }
}

#[test]
fn new_keys_of_one_page_that_meet_in_it_all_get_their_token() {
    // Eight slots are one page: each store of the eight conflicts with those that came within.
    let workers = Workers::new(8, &settings(Algorithm::TokenBucket, quota(1, HOUR, 1), 8), 0);
    let script = (0..8).map(|worker| Op {
        worker,
        key: u64::try_from(worker).unwrap(),
        act: Act::Charge { cost: 1 },
        after: 0,
        within: worker > 0,
    });
    assert_eq!(workers.run(script).len(), 8);
    assert_eq!(workers.refused.get(), 0);
}

#[test]
fn a_worker_behind_in_time_gets_no_second_budget_after_its_slot_was_handed_on() {
    // One token per ten nanoseconds. At 10 the first key is fresh and the second takes over its slot, while the worker
    // that is about to charge the first key still believes it is 9.
    let workers = Workers::new(2, &settings(Algorithm::TokenBucket, quota(1, 10, 1), 2), 0);
    let admitted = workers.run([
        Op { worker: 0, key: 1, act: Act::Charge { cost: 1 }, after: 0, within: false },
        Op { worker: 0, key: 1, act: Act::Reserve { cost: 1, max_wait: 5 }, after: 9, within: false },
        Op { worker: 1, key: 2, act: Act::Charge { cost: 1 }, after: 1, within: true },
    ]);
    let own: Vec<_> = admitted.iter().filter(|request| request.key == 1).map(|request| request.at).collect();
    assert_eq!(own, [0, 10]);
}

#[test]
fn a_charge_that_always_comes_second_is_refused_and_says_why() {
    let share = Counting::default();
    let settings = settings(Algorithm::TokenBucket, quota(1, SECOND, 1), 1);
    let mut limiter = RateLimiter::new(&settings, &share, "limit").unwrap();
    share.fail_store.set(Some(ShareError::Conflict));
    let refused = limiter.charge(&share, KeyHash::NONE, 0, 1, 0).unwrap_err();
    assert!(refused.contended);
    assert_eq!(refused.conflicts, ATTEMPTS);
    assert_eq!(share.stores.get(), ATTEMPTS);
    assert_eq!((refused.wait, refused.budget.grows_in), (None, None), "nobody knows");
}

#[test]
fn a_refund_or_a_late_charge_that_always_comes_second_is_left_out_and_says_why() {
    let share = Counting::default();
    let settings = settings(Algorithm::TokenBucket, quota(1, HOUR, 5), 1);
    let mut limiter = RateLimiter::new(&settings, &share, "limit").unwrap();
    let mut charged = limiter.charge(&share, KeyHash::NONE, 0, 2, 0).unwrap();
    share.fail_store.set(Some(ShareError::Conflict));
    assert_eq!(limiter.charge_late(&share, &mut charged, 1, 0), Err(NotMade::Contended));
    assert_eq!(limiter.refund(&share, charged, 0), Err(NotMade::Contended));
    assert_eq!(share.stores.get(), 1 + 2 * ATTEMPTS);
    share.fail_store.set(None);
    assert_eq!(limiter.check(&share, KeyHash::NONE, 0, 1, 0).unwrap().remaining, 3, "the charge stands");
}

#[test]
fn without_shared_state_requests_are_admitted_and_the_failure_is_told() {
    let share = Counting::default();
    let settings = settings(Algorithm::TokenBucket, quota(1, SECOND, 5), 1);
    let mut limiter = RateLimiter::new(&settings, &share, "limit").unwrap();
    share.fail_store.set(Some(ShareError::Unavailable));
    assert!(limiter.charge(&share, KeyHash::NONE, 0, 1, 0).unwrap().failed());
    share.fail_load.set(Some(ShareError::Unavailable));
    for _ in 0..10 {
        let mut charged = limiter.charge(&share, KeyHash::NONE, 0, 1, 0).unwrap();
        assert!(charged.failed());
        assert_eq!(charged.budget.remaining, 5);
        assert!(limiter.check(&share, KeyHash::NONE, 0, 1, 0).is_ok());
        assert!(limiter.charge_late(&share, &mut charged, 9, 0).is_ok());
        assert!(limiter.refund(&share, charged, 0).is_ok());
    }
    share.fail_load.set(None);
    share.fail_store.set(None);
    assert!(limiter.charge(&share, KeyHash::NONE, 0, 5, 0).is_ok(), "what failed was not charged");
}

#[test]
fn an_admission_is_one_load_and_one_store_also_after_a_check_and_a_refusal_one_load() {
    let share = Counting::default();
    let settings = settings(Algorithm::TokenBucket, quota(1, HOUR, 2), 65_536);
    let mut limiter = RateLimiter::new(&settings, &share, "limit").unwrap();
    let mut cost = |what: &mut dyn FnMut(&mut RateLimiter)| {
        share.loads.set(0);
        share.stores.set(0);
        what(&mut limiter);
        (share.loads.get(), share.stores.get())
    };
    assert_eq!(cost(&mut |limiter| assert!(limiter.charge(&share, key(1), 0, 1, 0).is_ok())), (1, 1));
    let checked = cost(&mut |limiter| {
        assert!(limiter.check(&share, key(1), 0, 1, 0).is_ok());
        assert!(limiter.charge(&share, key(1), 0, 1, 0).is_ok());
    });
    assert_eq!(checked, (1, 1));
    assert_eq!(cost(&mut |limiter| assert!(limiter.charge(&share, key(1), 0, 1, 0).is_err())), (1, 0));
}

#[test]
fn a_check_made_before_another_workers_change_does_not_decide_the_charge() {
    let share = Memory::new();
    let settings = settings(Algorithm::TokenBucket, quota(1, HOUR, 1), 1);
    let mut one = RateLimiter::new(&settings, &share, "limit").unwrap();
    let mut two = RateLimiter::new(&settings, &share, "limit").unwrap();
    assert!(one.check(&share, KeyHash::NONE, 0, 1, 0).is_ok());
    assert!(two.charge(&share, KeyHash::NONE, 0, 1, 0).is_ok());
    assert_eq!(one.charge(&share, KeyHash::NONE, 0, 1, 0).unwrap_err().conflicts, 1);
}

#[test]
fn a_check_at_another_time_looks_again() {
    let share = Memory::new();
    let settings = settings(Algorithm::TokenBucket, quota(1, HOUR, 1), 1);
    let mut one = RateLimiter::new(&settings, &share, "limit").unwrap();
    let mut two = RateLimiter::new(&settings, &share, "limit").unwrap();
    assert!(one.check(&share, KeyHash::NONE, 0, 1, 0).is_ok());
    assert!(two.charge(&share, KeyHash::NONE, 0, 1, 0).is_ok());
    assert!(one.check(&share, KeyHash::NONE, 0, 1, 1).is_err());
}
