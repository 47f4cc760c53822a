//! What clients are told of rate limits in the responses of admitted requests and in rejections.

use super::workers::{Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn ok() -> Answer {
    Answer::status("200")
}

/// Three policies that apply to the same request, of which one has its headers off and one is a shadow.
const SEVERAL: &str = r#"{"policies": [
    {"name": "a", "headers": {"ratelimit": "both"}, "rate_limits": [
        {"name": "wide", "rate": "100/h"}, {"name": "each", "rate": "60/h", "burst": 3, "key": [{"header": "x-client"}]}]},
    {"name": "b", "headers": {"ratelimit": "both"}, "rate_limits": [{"name": "tight", "rate": "2/h"}]},
    {"name": "c", "headers": {"ratelimit": "off"}, "rate_limits": [{"name": "quiet", "rate": "10/h"}]},
    {"name": "d", "mode": "shadow", "headers": {"ratelimit": "both"}, "rate_limits": [{"name": "dark", "rate": "1/h"}]}]}"#;

#[test]
fn several_policies_tell_each_header_once_and_the_trio_of_the_tightest() {
    let mut proxy = Workers::new(1, SEVERAL);
    let admitted = proxy.ask(0, &[("x-client", "a")]).unwrap();
    assert_eq!(
        proxy.answer(admitted, &ok()),
        [
            r#"ratelimit-policy: "wide";q=100;w=3600, "each";q=60;w=3600, "tight";q=2;w=3600"#,
            r#"ratelimit: "wide";r=99;t=36, "each";r=2;t=60, "tight";r=1;t=1800"#,
            "x-ratelimit-limit: 2",
            "x-ratelimit-remaining: 1",
            "x-ratelimit-reset: 1800",
        ]
    );
    proxy.serve(0, &[("x-client", "a")], &ok());
    let (reply, line) = proxy.ask(0, &[("x-client", "a")]).unwrap_err();
    assert_eq!(line, "rate_limited;policy=b;limit=tight");
    let told: Vec<_> = reply.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(
        told[..7],
        [
            "retry-after: 1800",
            "x-tidegate-reason: rate_limited;policy=b;limit=tight",
            r#"ratelimit-policy: "wide";q=100;w=3600, "each";q=60;w=3600, "tight";q=2;w=3600"#,
            r#"ratelimit: "wide";r=98;t=36, "each";r=1;t=60, "tight";r=0;t=1800"#,
            "x-ratelimit-limit: 2",
            "x-ratelimit-remaining: 0",
            "x-ratelimit-reset: 1800",
        ]
    );
}

#[test]
fn what_an_upstream_says_of_limits_stays_in_the_lists_and_is_replaced_in_the_trio() {
    let upstreams = ok()
        .header("ratelimit-policy", r#""theirs";q=9;w=1"#)
        .header("ratelimit", r#""theirs";r=8;t=1"#)
        .header("x-ratelimit-limit", "9")
        .header("x-ratelimit-limit", "7")
        .header("x-ratelimit-remaining", "8")
        .header("x-ratelimit-reset", "1");
    let told = |told: &str| {
        let mut proxy = Workers::new(
            1,
            &format!(
                r#"{{"policies": [{{"name": "p", "headers": {{"ratelimit": "{told}"}}, "rate_limits": [{{"name": "r", "rate": "2/h"}}]}}]}}"#
            ),
        );
        let admitted = proxy.ask(0, &[]).unwrap();
        proxy.answer(admitted, &upstreams)
    };
    let theirs = [r#"ratelimit-policy: "theirs";q=9;w=1"#, r#"ratelimit: "theirs";r=8;t=1"#];
    let ours = [r#"ratelimit-policy: "r";q=2;w=3600"#, r#"ratelimit: "r";r=1;t=1800"#];
    let trio = ["x-ratelimit-limit: 2", "x-ratelimit-remaining: 1", "x-ratelimit-reset: 1800"];
    assert_eq!(told("both"), [&theirs[..], &ours, &trio].concat());
    assert_eq!(told("legacy"), [&theirs[..], &trio].concat());
    // The controls: what nobody wants told is the upstream's to tell.
    let their_trio =
        ["x-ratelimit-limit: 9", "x-ratelimit-limit: 7", "x-ratelimit-remaining: 8", "x-ratelimit-reset: 1"];
    assert_eq!(told("ietf"), [&theirs[..], &their_trio, &ours].concat());
    assert_eq!(told("off"), [&theirs[..], &their_trio].concat());
}

#[test]
fn what_is_told_counts_from_the_response_however_long_the_upstream_took() {
    let mut proxy =
        Workers::new(1, r#"{"policies": [{"name": "p", "rate_limits": [{"name": "r", "rate": "2/h", "burst": 2}]}]}"#);
    for (takes, told) in [(600, r#"ratelimit: "r";r=1;t=1200"#), (1_200, r#"ratelimit: "r";r=0;t=0"#)] {
        let admitted = proxy.ask(0, &[]).unwrap();
        proxy.advance(takes * SECOND);
        assert_eq!(proxy.answer(admitted, &ok())[1], told);
    }
    // What the response adds is charged then, and told as it is then.
    let mut proxy = Workers::new(
        1,
        r#"{"policies": [{"name": "p", "rate_limits": [
            {"name": "r", "rate": "10/m", "charge_response": {"header": "x-tokens-used"}}]}]}"#,
    );
    let admitted = proxy.ask(0, &[]).unwrap();
    proxy.advance(6 * SECOND);
    assert_eq!(proxy.answer(admitted, &ok().header("x-tokens-used", "20"))[1], r#"ratelimit: "r";r=0;t=66"#);
}
