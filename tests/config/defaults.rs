//! What a setting is when it is absent, and that what is written arrives.

use std::time::Duration;

use tidegate::config::*;

use super::{policy, read};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_policy_has_the_documented_defaults() {
    let policy = policy("policy", r#"{"name": "p"}"#);
    assert_eq!(
        policy,
        Policy {
            name: "p".to_owned(),
            mode: Mode::Enforce,
            enforce: BasisPoints::ALL,
            matches: Match::default(),
            request_limits: None,
            circuit_breaker: None,
            rate_limits: Vec::new(),
            load_shedding: None,
            responses: Responses::default(),
            headers: ResponseHeaders { ietf: true, legacy: false, reason: true },
        }
    );
}

#[test]
fn a_policy_narrows_the_mode_but_never_widens_it() {
    use Mode::{Enforce, Off, Shadow};
    for (top, own, expected) in [
        ("enforce", "shadow", Shadow),
        ("shadow", "enforce", Shadow),
        ("shadow", "off", Off),
        ("off", "enforce", Off),
        ("enforce", "enforce", Enforce),
    ] {
        let text = format!(r#"{{"mode": "{top}", "policies": [{{"name": "p", "mode": "{own}"}}]}}"#);
        assert_eq!(read(&text).unwrap().policies[0].mode, expected, "{text}");
    }
}

#[test]
fn a_rate_limit_has_the_documented_defaults() {
    let policy = policy("rate_limit", r#"{"name": "l", "rate": "30/m"}"#);
    assert_eq!(
        policy.rate_limits,
        [RateLimit {
            name: "l".to_owned(),
            quota: Quota { rate: Rate { count: 30, period: 60 * SECOND }, burst: 30 },
            algorithm: RateAlgorithm::TokenBucket,
            key: Vec::new(),
            on_missing_key: OnMissingKey::Skip,
            overrides: Vec::new(),
            cost: Cost::Fixed(1),
            charge_response: None,
            pace: None,
            scope: Scope::Proxy,
            max_keys: 65_536,
        }]
    );
}

#[test]
fn a_rate_limit_is_read_as_written() {
    let policy = policy(
        "rate_limit",
        r#"{"name": "l", "rate": "5000/h", "burst": 10, "key": [{"header": "X-API-Key"}, {"client_ip": {}}],
            "on_missing_key": "share", "cost": {"header": "X-Cost", "max": 50}, "charge_response": {"header": "x-used"},
            "overrides": [{"key": ["gold", "::1"], "rate": "1/d"}, {"key": ["", "b"], "unlimited": true}],
            "pace": {"max_wait": "1.5s"}, "scope": "worker", "max_keys": 1}"#,
    );
    assert_eq!(
        policy.rate_limits,
        [RateLimit {
            name: "l".to_owned(),
            quota: Quota { rate: Rate { count: 5000, period: 3600 * SECOND }, burst: 10 },
            algorithm: RateAlgorithm::TokenBucket,
            key: vec![
                KeySource::Header("x-api-key".to_owned()),
                KeySource::ClientIp(ClientIp { trusted_hops: 0, ipv4_prefix: 32, ipv6_prefix: 64 }),
            ],
            on_missing_key: OnMissingKey::Share,
            overrides: vec![
                Override {
                    key: vec!["gold".to_owned(), "::1".to_owned()],
                    quota: Some(Quota { rate: Rate { count: 1, period: 86_400 * SECOND }, burst: 1 }),
                },
                Override { key: vec![String::new(), "b".to_owned()], quota: None },
            ],
            cost: Cost::Header { name: "x-cost".to_owned(), default: 1, max: 50 },
            charge_response: Some("x-used".to_owned()),
            pace: Some(Duration::from_millis(1500)),
            scope: Scope::Worker,
            max_keys: 1,
        }]
    );
}

#[test]
fn a_circuit_breaker_has_the_documented_defaults() {
    let breaker = policy("circuit_breaker", "{}").circuit_breaker.unwrap();
    assert_eq!(
        breaker,
        CircuitBreaker {
            key: vec![KeySource::Attribute(Attribute::Cluster)],
            max_keys: 256,
            window: Window::Time(10 * SECOND),
            minimum_calls: 20,
            failure_rate_threshold: BasisPoints(5000),
            slow_call_duration: None,
            slow_call_rate_threshold: BasisPoints(10_000),
            consecutive_failures: 0,
            open_duration: 5 * SECOND,
            open_duration_max: 60 * SECOND,
            half_open: HalfOpen { probes: 5, timeout: 10 * SECOND },
            recovery_ramp: None,
            failure_when: Outcomes {
                status: vec![(500, 599)],
                grpc_status: vec![2, 4, 13, 14, 15],
                reset: true,
                timeout: true,
            },
            ignore_when: Outcomes::default(),
            honor_retry_after: true,
            state: BreakerControl::Auto,
        }
    );
}

#[test]
fn what_failure_when_leaves_out_keeps_its_default() {
    let breaker = policy(
        "circuit_breaker",
        r#"{"failure_when": {"status": [503, "504", "5xx", "500-502"], "grpc_status": ["unavailable", 16]},
            "ignore_when": {"reset": true}}"#,
    )
    .circuit_breaker
    .unwrap();
    assert_eq!(breaker.failure_when.status, [(503, 503), (504, 504), (500, 599), (500, 502)]);
    assert_eq!(breaker.failure_when.grpc_status, [14, 16]);
    assert!(breaker.failure_when.reset && breaker.failure_when.timeout);
    assert_eq!(breaker.ignore_when, Outcomes { reset: true, ..Outcomes::default() });
}

#[test]
fn defaults_give_way_to_what_is_written_beside_them() {
    let breaker = |text: &str| policy("circuit_breaker", text).circuit_breaker.unwrap();
    assert_eq!(breaker(r#"{"window": {"type": "count", "calls": 10}}"#).minimum_calls, 10);
    assert_eq!(breaker(r#"{"window": {"type": "count"}}"#).minimum_calls, 20);
    assert_eq!(breaker(r#"{"open_duration": "5m"}"#).open_duration_max, 300 * SECOND);

    let limit = |text: &str| policy("load_shedding", &format!(r#"{{"limit": {text}}}"#)).load_shedding.unwrap().limit;
    let dynamic = |algorithm, initial, min, max| ConcurrencyLimit::Dynamic { algorithm, initial, min, max };
    assert_eq!(limit("{}"), dynamic(LimitAlgorithm::Adaptive, 20, 1, 1000));
    assert_eq!(limit(r#"{"algorithm": "vegas", "max": 8}"#), dynamic(LimitAlgorithm::Vegas, 8, 1, 8));
    assert_eq!(limit(r#"{"algorithm": "aimd", "min": 2000}"#), dynamic(LimitAlgorithm::Aimd, 2000, 2000, 2000));
    assert_eq!(limit(r#"{"algorithm": "fixed", "limit": 7}"#), ConcurrencyLimit::Fixed(7));
}

#[test]
fn load_shedding_has_the_documented_defaults() {
    let shedding = policy("load_shedding", r#"{"queue": {}, "throttle": {}}"#).load_shedding.unwrap();
    assert_eq!(
        shedding,
        LoadShedding {
            limit: ConcurrencyLimit::Dynamic { algorithm: LimitAlgorithm::Adaptive, initial: 20, min: 1, max: 1000 },
            key: Vec::new(),
            max_keys: 1024,
            priority: None,
            queue: Some(Queue { max_length: 100, max_wait: SECOND / 10, order: QueueOrder::AdaptiveLifo }),
            throttle: Some(Throttle {
                success_threshold: BasisPoints(9500),
                window: 30 * SECOND,
                max_rejection: BasisPoints(8000),
                minimum_calls: 20,
            }),
            deadline_header: None,
            release: Release::End,
        }
    );
}

#[test]
fn the_default_level_needs_no_match() {
    let levels = r#""levels": [{"name": "a", "match": {"method": "GET"}}, {"name": "b", "share": 50}]"#;
    for text in [format!("{{{levels}}}"), format!(r#"{{{levels}, "default": "b"}}"#)] {
        let priority = policy("load_shedding", &format!(r#"{{"priority": {text}}}"#)).load_shedding.unwrap().priority;
        let priority = priority.unwrap();
        assert_eq!(priority.default, 1);
        assert_eq!(priority.levels[0].share, BasisPoints::ALL);
        assert_eq!((&priority.levels[1].matches, priority.levels[1].share), (&None, BasisPoints(5000)));
    }
}

#[test]
fn a_match_takes_one_or_many() {
    let exact = |text: &str| StringMatcher::Exact(text.to_owned());
    let one =
        policy("match", r#"{"host": "A.example.com", "path": "/a", "method": "GET", "route": "r", "cluster": "c"}"#);
    assert_eq!(
        one.matches,
        Match {
            hosts: vec!["a.example.com".to_owned()],
            paths: vec![PathMatcher::String(exact("/a"))],
            methods: vec!["GET".to_owned()],
            routes: vec![exact("r")],
            clusters: vec![exact("c")],
            ..Match::default()
        }
    );
    let many = policy(
        "match",
        r#"{"host": ["*.Example.com", "[::1]"], "method": ["GET", "PURGE"], "grpc": false,
            "path": ["/a", {"prefix": "/b"}, {"suffix": ".js"}, {"contains": "x"}, {"regex": "^/v[0-9]+$"},
                     {"template": "/v1/users/{id}/**"}, {"template": "/"}, {"template": "/v1/"}, "*"],
            "headers": [{"name": "X-A", "exact": ["", "b"]}, {"name": "b", "present": false, "invert": true}],
            "query": [{"name": "Q", "prefix": "z"}]}"#,
    );
    let literal = |text: &str| TemplateSegment::Literal(text.to_owned());
    assert_eq!(
        many.matches,
        Match {
            hosts: vec!["*.example.com".to_owned(), "[::1]".to_owned()],
            methods: vec!["GET".to_owned(), "PURGE".to_owned()],
            grpc: Some(false),
            paths: vec![
                PathMatcher::String(exact("/a")),
                PathMatcher::String(StringMatcher::Prefix("/b".to_owned())),
                PathMatcher::String(StringMatcher::Suffix(".js".to_owned())),
                PathMatcher::String(StringMatcher::Contains("x".to_owned())),
                PathMatcher::String(StringMatcher::Regex("^/v[0-9]+$".to_owned())),
                PathMatcher::Template(vec![
                    literal("v1"),
                    literal("users"),
                    TemplateSegment::Any,
                    TemplateSegment::Rest,
                ]),
                PathMatcher::Template(vec![literal("")]),
                PathMatcher::Template(vec![literal("v1"), literal("")]),
                PathMatcher::String(exact("*")),
            ],
            headers: vec![
                FieldMatcher {
                    name: "x-a".to_owned(),
                    condition: FieldCondition::Value(vec![exact(""), exact("b")]),
                    invert: false,
                },
                FieldMatcher { name: "b".to_owned(), condition: FieldCondition::Present(false), invert: true },
            ],
            query: vec![FieldMatcher {
                name: "Q".to_owned(),
                condition: FieldCondition::Value(vec![StringMatcher::Prefix("z".to_owned())]),
                invert: false,
            }],
            ..Match::default()
        }
    );
}

#[test]
fn every_key_source_is_read() {
    let sources = r#"[{"query": "u"}, {"cookie": "sid"}, {"path_segment": 1}, {"attribute": "route"},
        {"property": ["metadata", "x"]}, {"client_ip": {"trusted_hops": 1, "ipv4_prefix": 24, "ipv6_prefix": 48}}]"#;
    assert_eq!(
        policy("key", sources).rate_limits[0].key,
        [
            KeySource::Query("u".to_owned()),
            KeySource::Cookie("sid".to_owned()),
            KeySource::PathSegment(1),
            KeySource::Attribute(Attribute::Route),
            KeySource::Property(vec!["metadata".to_owned(), "x".to_owned()]),
            KeySource::ClientIp(ClientIp { trusted_hops: 1, ipv4_prefix: 24, ipv6_prefix: 48 }),
        ]
    );
}

#[test]
fn responses_and_headers_are_read() {
    let responses = policy(
        "responses",
        r#"{"overloaded": {"status": 529, "headers": {"X-B": "1", "A": "2"}, "body": "busy", "content_type": "text/plain"}}"#,
    )
    .responses;
    assert_eq!(
        responses,
        Responses {
            overloaded: ResponseTemplate {
                status: Some(529),
                headers: vec![("x-b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
                body: Some("busy".to_owned()),
                content_type: Some("text/plain".to_owned()),
            },
            ..Responses::default()
        }
    );
    for (word, ietf, legacy) in
        [("ietf", true, false), ("legacy", false, true), ("both", true, true), ("off", false, false)]
    {
        let headers = policy("headers", &format!(r#"{{"ratelimit": "{word}", "reason": false}}"#)).headers;
        assert_eq!(headers, ResponseHeaders { ietf, legacy, reason: false }, "{word}");
    }
}

#[test]
fn numbers_round_as_documented() {
    for (written, points) in
        [("0", 0), ("-0", 0), ("0.01", 1), ("0.006", 1), ("33.333", 3333), ("100", 10_000), ("1e2", 10_000)]
    {
        let policy = policy("fields", &format!(r#""enforce_percent": {written}"#));
        assert_eq!(policy.enforce, BasisPoints(points), "{written}");
    }
    for written in ["100", "100.0", "1e2"] {
        let policy = policy("request_limits", &format!(r#"{{"max_headers": {written}}}"#));
        assert_eq!(policy.request_limits.unwrap().max_headers, Some(100), "{written}");
    }
    for (written, nanos) in [
        ("1ms", 1_000_000),
        ("1.5s", 1_500_000_000),
        ("2m", 120_000_000_000),
        ("1h", 3_600_000_000_000),
        ("1.0000001s", 1_000_000_100),
    ] {
        let breaker =
            policy("circuit_breaker", &format!(r#"{{"open_duration": "{written}"}}"#)).circuit_breaker.unwrap();
        assert_eq!(breaker.open_duration, Duration::from_nanos(nanos), "{written}");
    }
}

#[test]
fn no_policies_is_a_valid_configuration() {
    let expected = Config { mode: Mode::Enforce, policies: Vec::new() };
    assert_eq!(read(r#"{"version": 1, "policies": []}"#).unwrap(), expected);
}
