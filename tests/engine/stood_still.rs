//! Requests that are held while the process stands still: their times pass, and they are not to go on all at once.

use super::workers::{Admitted, Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MS: u64 = 1_000_000;
/// As the docs say.
const LATE: u64 = 100 * MS;

fn limit(settings: &str) -> String {
    format!(r#"{{"policies": [{{"name": "p", "rate_limits": [{{"name": "r", {settings}}}]}}]}}"#)
}

/// So many requests at once, over all workers; those that are not held have gone on.
fn hold(proxy: &mut Workers, count: usize, workers: usize) -> Vec<Admitted> {
    let asked = (0..count).map(|turn| proxy.ask(turn % workers, &[]).expect("held at most"));
    asked.filter(|request| request.until.is_some()).collect()
}

/// Lets everybody who is held go on as they can, a worker's timer going off at each time that was given out but not before
/// now: when each went on, in milliseconds from now. Those that were rejected are left out.
fn gone_on(proxy: &mut Workers, mut held: Vec<Admitted>) -> Vec<u64> {
    let (from, mut times) = (proxy.now, Vec::new());
    while !held.is_empty() {
        held.sort_by_key(|request| request.until);
        let next = held.remove(0);
        proxy.now = proxy.now.max(next.until.unwrap());
        match proxy.resume(next) {
            Ok(again) if again.until.is_some() => held.push(again),
            Ok(admitted) => {
                times.push((proxy.now - from) / MS);
                proxy.answer(admitted, &Answer::status("200"));
            }
            Err((_, line)) => assert_eq!(line, "rate_limited;policy=p;limit=r"),
        }
    }
    times
}

#[test]
fn those_whose_time_passed_while_the_process_stood_still_are_spaced_anew() {
    let mut proxy = Workers::new(4, &limit(r#""rate": "10/s", "burst": 2, "pace": {"max_wait": "1s"}"#));
    let held = hold(&mut proxy, 12, 4);
    proxy.advance(5 * SECOND);
    // The bucket has refilled to its burst and no further.
    assert_eq!(gone_on(&mut proxy, held), [0, 0, 100, 200, 300, 400, 500, 600, 700, 800]);
    assert_eq!(proxy.stat("tidegate_requests_total.policy.p.decision.admitted"), 12);
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 0);
}

#[test]
fn those_whose_time_is_yet_to_come_keep_it_and_the_others_go_behind_them() {
    let mut proxy = Workers::new(2, &limit(r#""rate": "10/s", "burst": 1, "pace": {"max_wait": "1s"}"#));
    let held = hold(&mut proxy, 11, 2);
    proxy.advance(550 * MS);
    // 100 to 400 have passed; 500 is late as timers are; 600 to 1000 stand.
    assert_eq!(gone_on(&mut proxy, held), [0, 50, 150, 250, 350, 450, 550, 650, 750, 850]);
}

#[test]
fn who_is_late_as_a_busy_worker_is_goes_on_with_the_time_that_was_given() {
    let config = limit(r#""rate": "50/s", "burst": 1, "pace": {"max_wait": "1s"}"#);
    // Six are due, from 20 to 120 ms; with a nanosecond more the first of them has to go behind those of 140 to 200.
    for (late, expected) in
        [(LATE, [0, 0, 0, 0, 0, 0, 20, 40, 60, 80]), (LATE + 1, [0, 0, 0, 0, 0, 19, 39, 59, 79, 99])]
    {
        let mut proxy = Workers::new(1, &config);
        let held = hold(&mut proxy, 11, 1);
        proxy.advance(20 * MS + late);
        assert_eq!(gone_on(&mut proxy, held), expected, "{late}");
    }
    // Where the next one's time comes only after a second, nobody else's is taken by one who is half of that late.
    let mut proxy = Workers::new(1, &limit(r#""rate": "1/s", "burst": 1, "pace": {"max_wait": "10s"}"#));
    let held = hold(&mut proxy, 4, 1);
    proxy.advance(1500 * MS);
    assert_eq!(gone_on(&mut proxy, held), [0, 500, 1500]);
}

#[test]
fn those_for_whom_there_is_no_time_any_more_are_rejected_and_told_how_long_to_wait() {
    let mut proxy = Workers::new(1, &limit(r#""rate": "10/s", "burst": 1, "pace": {"max_wait": "200ms"}"#));
    let held = hold(&mut proxy, 3, 1);
    proxy.advance(5 * SECOND);
    // Others were here first when it ran again.
    let mut others = hold(&mut proxy, 3, 1);
    let mut late = held.into_iter().map(|request| proxy.resume(request));
    for _ in 0..2 {
        let (reply, line) = late.next().unwrap().expect_err("it would wait for 300 ms");
        assert_eq!(line, "rate_limited;policy=p;limit=r");
        assert!(reply.headers.contains(&("retry-after".to_owned(), "1".to_owned())), "{reply:?}");
    }
    drop(late);
    // They took nothing from those who come next.
    proxy.advance(100 * MS);
    others.push(proxy.ask(0, &[]).unwrap());
    assert_eq!(gone_on(&mut proxy, others), [0, 100, 200]);
    assert_eq!(proxy.stat("tidegate_queue_length.policy.p"), 0);
}

#[test]
fn a_window_that_goes_on_still_holds_what_was_charged_in_it() {
    for (algorithm, anew) in [("fixed_window", [0, 0, 1000, 1000]), ("sliding_window", [0, 0, 1000, 1500])] {
        let config = |period| {
            limit(&format!(r#""algorithm": "{algorithm}", "rate": "2/{period}", "pace": {{"max_wait": "1m"}}"#))
        };
        // Held until the next minute, and late within it.
        let mut proxy = Workers::new(2, &config("m"));
        proxy.now = 3645 * SECOND;
        let held = hold(&mut proxy, 4, 2);
        proxy.now = held.last().unwrap().until.unwrap() + 5 * SECOND;
        assert_eq!(gone_on(&mut proxy, held), [0, 0], "{algorithm}");
        // Held until seconds that have passed.
        let mut proxy = Workers::new(2, &config("s"));
        proxy.now = 3600 * SECOND;
        let held = hold(&mut proxy, 6, 2);
        proxy.now = 3610 * SECOND;
        assert_eq!(gone_on(&mut proxy, held), anew, "{algorithm}");
    }
}

#[test]
fn only_the_limits_that_hold_are_charged_again() {
    let mut proxy = Workers::new(
        1,
        r#"{"policies": [{"name": "p", "rate_limits": [
            {"name": "r", "rate": "10/s", "burst": 1, "pace": {"max_wait": "1s"}},
            {"name": "all", "rate": "12/h"}]}]}"#,
    );
    let held = hold(&mut proxy, 11, 1);
    proxy.advance(5 * SECOND);
    assert_eq!(gone_on(&mut proxy, held).len(), 10);
    // Eleven of the hour's twelve were used, each once.
    assert!(proxy.ask(0, &[]).is_ok());
    assert_eq!(proxy.ask(0, &[]).unwrap_err().1, "rate_limited;policy=p;limit=all");
}

#[test]
fn one_that_cannot_be_read_again_is_spaced_like_the_others() {
    let mut proxy = Workers::new(1, &limit(r#""rate": "10/s", "burst": 1, "pace": {"max_wait": "1s"}"#));
    let held = hold(&mut proxy, 4, 1);
    proxy.advance(5 * SECOND);
    let now = proxy.now;
    let until: Vec<_> = held.into_iter().map(|request| proxy.resume_unread(request).unwrap().until).collect();
    assert_eq!(until, [None, Some(now + 100 * MS), Some(now + 200 * MS)]);
}

#[cfg(not(target_family = "wasm"))]
mod any {
    use super::{Admitted, Answer, LATE, MS, SECOND, Workers, limit};
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes when, and however long the process stands still: what goes on within any time is no more than
        /// the bucket holds for it, and for as long as somebody may be late.
        #[test]
        fn what_goes_on_stays_within_the_bucket(
            (rate, burst) in (1u64..200, 1u64..20),
            arrivals in prop::collection::vec((0u64..2000, 0usize..3), 1..150),
            stops in prop::collection::vec((0u64..3000, 1u64..3000), 0..4),
        ) {
            let config =
                limit(&format!(r#""rate": "{rate}/s", "burst": {burst}, "pace": {{"max_wait": "1s"}}"#));
            let mut proxy = Workers::new(3, &config);
            let start = proxy.now;
            // Nothing runs in a stop: what comes or is due then, does so at its end.
            let runs_at = |mut at: u64| {
                while let Some((from, long)) = stops.iter().find(|(from, long)| {
                    (start + from * MS..start + (from + long) * MS).contains(&at)
                }) {
                    at = start + (from + long) * MS;
                }
                at
            };
            let mut arrivals: Vec<_> = arrivals.iter().map(|(at, worker)| (runs_at(start + at * MS), *worker)).collect();
            arrivals.sort_unstable();
            arrivals.reverse();
            let (mut held, mut gone) = (Vec::<Admitted>::new(), Vec::new());
            loop {
                held.sort_by_key(|request| std::cmp::Reverse(request.until));
                let due = held.last().map(|request| runs_at(request.until.unwrap().max(proxy.now)));
                let comes = arrivals.last().map(|(at, _)| *at);
                let asked = match (due, comes) {
                    (None, None) => break,
                    (Some(due), comes) if comes.is_none_or(|comes| due <= comes) => {
                        proxy.now = due;
                        proxy.resume(held.pop().unwrap())
                    }
                    _ => {
                        let (at, worker) = arrivals.pop().unwrap();
                        proxy.now = proxy.now.max(at);
                        proxy.ask(worker, &[])
                    }
                };
                match asked {
                    Ok(request) if request.until.is_some() => held.push(request),
                    Ok(request) => {
                        gone.push(proxy.now);
                        proxy.answer(request, &Answer::status("200"));
                    }
                    Err(_) => {}
                }
            }
            let late = LATE.max(SECOND.div_ceil(rate));
            for (first, from) in gone.iter().enumerate() {
                for (last, to) in gone.iter().enumerate().skip(first) {
                    // A nanosecond more: each time is rounded to whole ones.
                    let most = burst + (to - from + late + 1) * rate / SECOND;
                    prop_assert!((last - first + 1) as u64 <= most, "{} within {} ns", last - first + 1, to - from);
                }
            }
        }
    }
}
