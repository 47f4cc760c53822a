//! Rate limits: exact over all workers, told to clients, and all or nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call, Response};
use tidegate_harness::envoy::{Listener, Tidegate};
use tidegate_harness::ledger::Ledgers;
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, SOON, main_listener, volley, volley_beside};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(
    exactly_the_burst_is_admitted_however_many_connections_ask_at_once,
    a_spent_bucket_refills_at_its_rate,
    clients_are_told_what_they_have_left,
    rejections_look_as_configured,
    a_request_that_its_own_limit_rejects_leaves_the_shared_one_untouched,
    a_request_that_the_concurrency_limit_rejects_leaves_the_rate_untouched,
);

fn client_of(name: &str) -> Call {
    Call::get("/").header("x-client", name)
}

/// One limit per `x-client`.
fn per_client(rate: &str, burst: u32) -> Value {
    json!({"name": "per_client", "rate": rate, "burst": burst, "key": [{"header": "x-client"}]})
}

/// What is left according to `RateLimit`.
fn left(response: &Response) -> u64 {
    let field = response.header("ratelimit").unwrap_or_else(|| panic!("no RateLimit in {response:?}"));
    field.split(";r=").nth(1).and_then(|rest| rest.split([';', ',']).next()).unwrap().parse().unwrap()
}

async fn exactly_the_burst_is_admitted_however_many_connections_ask_at_once(workers: u32) {
    let config =
        |mode: &str| json!({"mode": mode, "policies": [{"name": "rates", "rate_limits": [per_client("1/h", 100)]}]});
    let control = Listener::new("control").filter(Tidegate::new(&config("off")).unwrap().name("control"));
    let rig = Rig::with(workers, [main_listener(&config("enforce")), control]).await;
    let before = rig.envoy.stats().await.unwrap();
    let clients = |index: usize| client_of(if index.is_multiple_of(2) { "a" } else { "b" });

    let outcomes = volley(rig.main(), 400, clients).await;
    let grown = rig.envoy.stats().await.unwrap().since(&before);
    let ledgers = Ledgers::of_clients([&outcomes]).and_upstream(&rig.upstream);
    ledgers.check_upstream().unwrap();
    ledgers.check_stats("rates", &grown).unwrap();
    let tally = outcomes.tally();
    assert_eq!((tally.admitted(), tally.rejected_by("rates", "rate_limited")), (200, 200), "{tally}");
    let of_a = rig.upstream.seen().iter().filter(|seen| seen.header("x-client") == Some("a")).count();
    assert_eq!(of_a, 100, "each client has a burst of its own");
    assert_eq!(rig.envoy.busy_workers("main").await.unwrap(), workers as usize, "every worker had its part in it");

    let tally = volley(rig.control(), 400, clients).await.tally();
    assert_eq!(tally.admitted(), 400, "{tally}");
}

async fn a_spent_bucket_refills_at_its_rate(workers: u32) {
    let config = json!({"policies": [{"name": "rates", "rate_limits": [per_client("4/s", 8)]}]});
    let rig = Rig::new(workers, &config).await;
    let before_first = Instant::now();
    let mut admitted = volley(rig.main(), 40, |_| client_of("a")).await.tally().admitted();
    let interval = Duration::from_millis(250);
    assert!(admitted >= 8, "{admitted} of a burst of 8");
    // The bucket was full when the first request came, so the n-th beyond the burst cannot come before n intervals.
    let deadline = before_first + SOON;
    while admitted < 16 {
        let response = client::send(rig.main(), client_of("a")).await.unwrap();
        let elapsed = before_first.elapsed();
        if response.status == 200 {
            admitted += 1;
            let beyond = u32::try_from(admitted - 8).unwrap();
            assert!(elapsed >= interval * beyond, "request {admitted} was admitted after {elapsed:?}");
        } else {
            assert_eq!((response.status, response.header("retry-after")), (429, Some("1")));
            assert!(Instant::now() < deadline, "{admitted} admitted in {elapsed:?}");
        }
    }
    // Another client has not been charged for any of it.
    assert_eq!(left(&client::send(rig.main(), client_of("b")).await.unwrap()), 7);
    let tally = volley(rig.control(), 40, |_| client_of("a")).await.tally();
    assert_eq!(tally.admitted(), 40, "{tally}");
}

async fn clients_are_told_what_they_have_left(workers: u32) {
    let policy = |name: &str, headers: Value| {
        json!({
            "name": name, "match": {"path": format!("/{name}")}, "headers": headers,
            "rate_limits": [{"name": "per_client", "rate": "2/m", "key": [{"header": "x-client"}]}]
        })
    };
    let config = json!({"policies": [
        policy("ietf", json!({})),
        policy("legacy", json!({"ratelimit": "legacy"})),
        policy("both", json!({"ratelimit": "both"})),
        policy("silent", json!({"ratelimit": "off", "reason": false})),
    ]});
    let rig = Rig::new(workers, &config).await;
    let send = async |path: &str| client::send(rig.main(), Call::get(path).header("x-client", "a")).await.unwrap();

    let first = send("/ietf").await;
    assert_eq!((first.status, left(&first)), (200, 1));
    assert_eq!(first.header("ratelimit-policy"), Some(r#""per_client";q=2;w=60"#));
    assert_eq!(first.header("retry-after"), None);
    assert_eq!(left(&send("/ietf").await), 0);
    let rejected = send("/ietf").await;
    assert_eq!((rejected.status, left(&rejected)), (429, 0));
    assert_eq!(rejected.header("ratelimit-policy"), Some(r#""per_client";q=2;w=60"#));
    assert_eq!(rejected.header("x-tidegate-reason"), Some("rate_limited;policy=ietf;limit=per_client"));
    assert_eq!(rejected.header("content-type"), Some("application/problem+json"));
    let wait: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "one of two per minute is back after at most 30 s, not {wait} s");
    assert_eq!(rejected.header("ratelimit"), Some(format!(r#""per_client";r=0;t={wait}"#).as_str()));
    let body: Value = serde_json::from_slice(&rejected.body).unwrap();
    let expected = json!({
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Rate limit exceeded", "status": 429, "policy": "ietf",
        "violated-policies": ["per_client"], "retry-after": wait
    });
    assert_eq!(body, expected);

    let legacy = send("/legacy").await;
    let of = |response: &Response, name: &str| response.header(name).map(str::to_owned);
    assert_eq!(of(&legacy, "x-ratelimit-limit").as_deref(), Some("2"));
    assert_eq!(of(&legacy, "x-ratelimit-remaining").as_deref(), Some("1"));
    assert!(of(&legacy, "x-ratelimit-reset").is_some());
    assert_eq!(of(&legacy, "ratelimit"), None);
    let both = send("/both").await;
    assert!(of(&both, "x-ratelimit-limit").is_some() && of(&both, "ratelimit").is_some(), "{both:?}");

    // The control: the same limit, told to nobody.
    for expected in [200, 200, 429] {
        let silent = send("/silent").await;
        assert_eq!(silent.status, expected);
        let told = ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-tidegate-reason"];
        assert!(told.iter().all(|name| of(&silent, name).is_none()), "{silent:?}");
        assert_eq!(of(&silent, "retry-after").is_some(), expected == 429);
    }

    // What an upstream says of limits of its own stays in the lists and is replaced in the trio, with all its values.
    let theirs = r#""theirs";r=8;t=1"#;
    let speaks = Behaviour::respond(200).header("x-ratelimit-limit", "9").header("x-ratelimit-limit", "7");
    rig.upstream.always(speaks.header("ratelimit", theirs));
    let values = async |path: &str| {
        let response = client::send(rig.main(), Call::get(path).header("x-client", "b")).await.unwrap();
        let of = |name: &str| {
            let values = response.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned());
            values.collect::<Vec<_>>()
        };
        (of("x-ratelimit-limit"), of("ratelimit"))
    };
    let (limit, lists) = values("/both").await;
    assert_eq!(limit, ["2"]);
    assert_eq!((lists.len(), lists[0].as_str()), (2, theirs), "{lists:?}");
    assert!(lists[1].starts_with(r#""per_client";r=1;t="#), "{lists:?}");
    // The control: told to nobody, all of it is the upstream's.
    assert_eq!(values("/silent").await, (vec!["9".to_owned(), "7".to_owned()], vec![theirs.to_owned()]));
}

async fn rejections_look_as_configured(workers: u32) {
    let limit = json!([{"name": "all", "rate": "1/h"}]);
    let responses = json!({"rate_limited": {
        "status": 420, "headers": {"x-calm": "down", "retry-after": "7"}, "body": "<p>calm</p>", "content_type": "text/html"
    }});
    let config = json!({"policies": [
        {"name": "custom", "match": {"path": "/custom"}, "rate_limits": limit, "responses": responses},
        {"name": "plain", "match": {"path": "/plain"}, "rate_limits": limit},
    ]});
    let rig = Rig::new(workers, &config).await;
    for path in ["/custom", "/plain"] {
        assert_eq!(client::get(rig.main(), path).await.unwrap().status, 200);
    }
    let custom = client::get(rig.main(), "/custom").await.unwrap();
    assert_eq!((custom.status, custom.text().as_str()), (420, "<p>calm</p>"));
    assert_eq!(custom.header("content-type"), Some("text/html"));
    assert_eq!((custom.header("x-calm"), custom.header("retry-after")), (Some("down"), Some("7")));
    assert_eq!(custom.headers.get_all("retry-after").iter().count(), 1);
    assert_eq!(custom.headers.get_all("content-type").iter().count(), 1);
    assert_eq!(custom.header("x-tidegate-reason"), Some("rate_limited;policy=custom;limit=all"));
    let plain = client::get(rig.main(), "/plain").await.unwrap();
    assert_eq!((plain.status, plain.header("content-type")), (429, Some("application/problem+json")));
}

async fn a_request_that_its_own_limit_rejects_leaves_the_shared_one_untouched(workers: u32) {
    let shared = json!({"name": "shared", "rate": "1/h", "burst": 40});
    let config = json!({"policies": [
        {"name": "two", "match": {"path": "/two"}, "rate_limits": [shared, per_client("1/h", 5)]},
        {"name": "one", "match": {"path": "/one"}, "rate_limits": [shared]},
    ]});
    let rig = Rig::new(workers, &config).await;
    let greedy = volley(rig.main(), 200, |_| Call::get("/two").header("x-client", "greedy")).await.tally();
    assert_eq!((greedy.admitted(), greedy.rejected_by("two", "rate_limited")), (5, 195), "{greedy}");
    // Seven others find 35 of the 40 left, and no more.
    let others = |index: usize| Call::get("/two").header("x-client", (index % 8).to_string());
    let tally = volley(rig.main(), 40, others).await.tally();
    assert_eq!((tally.admitted(), tally.rejected_by("two", "rate_limited")), (35, 5), "{tally}");
    assert!(tally.rejected.keys().all(|reason| reason.limit.as_deref() == Some("shared")), "{tally}");
    // The control: without a limit of its own the greedy one takes all there is.
    let tally = volley(rig.main(), 200, |_| Call::get("/one")).await.tally();
    assert_eq!(tally.admitted(), 40, "{tally}");
}

async fn a_request_that_the_concurrency_limit_rejects_leaves_the_rate_untouched(workers: u32) {
    let rates = json!([{"name": "all", "rate": "1/h", "burst": 10}]);
    let fixed = |limit: u32| json!({"limit": {"algorithm": "fixed", "limit": limit}});
    let config = json!({"policies": [
        {"name": "narrow", "match": {"path": "/narrow"}, "rate_limits": rates, "load_shedding": fixed(2)},
        {"name": "wide", "match": {"path": "/wide"}, "rate_limits": rates, "load_shedding": fixed(100)},
    ]});
    let rig = Rig::new(workers, &config).await;
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let held = volley_beside(rig.main(), 2, |_| Call::get("/narrow"));
    rig.upstream.wait_for_concurrent(2, SOON).await.unwrap();
    let tally = volley(rig.main(), 60, |_| Call::get("/narrow")).await.tally();
    assert_eq!(tally.rejected_by("narrow", "overloaded"), 60, "{tally}");
    // The control: with room for all of them, the rate is what they meet.
    let wide = volley_beside(rig.main(), 62, |_| Call::get("/wide"));
    rig.upstream.wait_for_concurrent(12, SOON).await.unwrap();
    gate.open();
    let (held, wide) = (held.await.unwrap().tally(), wide.await.unwrap().tally());
    assert_eq!((held.admitted(), wide.admitted(), wide.rejected_by("wide", "rate_limited")), (2, 10, 52), "{wide}");
    rig.wait_for_idle("narrow").await;
    for _ in 0..8 {
        assert_eq!(client::get(rig.main(), "/narrow").await.unwrap().status, 200);
    }
    assert_eq!(client::get(rig.main(), "/narrow").await.unwrap().status, 429);
}
