//! Requests that say how much time they have left, before rate limits that hold them and upstreams that take long.

use super::workers::{Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MS: u64 = SECOND / 1000;
const LATE: &str = "overloaded;policy=p;cause=deadline";

fn ok() -> Answer {
    Answer::status("200")
}

fn paced(burst: u32) -> String {
    format!(
        r#"{{"policies": [{{"name": "p",
            "rate_limits": [{{"name": "r", "rate": "5/s", "burst": {burst}, "pace": {{"max_wait": "10s"}}}}],
            "load_shedding": {{"limit": {{"algorithm": "fixed", "limit": 60}}, "deadline": {{"header": "x-left"}}}}}}]}}"#
    )
}

/// For how long a request is held that has so much time left, or how it is refused and after how many seconds it may come
/// again.
fn held_for(proxy: &mut Workers, left: &str) -> Result<u64, (String, Option<String>)> {
    let headers: &[(&str, &str)] = if left.is_empty() { &[] } else { &[("x-left", left)] };
    let asked = proxy.ask(0, headers).map_err(|(reply, line)| {
        let after = reply.headers.into_iter().find(|(name, _)| name == "retry-after");
        (line, after.map(|(_, seconds)| seconds))
    })?;
    let until = asked.until.expect("it is held");
    let held = (until - proxy.now) / MS;
    let now = std::mem::replace(&mut proxy.now, until);
    let goes_on = proxy.resume(asked).expect("in time");
    proxy.answer(goes_on, &ok());
    proxy.now = now;
    Ok(held)
}

/// It was held for longer than it had time, and sent upstream then.
#[test]
fn who_would_be_held_for_longer_than_it_has_time_is_rejected_on_arrival_and_charged_nothing() {
    let mut proxy = Workers::new(1, &paced(1));
    let first = proxy.ask(0, &[]).unwrap();
    proxy.answer(first, &ok());
    let late = |after: &str| Err((LATE.to_owned(), Some(after.to_owned())));
    assert_eq!(held_for(&mut proxy, "10"), late("1"));
    assert_eq!(held_for(&mut proxy, "200"), late("1"), "nothing is left when it goes on");
    assert_eq!(held_for(&mut proxy, "201"), Ok(200), "those before were not charged");
    assert_eq!(held_for(&mut proxy, "399"), late("1"));
    assert_eq!(held_for(&mut proxy, ""), Ok(400), "the control");
    assert_eq!(proxy.stat("tidegate_inflight.policy.p"), 0);
}

/// It was held, and refused when it went on, for what was known when it came.
#[test]
fn what_a_rate_limit_holds_counts_beside_what_work_takes() {
    let mut proxy = Workers::new(1, &paced(50));
    for _ in 0..30 {
        let one = proxy.ask(0, &[]).unwrap();
        proxy.advance(400 * MS);
        proxy.answer(one, &ok());
        proxy.tick();
    }
    let busy: Vec<_> = (0..50).map(|_| proxy.ask(0, &[]).unwrap()).collect();
    assert!(busy.iter().all(|one| one.until.is_none()));
    assert_eq!(held_for(&mut proxy, "590"), Err((LATE.to_owned(), Some("1".to_owned()))));
    assert_eq!(held_for(&mut proxy, "300"), Err((LATE.to_owned(), None)), "it never would be in time");
    assert_eq!(held_for(&mut proxy, "610"), Ok(200));
    assert_eq!(held_for(&mut proxy, "790"), Err((LATE.to_owned(), Some("1".to_owned()))));
    assert_eq!(held_for(&mut proxy, "810"), Ok(400));
}

#[test]
fn whose_time_is_over_when_it_goes_on_is_not_sent_upstream_and_gives_its_charge_back() {
    let mut proxy = Workers::new(1, &paced(1));
    let _first = proxy.ask(0, &[]).unwrap();
    let held = proxy.ask(0, &[("x-left", "300")]).unwrap();
    // The worker was busy.
    proxy.advance(299 * MS);
    let goes_on = proxy.resume(held).unwrap();
    proxy.answer(goes_on, &ok());
    let held = proxy.ask(0, &[("x-left", "300")]).unwrap();
    proxy.advance(300 * MS);
    assert_eq!(proxy.resume(held).expect_err("too late").1, LATE);
    assert!(proxy.ask(0, &[]).unwrap().until.is_none(), "the token is there again");
}

/// No time was more than none was needed.
#[test]
fn who_has_no_time_left_is_refused_whatever_is_known() {
    for (header, none, some) in [("x-left", "0", "1"), ("grpc-timeout", "0n", "1n")] {
        let mut proxy = Workers::new(1, &paced(50).replace("x-left", header));
        for busy in [false, true] {
            let _busy = busy.then(|| proxy.ask(0, &[]).unwrap());
            assert_eq!(proxy.ask(0, &[(header, none)]).expect_err("no time").1, LATE, "{header}");
            assert!(proxy.ask(0, &[(header, some)]).is_ok(), "{header}");
        }
    }
}
