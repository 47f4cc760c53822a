//! What responses say of limits, and what they add to them.

use serde_json::json;
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Response};
use tidegate_harness::upstream::Behaviour;

use crate::support::{InTurn, SOON, all_took_part, client, limits, start, tidegate, volley};
use crate::with_1_2_4_and_8_workers;

/// `;r=` of a limit in a response, and its `;t=`.
fn told(response: &Response, limit: &str) -> (u64, Option<u64>) {
    let field = response.header("ratelimit").unwrap_or_else(|| panic!("no RateLimit in {response:?}"));
    let item = field.split(", ").find(|item| item.starts_with(&format!("\"{limit}\""))).expect(field);
    let number = |name: &str| {
        let text = item.split(';').find_map(|part| part.strip_prefix(name));
        text.map(|text| text.parse().expect(item))
    };
    (number("r=").expect(item), number("t="))
}

with_1_2_4_and_8_workers!(
    a_cost_that_the_upstream_tells_is_charged_on_every_worker,
    what_is_overdrawn_is_what_was_under_way,
    several_limits_are_several_items_and_retry_after_is_never_earlier_than_t,
    policies_that_apply_together_tell_each_header_once,
);

async fn a_cost_that_the_upstream_tells_is_charged_on_every_worker(workers: u32) {
    let limit = |charge: serde_json::Value| {
        let mut limit = json!({"name": "tokens", "rate": "10/h", "key": [{"header": "x-client"}]});
        limit["charge_response"] = charge;
        limit
    };
    let charging = limits(json!([limit(json!({"header": "x-tokens-used"}))]));
    let mut without = limits(json!([limit(json!(null))]));
    without["policies"][0]["rate_limits"][0].as_object_mut().unwrap().remove("charge_response");
    let (upstream, envoy) = start(workers, [tidegate("main", &charging), tidegate("control", &without)]).await;
    let answers = |used: &'static [u8]| upstream.always(Behaviour::respond(200).header("x-tokens-used", used));
    let mut main = InTurn::new(&envoy, "main", workers).await;
    let mut send = async |who: &str| main.send(client(who)).await;

    answers(b"5");
    assert_eq!(told(&send("a").await, "tokens").0, 4, "one for the request and five for the answer");
    let overdrawn = send("a").await;
    // 12 of 10 are used: three have to come back, at one every 360 seconds.
    let (left, wait) = told(&overdrawn, "tokens");
    assert_eq!((overdrawn.status, left), (200, 0));
    assert!(matches!(wait, Some(1070..=1080)), "{wait:?}");
    for _ in 0..8 {
        let rejected = send("a").await;
        let retry: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
        assert_eq!((rejected.status, told(&rejected, "tokens")), (429, (0, Some(retry))));
        assert!((1060..=1080).contains(&retry), "{retry}");
    }
    for nothing in [&b"-5"[..], b"five", b"", b"\xff", b"1.5"] {
        answers(nothing);
        send("b").await;
    }
    assert_eq!(told(&send("b").await, "tokens").0, 4, "six requests and nothing else");
    answers(b"99999999999999999999999999999");
    send("c").await;
    assert_eq!(send("c").await.status, 429);

    // The control: nobody asked for the header.
    let mut control = InTurn::new(&envoy, "control", workers).await;
    let mut good = 0;
    for _ in 0..12 {
        good += usize::from(control.send(client("a")).await.status == 200);
    }
    assert_eq!(good, 10);
    all_took_part(&envoy, workers, &["main", "control"]).await;
}

async fn what_is_overdrawn_is_what_was_under_way(workers: u32) {
    // One every six minutes. Each of the ten that are under way at once will be charged seven more.
    const EACH: u64 = 360;
    let config = |name: &str, limit: serde_json::Value| {
        let mut config = limits(json!([limit]));
        config["policies"][0]["name"] = json!(name);
        tidegate(name, &config)
    };
    let charging = json!({"name": "tokens", "rate": "10/h", "charge_response": {"header": "x-tokens-used"}});
    let listeners = [config("main", charging), config("control", json!({"name": "tokens", "rate": "10/h"}))];
    let (upstream, envoy) = start(workers, listeners).await;
    let gate = Gate::new();
    upstream.always(Behaviour::respond(200).header("x-tokens-used", b"7").hold(&gate));
    let volleys = ["main", "control"].map(|name| tokio::spawn(volley(envoy.address(name), 40, |_| client("a"))));
    upstream.wait_for_concurrent(20, SOON).await.unwrap();
    gate.open();
    for (run, (name, owed)) in volleys.into_iter().zip([("main", 71), ("control", 1)]) {
        let tally = run.await.unwrap().tally();
        assert_eq!((tally.admitted(), tally.rejected_by(name, "rate_limited")), (10, 30), "{name}: {tally}");
        let rejected = client::send(envoy.address(name), client("a")).await.unwrap();
        let retry: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
        assert!((owed * EACH - 60..=owed * EACH).contains(&retry), "{name}: {retry}");
    }
    all_took_part(&envoy, workers, &["main", "control"]).await;
}

async fn several_limits_are_several_items_and_retry_after_is_never_earlier_than_t(workers: u32) {
    let all = json!([
        {"name": "burst", "rate": "3/m"},
        {"name": "daily", "rate": "1000/d", "key": [{"header": "x-client"}]},
    ]);
    let mut config = limits(all);
    config["policies"][0]["headers"] = json!({"ratelimit": "both"});
    let (_upstream, envoy) = start(workers, [tidegate("main", &config)]).await;
    let mut all = InTurn::new(&envoy, "main", workers).await;
    for left in [2, 1, 0] {
        let response = all.send(client("a")).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("ratelimit-policy"), Some(r#""burst";q=3;w=60, "daily";q=1000;w=86400"#));
        let ((burst, wait), (daily, _)) = (told(&response, "burst"), told(&response, "daily"));
        assert_eq!((burst, daily), (left, 997 + left));
        assert!(matches!(wait, Some(1..=20)), "{wait:?}");
        // The trio speaks of the one with the least left.
        assert_eq!(response.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(response.header("x-ratelimit-remaining"), Some(left.to_string().as_str()));
        assert_eq!(response.header("x-ratelimit-reset"), wait.map(|wait| wait.to_string()).as_deref());
        assert_eq!(response.header("retry-after"), None);
    }
    let rejected = all.send(client("a")).await;
    let retry: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
    let (left, wait) = told(&rejected, "burst");
    assert_eq!((rejected.status, left), (429, 0));
    assert!(wait.is_some_and(|wait| retry >= wait), "{rejected:?}");
}

async fn policies_that_apply_together_tell_each_header_once(workers: u32) {
    const NAMES: [&str; 5] =
        ["ratelimit-policy", "ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    let policy = |name: &str, ratelimit: &str, rate: &str| json!({"name": name, "headers": {"ratelimit": ratelimit}, "rate_limits": [{"name": format!("of_{name}"), "rate": rate}]});
    let several =
        json!({"policies": [policy("a", "both", "9/h"), policy("b", "legacy", "2/h"), policy("c", "ietf", "8/h")]});
    let one = json!({"policies": [policy("c", "ietf", "8/h")]});
    let (_upstream, envoy) = start(workers, [tidegate("main", &several), tidegate("control", &one)]).await;
    let mut all = InTurn::new(&envoy, "main", workers).await;
    let lines = |response: &Response| NAMES.map(|name| response.headers.get_all(name).iter().count());
    let trio = |response: &Response| {
        ["x-ratelimit-limit", "x-ratelimit-remaining"].map(|name| response.header(name).map(str::to_owned))
    };
    for (status, left) in [(200, 1), (200, 0), (429, 0)] {
        let response = all.send(client("a")).await;
        assert_eq!((response.status, lines(&response)), (status, [1; 5]), "{response:?}");
        assert_eq!(response.header("ratelimit-policy"), Some(r#""of_a";q=9;w=3600, "of_c";q=8;w=3600"#));
        assert_eq!(trio(&response), [Some("2".to_owned()), Some(left.to_string())]);
        // A rejected request has taken nothing from either.
        let taken = if status == 200 { 2 - left } else { 2 };
        assert_eq!((told(&response, "of_a").0, told(&response, "of_c").0), (9 - taken, 8 - taken));
    }
    let control = client::send(envoy.address("control"), client("a")).await.unwrap();
    assert_eq!(lines(&control), [1, 1, 0, 0, 0]);
}
