//! Properties over any schedule.

use proptest::prelude::*;
use tidegate::control::Nanos;
use tidegate::control::rate_limit::{Algorithm, KeyHash, Quota};

use super::interleaved::*;
use super::support::*;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::FixedWindow];

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(&ALGORITHMS[..])
}

/// Small numbers, so that schedules meet boundaries, and rates of which few divide a second.
fn quotas() -> impl Strategy<Value = Quota> {
    let periods = prop_oneof![1..50u64, Just(SECOND), Just(60 * SECOND)];
    (1..12u64, periods, 1..12u64).prop_map(|(count, period, burst)| quota(count, period, burst))
}

fn acts(refunds: bool) -> impl Strategy<Value = Act> {
    let refund_weight = if refunds { 3 } else { 0 };
    prop_oneof![
        6 => (1..4u64).prop_map(|cost| Act::Charge { cost }),
        2 => (1..4u64, 0..100u64).prop_map(|(cost, max_wait)| Act::Reserve { cost, max_wait }),
        refund_weight => (0..8usize).prop_map(|nth| Act::Refund { nth }),
    ]
}

/// Steps of up to four workers on two keys; pauses in thousandths of the period.
fn scripts(refunds: bool, period: Nanos) -> impl Strategy<Value = Vec<Op>> {
    let after = prop_oneof![4 => Just(0u64), 4 => 1..300u64, 1 => 1_000..3_000u64];
    let op = (0..4usize, 0..2u64, acts(refunds), after, any::<bool>()).prop_map(
        move |(worker, key, act, thousandths, within)| {
            let after = if period < 1_000 { thousandths / 20 } else { period / 1_000 * thousandths };
            let act = match act {
                Act::Reserve { cost, max_wait } => {
                    Act::Reserve { cost, max_wait: if period < 1_000 { max_wait } else { period / 50 * max_wait } }
                }
                act => act,
            };
            Op { worker, key, act, after, within }
        },
    );
    prop::collection::vec(op, 1..120)
}

fn schedules(refunds: bool) -> impl Strategy<Value = (Quota, Vec<Op>, u64)> {
    quotas().prop_flat_map(move |quota| {
        (Just(quota), scripts(refunds, quota.period), prop_oneof![Just(0u64), 0..10 * SECOND])
    })
}

/// No stretch of time holds more than the burst and what the rate adds in it. A wait is a whole number of nanoseconds,
/// rounded up, so the stretch after it may be up to one nanosecond shorter than the bucket's.
fn exceeds(quota: Quota, admitted: &[&Admitted]) -> Option<(Nanos, Nanos, u128)> {
    let period = u128::from(quota.period);
    for (from, first) in admitted.iter().enumerate() {
        let mut sum = 0;
        for last in &admitted[from..] {
            sum += u128::from(last.cost);
            let time = u128::from(last.at - first.at + u64::from(first.paced));
            if sum * period > u128::from(quota.burst) * period + u128::from(quota.count) * time {
                return Some((first.at, last.at, sum));
            }
        }
    }
    None
}

/// What the definition of an algorithm says of a cost, after these.
fn conforms(algorithm: Algorithm, quota: Quota, log: &[(Nanos, u64)], cost: u64, at: Nanos) -> bool {
    let (count, period) = (u128::from(quota.count), u128::from(quota.period));
    let in_window = |window: Option<u64>| -> u128 {
        let those = log.iter().filter(|(at, _)| Some(at / quota.period) == window);
        those.map(|(_, cost)| u128::from(*cost)).sum()
    };
    let window = at / quota.period;
    let used = in_window(Some(window)) + u128::from(cost);
    match algorithm {
        Algorithm::TokenBucket => {
            // Tokens in units of 1/period: an exact fraction.
            let full = u128::from(quota.burst) * period;
            let (mut tokens, mut last) = (full, 0);
            for (at, cost) in log.iter().copied().chain([(at, cost)]) {
                tokens = full.min(tokens + u128::from(at - last) * count);
                match tokens.checked_sub(u128::from(cost) * period) {
                    Some(left) => tokens = left,
                    None => return false,
                }
                last = at;
            }
            true
        }
        Algorithm::FixedWindow => used <= count,
        Algorithm::SlidingWindow => {
            let left = u128::from(quota.period - at % quota.period);
            in_window(window.checked_sub(1)) * left / period + used <= count
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_token_bucket_never_admits_more_than_burst_and_rate_in_any_interleaving(
        (quota, script, start) in schedules(true),
    ) {
        let workers = Workers::new(4, &settings(Algorithm::TokenBucket, quota, 2), start);
        let admitted = workers.run(script);
        for key in 0..2 {
            let own: Vec<_> = admitted.iter().filter(|request| request.key == key).collect();
            prop_assert_eq!(exceeds(quota, &own), None);
        }
    }

    #[test]
    fn no_aligned_window_holds_more_than_its_count_in_any_interleaving(
        (quota, script, start) in schedules(true),
        sliding in any::<bool>(),
    ) {
        let algorithm = if sliding { Algorithm::SlidingWindow } else { Algorithm::FixedWindow };
        let workers = Workers::new(4, &settings(algorithm, quota, 2), start);
        let admitted = workers.run(script);
        for request in &admitted {
            let window = |at: Nanos| at / quota.period;
            let sum: u64 = admitted
                .iter()
                .filter(|other| other.key == request.key && window(other.at) == window(request.at))
                .map(|other| other.cost)
                .sum();
            prop_assert!(sum <= quota.count, "{} of {} in window {}", sum, quota.count, window(request.at));
        }
    }

    /// Of the previous window the sliding one covers what lies in the last `period - elapsed`. If that was `covered`, the
    /// estimate counts at least the share that has not faded, less than one request being rounded away. So an exact log
    /// holds at most `count + covered * elapsed / period` and less than one more: twice the count where all of the previous
    /// window came at its very end and this one is all but over, and the count itself where none did.
    #[test]
    fn a_sliding_window_passes_an_exact_log_by_no_more_than_the_share_that_fades((quota, script, start) in schedules(false)) {
        let workers = Workers::new(4, &settings(Algorithm::SlidingWindow, quota, 2), start);
        let admitted = workers.run(script);
        let period = u128::from(quota.period);
        for last in &admitted {
            let begin = last.at / quota.period * quota.period;
            let sum = |from: Nanos, to: Nanos| -> u128 {
                let those = admitted.iter().filter(|other| other.key == last.key && (from..=to).contains(&other.at));
                those.map(|other| u128::from(other.cost)).sum()
            };
            let covered = if begin > 0 { sum((last.at + 1).saturating_sub(quota.period), begin - 1) } else { 0 };
            let log = covered + sum(begin, last.at);
            let elapsed = u128::from(last.at - begin);
            prop_assert!(
                log * period < (u128::from(quota.count) + 1) * period + covered * elapsed,
                "{} in the period before {}, of which {} in the window before", log, last.at, covered
            );
        }
    }

    #[test]
    fn each_decision_of_any_worker_is_that_of_one_exact_limit_that_sees_them_in_order(
        algorithm in algorithms(),
        (quota, script, start) in schedules(false),
    ) {
        let script = script.into_iter().map(|op| Op {
            act: match op.act {
                Act::Reserve { cost, .. } => Act::Charge { cost },
                act => act,
            },
            ..op
        });
        let workers = Workers::new(4, &settings(algorithm, quota, 2), start);
        let _ = workers.run(script);
        // Both keys are on one page, which knows the newest time for which anybody was let through.
        let mut newest = 0;
        let mut logs = [Vec::new(), Vec::new()];
        for Asked { key, cost, now, admitted } in workers.asked.take() {
            let log = &mut logs[usize::try_from(key).unwrap()];
            let at = now.max(newest);
            prop_assert_eq!(admitted, conforms(algorithm, quota, log, cost, at), "{} at {} after {:?}", cost, at, log);
            if admitted {
                log.push((at, cost));
                newest = at;
            }
        }
    }

    #[test]
    fn one_worker_gets_all_that_an_exact_bucket_gives(
        quota in quotas(),
        costs in prop::collection::vec((1..4u64, 0..40u64), 1..100),
    ) {
        let mut solo = Solo::new(&settings(Algorithm::TokenBucket, quota, 1));
        // Tokens in units of 1/period: an exact fraction.
        let (period, full) = (u128::from(quota.period), u128::from(quota.burst) * u128::from(quota.period));
        let (mut tokens, mut now) = (full, 0);
        for (cost, step) in costs {
            let step = (quota.period / 37).max(1) * step;
            now += step;
            tokens = full.min(tokens + u128::from(step) * u128::from(quota.count));
            let wanted = u128::from(cost) * period;
            let conforms = tokens >= wanted;
            prop_assert_eq!(u128::from(solo.remaining(KeyHash::NONE, now)), tokens / period);
            prop_assert_eq!(solo.takes(KeyHash::NONE, cost, now), conforms);
            if conforms {
                tokens -= wanted;
            }
        }
    }

    #[test]
    fn a_request_passes_exactly_when_promised_and_no_nanosecond_earlier(
        algorithm in algorithms(),
        quota in quotas(),
        costs in prop::collection::vec((1..4u64, 0..2_000u64), 1..60),
        wanted in 1..6u64,
        late in 0..30u64,
    ) {
        let mut solo = Solo::new(&settings(algorithm, quota, 1));
        let mut now = 0;
        for (cost, thousandths) in costs {
            now += quota.period * thousandths / 1_000;
            if let Ok(mut charged) = solo.charge(KeyHash::NONE, cost, now) {
                prop_assert!(solo.limiter.charge_late(&solo.share, &mut charged, late, now).is_ok());
            }
        }
        let capacity = if algorithm == Algorithm::TokenBucket { quota.burst } else { quota.count };
        match solo.wait(KeyHash::NONE, wanted, now) {
            None => prop_assert!(wanted > capacity),
            Some(wait) => {
                if wait > 0 {
                    prop_assert!(!solo.takes(KeyHash::NONE, wanted, now + wait - 1));
                }
                prop_assert!(solo.takes(KeyHash::NONE, wanted, now + wait));
            }
        }
    }

    #[test]
    fn a_charge_agrees_with_the_check_before_it_and_what_is_told_holds(
        algorithm in algorithms(),
        quota in quotas(),
        costs in prop::collection::vec((0..5u64, 0..500u64), 1..60),
    ) {
        let mut solo = Solo::new(&settings(algorithm, quota, 1));
        let mut now = 0;
        for (cost, thousandths) in costs {
            now += quota.period * thousandths / 1_000;
            let checked = solo.limiter.check(&solo.share, KeyHash::NONE, 0, cost, now);
            let charged = solo.charge(KeyHash::NONE, cost, now);
            match (checked, charged) {
                (Ok(before), Ok(after)) => prop_assert_eq!(before.remaining - cost, after.budget.remaining),
                (Err(checked), Err(refused)) => prop_assert_eq!(checked, refused),
                (checked, charged) => prop_assert!(false, "{:?} but {:?}", checked, charged),
            }
            let told = solo.limiter.check(&solo.share, KeyHash::NONE, 0, 0, now).unwrap();
            prop_assert!(told.remaining <= told.capacity);
            prop_assert_eq!(told.grows_in.is_none(), told.remaining == told.capacity);
            if let Some(grows_in) = told.grows_in {
                prop_assert_eq!(solo.remaining(KeyHash::NONE, now + grows_in - 1), told.remaining);
                prop_assert!(solo.remaining(KeyHash::NONE, now + grows_in) > told.remaining);
            }
        }
    }

    #[test]
    fn a_refund_at_once_leaves_everything_as_before(
        algorithm in algorithms(),
        quota in quotas(),
        costs in prop::collection::vec((1..4u64, 0..500u64), 0..40),
        cost in 1..5u64,
    ) {
        let mut solo = Solo::new(&settings(algorithm, quota, 1));
        let mut now = 7;
        for (cost, thousandths) in costs {
            now += quota.period * thousandths / 1_000;
            let _ = solo.takes(KeyHash::NONE, cost, now);
        }
        let told = |solo: &mut Solo| -> Vec<_> {
            (0..40u64)
                .map(|step| now + quota.period * step / 10)
                .map(|at| solo.limiter.check(&solo.share, KeyHash::NONE, 0, quota.burst.min(quota.count), at))
                .collect()
        };
        let before = told(&mut solo);
        if let Ok(charged) = solo.charge(KeyHash::NONE, cost, now) {
            prop_assert!(solo.limiter.refund(&solo.share, charged, now).is_ok());
        }
        prop_assert_eq!(before, told(&mut solo));
    }
}
