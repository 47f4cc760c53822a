//! Keys that have a quota of their own, or none.

use super::workers::{Answer, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const OVERFLOW: &str = "tidegate_rate_limit_overflow_total.policy.p.limit.r";

fn limit(key: &str, overrides: &str) -> String {
    format!(
        r#"{{"policies": [{{"name": "p", "rate_limits": [
            {{"name": "r", "rate": "2/h", "key": {key}, "overrides": [{overrides}]}}]}}]}}"#
    )
}

/// What clients with these headers are told of the policy and the limit; nothing if they are told nothing.
fn told(proxy: &mut Workers, headers: &[(&str, &str)]) -> Option<String> {
    let admitted = proxy.ask(0, headers).unwrap();
    let told = proxy.answer(admitted, &Answer::status("200"));
    let value = |line: &String| line.split_once(": ").unwrap().1.to_owned();
    (!told.is_empty()).then(|| told.iter().map(value).collect::<Vec<_>>().join(" "))
}

fn admitted(proxy: &mut Workers, headers: &[(&str, &str)], of: usize) -> usize {
    (0..of).filter(|turn| proxy.serve(turn % 2, headers, &Answer::status("200")) == "admitted").count()
}

#[test]
fn a_key_has_its_own_quota_over_all_workers_and_an_unlimited_one_has_none() {
    let overrides = r#"{"key": ["gold"], "rate": "10/h", "burst": 5}, {"key": ["free"], "unlimited": true},
                       {"key": [""], "rate": "1/h"}"#;
    let mut proxy = Workers::new(2, &limit(r#"[{"header": "x-client"}]"#, overrides));
    let client = |name: &'static str| [("x-client", name)];
    assert_eq!(told(&mut proxy, &client("gold")).unwrap(), r#""r";q=10;w=3600 "r";r=4;t=360"#);
    assert_eq!(told(&mut proxy, &client("free")), None, "nothing limits it");
    assert_eq!(told(&mut proxy, &client("Gold")).unwrap(), r#""r";q=2;w=3600 "r";r=1;t=1800"#);
    for (name, more) in [("gold", 4), ("free", 40), ("Gold", 1), ("golde", 2), ("gol", 2), ("", 1)] {
        assert_eq!(admitted(&mut proxy, &client(name), 40), more, "{name:?}");
    }
    let (_, line) = proxy.ask(0, &client("gold")).unwrap_err();
    assert_eq!(line, "rate_limited;policy=p;limit=r");
}

#[test]
fn a_key_of_several_values_has_its_override_when_all_of_them_are_the_same_and_in_order() {
    let key = r#"[{"header": "x-client"}, {"header": "x-tier"}]"#;
    let mut proxy = Workers::new(2, &limit(key, r#"{"key": ["a", "bc"], "rate": "5/h"}"#));
    for (client, tier, expected) in [("a", "bc", 5), ("ab", "c", 2), ("bc", "a", 2), ("a", "b", 2), ("", "abc", 2)] {
        assert_eq!(admitted(&mut proxy, &[("x-client", client), ("x-tier", tier)], 10), expected, "{client} {tier}");
    }
}

#[test]
fn each_of_a_thousand_overrides_is_its_keys() {
    let one = |number: usize| match number % 10 {
        0 => format!(r#"{{"key": ["client-{number}"], "unlimited": true}}"#),
        _ => format!(r#"{{"key": ["client-{number}"], "rate": "{}/h"}}"#, 10 + number),
    };
    let overrides: Vec<_> = (0..1_000).map(one).collect();
    let mut proxy = Workers::new(2, &limit(r#"[{"header": "x-client"}]"#, &overrides.join(", ")));
    for number in 0..1_000 {
        let client = format!("client-{number}");
        let quota = (number % 10 != 0).then(|| format!(r#""r";q={};w=3600 "#, 10 + number));
        let told = told(&mut proxy, &[("x-client", &client)]);
        assert!(
            quota.as_ref().map_or(told.is_none(), |quota| told.as_ref().unwrap().starts_with(quota)),
            "{client}: {told:?}"
        );
    }
    assert_eq!(admitted(&mut proxy, &[("x-client", "client-999")], 2_000), 1_008, "of 1009 one is used");
    assert_eq!(admitted(&mut proxy, &[("x-client", "client-1000")], 10), 2, "the limit's own");
    assert_eq!(proxy.stat(OVERFLOW), 0);
}
