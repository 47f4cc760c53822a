//! What the reader says of a configuration that is wrong.

use tidegate::config::MAX_ERRORS;

use super::{errors, wrap};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const POLICY: &str = "$.policies[0]";

/// Each row: what the fragment is, the fragment, and the whole of what is said of it, paths counted from the policy.
fn check(rows: &[(&str, &str, &[&str])]) {
    for (kind, fragment, expected) in rows {
        let expected: Vec<String> = expected.iter().map(|line| format!("{POLICY}{line}")).collect();
        assert_eq!(errors(&wrap(kind, fragment)), expected, "{kind} {fragment}");
    }
}

#[test]
fn the_whole_is_checked() {
    for (text, expected) in [
        ("", r#"$: the configuration is empty; expected at least {"policies": []}, which protects nothing"#),
        (" \n", r#"$: the configuration is empty; expected at least {"policies": []}, which protects nothing"#),
        ("{}", "$.policies: required, but missing"),
        ("[]", "$: expected an object, got a list"),
        (r#""policies""#, r#"$: expected an object, got "policies""#),
        ("null", "$: expected an object, got null"),
        (r#"{"policies": {}}"#, "$.policies: expected a list, got an object"),
        (r#"{"policies": null}"#, "$.policies: expected a list, got null"),
        (r#"{"policies": [], "version": 2}"#, "$.version: expected 1, the only version, got 2"),
        (r#"{"policies": [], "version": "1"}"#, r#"$.version: expected 1, the only version, got "1""#),
        (r#"{"policies": [], "mode": "on"}"#, r#"$.mode: expected "enforce", "shadow" or "off", got "on""#),
        (r#"{"policies": [1]}"#, "$.policies[0]: expected an object, got 1"),
        (r#"{"policies": [{}]}"#, "$.policies[0].name: required, but missing"),
        (
            r#"{"policies": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}"#,
            r#"$.policies[2].name: expected a unique name, but "a" is an earlier policy"#,
        ),
        (
            r#"{"policies": [{"name": "A"}]}"#,
            r#"$.policies[0].name: expected a name of 1 to 64 of a-z, 0-9, "_" and "-", got "A""#,
        ),
    ] {
        assert_eq!(errors(text), [expected], "{text}");
    }
}

#[test]
fn a_misspelt_field_is_named_with_what_was_meant() {
    check(&[
        ("fields", r#""rate_limit": []"#, &[r#".rate_limit: unknown field; did you mean "rate_limits"?"#]),
        ("fields", r#""enforcePercent": 1"#, &[r#".enforcePercent: unknown field; did you mean "enforce_percent"?"#]),
        (
            "circuit_breaker",
            r#"{"minimum-calls": 1}"#,
            &[r#".circuit_breaker.minimum-calls: unknown field; did you mean "minimum_calls"?"#],
        ),
        (
            "rate_limit",
            r#"{"name": "l", "rate": "1/s", "brust": 1}"#,
            &[r#".rate_limits[0].brust: unknown field; did you mean "burst"?"#],
        ),
        ("headers", r#"{"colour": 1}"#, &[".headers.colour: unknown field; known here: ratelimit, reason"]),
        ("headers", r#"{"a b": 1}"#, &[r#".headers["a b"]: unknown field; known here: ratelimit, reason"#]),
    ]);
}

#[test]
fn numbers_outside_their_bounds_are_named_with_bound_and_value() {
    let probes = ".circuit_breaker.half_open.probes: expected a whole number from 1 to 256, got ";
    for (written, shown) in [
        ("0", "0"),
        ("-1", "-1"),
        ("1001", "1001"),
        ("2.5", "2.5"),
        ("2147483648", "2147483648"),
        ("4294967297", "4294967297"),
        ("9007199254740993", "more than 10^15"),
        ("18446744073709551616", "more than 10^15"),
        ("1e300", "more than 10^15"),
        ("-1e300", "less than -10^15"),
        ("1e-300", "nearly 0"),
        ("-0.25", "-0.25"),
        ("1.9999999", "2"),
        ("\"5\"", "\"5\""),
        ("true", "true"),
        ("null", "null"),
        ("[]", "a list"),
        ("{}", "an object"),
    ] {
        let fragment = format!(r#"{{"half_open": {{"probes": {written}}}}}"#);
        check(&[("circuit_breaker", &fragment, &[&format!("{probes}{shown}")])]);
    }
    check(&[
        (
            "fields",
            r#""enforce_percent": 100.1"#,
            &[".enforce_percent: expected a percentage from 0 to 100, got 100.1"],
        ),
        ("fields", r#""enforce_percent": -1"#, &[".enforce_percent: expected a percentage from 0 to 100, got -1"]),
        (
            "fields",
            r#""enforce_percent": 0.004"#,
            &[".enforce_percent: expected 0 or a percentage from 0.01 to 100, got 0.004"],
        ),
        (
            "request_limits",
            r#"{"max_body_bytes": 1e13}"#,
            &[".request_limits.max_body_bytes: expected a whole number from 0 to 1099511627776, got 10000000000000"],
        ),
        (
            "key",
            r#"[{"client_ip": {"ipv4_prefix": 33, "ipv6_prefix": 129, "trusted_hops": 33}}]"#,
            &[
                ".rate_limits[0].key[0].client_ip.ipv4_prefix: expected a whole number from 0 to 32, got 33",
                ".rate_limits[0].key[0].client_ip.ipv6_prefix: expected a whole number from 0 to 128, got 129",
                ".rate_limits[0].key[0].client_ip.trusted_hops: expected a whole number from 0 to 32, got 33",
            ],
        ),
    ]);
}

#[test]
fn durations_and_rates_have_a_unit_and_bounds() {
    for written in
        ["5", "\"5\"", "\"-5s\"", "\"5 s\"", "\"5us\"", "\".5s\"", "\"5.s\"", "\"1s500ms\"", "\"\"", "\"1e3s\""]
    {
        check(&[(
            "circuit_breaker",
            &format!(r#"{{"open_duration": {written}}}"#),
            &[&format!(
                r#".circuit_breaker.open_duration: expected a duration such as "250ms", "1.5s", "2m" or "1h", got {written}"#
            )],
        )]);
    }
    for written in ["\"0s\"", "\"0.5ms\"", "\"25h\"", "\"999999999h\""] {
        check(&[(
            "circuit_breaker",
            &format!(r#"{{"open_duration": {written}}}"#),
            &[&format!(r#".circuit_breaker.open_duration: expected a duration from "1ms" to "24h", got {written}"#)],
        )]);
    }
    for written in ["\"fast\"", "\"100\"", "\"100/w\"", "\"1.5/s\"", "\"-1/s\"", "\" 1/s\"", "100", "\"/s\""] {
        check(&[(
            "rate_limit",
            &format!(r#"{{"name": "l", "rate": {written}}}"#),
            &[&format!(r#".rate_limits[0].rate: expected a rate such as "100/s", got {written}"#)],
        )]);
    }
    for written in ["\"0/s\"", "\"1000000001/s\""] {
        check(&[(
            "rate_limit",
            &format!(r#"{{"name": "l", "rate": {written}}}"#),
            &[&format!(r#".rate_limits[0].rate: expected a rate of 1 to 1000000000 per period, got {written}"#)],
        )]);
    }
}

#[test]
fn settings_of_a_rate_limit_fit_together() {
    let limit = |rest: &str| format!(r#"{{"name": "l", "rate": "10/s", {rest}}}"#);
    for (rest, expected) in [
        (
            r#""algorithm": "fixed_window", "burst": 20"#,
            ".burst: has no effect with a window algorithm, which admits the rate's count in each period",
        ),
        (r#""on_missing_key": "reject""#, ".on_missing_key: has no effect without a key"),
        (r#""overrides": [{"key": ["a"], "rate": "1/s"}]"#, ".overrides: has no effect without a key"),
        (
            r#""key": [{"query": "u"}], "overrides": [{"key": ["a", "b"], "rate": "1/s"}]"#,
            ".overrides[0].key: expected 1 values, one for each source of the limit's key, got 2",
        ),
        (r#""key": [{"query": "u"}], "overrides": [{"key": ["a"]}]"#, ".overrides[0].rate: required, but missing"),
        (
            r#""key": [{"query": "u"}], "overrides": [{"key": ["a"], "unlimited": true, "burst": 1}]"#,
            ".overrides[0].burst: has no effect beside unlimited",
        ),
        (
            r#""key": [{"query": "u"}], "overrides": [{"key": ["a"], "rate": "1/s"}, {"key": ["a"], "unlimited": true}]"#,
            ".overrides[1]: has no effect: an earlier override has the same key",
        ),
        (r#""cost": 11"#, ".cost: no request could ever be admitted: each costs 11, more than the burst of 10"),
        (r#""cost": 0"#, ".cost: expected a whole number from 1 to 1000000, got 0"),
        (r#""cost": "1""#, ".cost: expected a whole number from 1 to 1000000 or an object with a header, got \"1\""),
        (
            r#""cost": {"header": "x", "default": 5, "max": 4}"#,
            ".cost.default: expected at most max, which is 4, got 5",
        ),
        (r#""scope": "fleet""#, ".scope: \"fleet\" is reserved for a budget over several proxies and not available"),
        (r#""pace": {}"#, ".pace.max_wait: required, but missing"),
        (r#""pace": {"max_wait": "0ms"}"#, ".pace.max_wait: expected a duration from \"1ms\" to \"1m\", got \"0ms\""),
        (
            r#""charge_response": {"header": "a b"}"#,
            ".charge_response.header: expected the name of a header, got \"a b\"",
        ),
        (r#""key": "x""#, ".key: expected a list, got \"x\""),
        (
            r#""key": [{}]"#,
            ".key[0]: expected exactly one of header, query, cookie, path_segment, attribute, property, client_ip",
        ),
        (
            r#""key": [{"attribute": "port"}]"#,
            ".key[0].attribute: expected \"method\", \"path\", \"host\", \"route\", \"cluster\" or \"scheme\", got \"port\"",
        ),
        (r#""key": [{"path_segment": 64}]"#, ".key[0].path_segment: expected a whole number from 0 to 63, got 64"),
        (r#""key": [{"property": []}]"#, ".key[0].property: expected a list of 1 to 16 items, got 0"),
        (r#""max_keys": 0"#, ".max_keys: expected a whole number from 1 to 4194304, got 0"),
    ] {
        check(&[("rate_limit", &limit(rest), &[&format!(".rate_limits[0]{expected}")])]);
    }
    check(&[
        (
            "rate_limit",
            r#"{"name": "l", "rate": "1/d", "burst": 4000}"#,
            &[".rate_limits[0].burst: expected a burst that refills within 3650 days, got 4000, which takes 4000"],
        ),
        (
            "fields",
            r#""rate_limits": [{"name": "l", "rate": "1/s"}, {"name": "l", "rate": "2/s"}]"#,
            &[r#".rate_limits[1].name: expected a unique name, but "l" is an earlier rate limit of this policy"#],
        ),
    ]);
}

#[test]
fn settings_of_a_circuit_breaker_fit_together() {
    for (fragment, expected) in [
        (
            r#"{"open_duration": "2m", "open_duration_max": "1m"}"#,
            r#".open_duration_max: expected at least open_duration, which is "2m", got "1m""#,
        ),
        (
            r#"{"open_duration_max": "1s"}"#,
            r#".open_duration_max: expected at least open_duration, which is "5s", got "1s""#,
        ),
        (r#"{"slow_call_rate_threshold": 50}"#, ".slow_call_rate_threshold: has no effect without slow_call_duration"),
        (
            r#"{"window": {"type": "count", "calls": 10}, "minimum_calls": 11}"#,
            ".minimum_calls: expected at most the window's calls, which are 10, got 11",
        ),
        (
            r#"{"window": {"type": "count", "duration": "1s"}}"#,
            ".window.duration: has no effect in a window of type \"count\"",
        ),
        (r#"{"window": {"calls": 1}}"#, ".window.calls: has no effect in a window of type \"time\""),
        (r#"{"window": {"type": "calls"}}"#, r#".window.type: expected "time" or "count", got "calls""#),
        (r#"{"recovery": {}}"#, ".recovery.ramp: required, but missing"),
        (r#"{"state": "open"}"#, r#".state: expected "auto", "forced_open" or "disabled", got "open""#),
        (r#"{"honor_retry_after": "yes"}"#, r#".honor_retry_after: expected true or false, got "yes""#),
        (
            r#"{"failure_when": {"grpc_status": ["unavailble"]}}"#,
            r#".failure_when.grpc_status[0]: expected a gRPC status such as "unavailable" or a number from 0 to 16, got "unavailble"; did you mean "unavailable"?"#,
        ),
        (
            r#"{"ignore_when": {"grpc_status": [17]}}"#,
            r#".ignore_when.grpc_status[0]: expected a gRPC status such as "unavailable" or a number from 0 to 16, got 17"#,
        ),
    ] {
        check(&[("circuit_breaker", fragment, &[&format!(".circuit_breaker{expected}")])]);
    }
    for written in ["99", "600", "500.5", "\"6xx\"", "\"xx\"", "\"5x\"", "\"504-500\"", "\"500-\"", "\"+50\"", "true"] {
        check(&[(
            "circuit_breaker",
            &format!(r#"{{"failure_when": {{"status": [{written}]}}}}"#),
            &[&format!(
                r#".circuit_breaker.failure_when.status[0]: expected a status from 100 to 599, a class such as "5xx" or a range such as "500-504", got {written}"#
            )],
        )]);
    }
}

#[test]
fn settings_of_load_shedding_fit_together() {
    for (fragment, expected) in [
        (r#"{"limit": {"algorithm": "fixed"}}"#, ".limit.limit: required, but missing"),
        (r#"{"limit": {"algorithm": "fixed", "limit": 5, "min": 1}}"#, ".limit.min: has no effect with a fixed limit"),
        (r#"{"limit": {"limit": 5}}"#, ".limit.limit: has no effect unless the algorithm is \"fixed\""),
        (r#"{"limit": {"min": 5, "max": 4}}"#, ".limit.min: expected at most max, which is 4, got 5"),
        (
            r#"{"limit": {"initial": 5, "max": 4}}"#,
            ".limit.initial: expected a whole number from min to max, 1 to 4, got 5",
        ),
        (
            r#"{"limit": {"algorithm": "gradient"}}"#,
            r#".limit.algorithm: expected "adaptive", "gradient2", "vegas", "aimd" or "fixed", got "gradient""#,
        ),
        (r#"{"priority": {"levels": []}}"#, ".priority.levels: expected a list of 1 to 16 items, got 0"),
        (
            r#"{"priority": {"levels": [{"name": "a"}, {"name": "b"}], "default": "c"}}"#,
            r#".priority.default: expected the name of a level, one of "a", "b", got "c""#,
        ),
        (
            r#"{"priority": {"levels": [{"name": "a"}, {"name": "a", "match": {}}], "default": "a"}}"#,
            r#".priority.levels[1].name: expected a unique name, but "a" is an earlier level"#,
        ),
        (
            r#"{"priority": {"levels": [{"name": "a"}, {"name": "b"}]}}"#,
            ".priority.levels: level 0 needs a match: without one only the default level is ever used",
        ),
        (
            r#"{"priority": {"levels": [{"name": "a", "share": 0}]}}"#,
            ".priority.levels[0].share: expected a percentage from 0.01 to 100, got 0",
        ),
        (r#"{"queue": {"max_wait": "2m"}}"#, r#".queue.max_wait: expected a duration from "1ms" to "1m", got "2m""#),
        (r#"{"queue": {"order": "filo"}}"#, r#".queue.order: expected "adaptive_lifo", "fifo" or "lifo", got "filo""#),
        (
            r#"{"throttle": {"max_rejection": 101}}"#,
            ".throttle.max_rejection: expected a percentage from 0 to 100, got 101",
        ),
        (r#"{"deadline": {}}"#, ".deadline.header: required, but missing"),
        (r#"{"release": "body"}"#, r#".release: expected "end" or "headers", got "body""#),
    ] {
        check(&[("load_shedding", fragment, &[&format!(".load_shedding{expected}")])]);
    }
}

#[test]
fn a_match_that_nothing_can_satisfy_is_an_error() {
    let host =
        r#"expected a host without port such as "example.com" or "*.example.com" (leave host out for every host)"#;
    for (fragment, expected) in [
        (r#"{"host": "*"}"#, &*format!(".host: {host}, got \"*\"")),
        (r#"{"host": ["a.com", "b.com:80"]}"#, &*format!(".host[1]: {host}, got \"b.com:80\"")),
        (r#"{"host": "a.*.com"}"#, &*format!(".host: {host}, got \"a.*.com\"")),
        (r#"{"host": []}"#, ".host: expected a list of 1 to 1000 items, got 0"),
        (r#"{"method": "get"}"#, r#".method: expected the method "GET", got "get""#),
        (r#"{"path": "v1"}"#, r#".path: expected a path that starts with "/", got "v1""#),
        (
            r#"{"path": {"prefix": "/a?b"}}"#,
            r#".path.prefix: expected a path without query (see the match's query), got "/a?b""#,
        ),
        (r#"{"path": {"prefix": ""}}"#, ".path.prefix: expected a string that is not empty"),
        (
            r#"{"path": {"prefix": "/a", "suffix": "b"}}"#,
            ".path: expected exactly one of exact, prefix, suffix, contains, regex, template",
        ),
        (r#"{"path": 1}"#, r#".path: expected a string or an object such as {"prefix": "..."}, got 1"#),
        (
            r#"{"path": {"regex": "("}}"#,
            r#".path.regex: expected a regular expression, got "(": found open group without closing ')'"#,
        ),
        (r#"{"path": {"regx": "a"}}"#, r#".path.regx: unknown field; did you mean "regex"?"#),
        (
            r#"{"headers": [{"name": "x"}]}"#,
            ".headers[0]: expected exactly one of exact, prefix, suffix, contains, regex, present",
        ),
        (
            r#"{"headers": [{"name": ":method", "exact": "GET"}]}"#,
            r#".headers[0].name: expected the name of a header, got ":method""#,
        ),
        (r#"{"headers": [{"name": "x", "present": 1}]}"#, ".headers[0].present: expected true or false, got 1"),
        (
            r#"{"route": {"template": "/a"}}"#,
            ".route.template: unknown field; known here: exact, prefix, suffix, contains, regex",
        ),
        (r#"{"grpc": null}"#, ".grpc: expected true or false, got null"),
    ] {
        check(&[("match", fragment, &[&format!(".match{expected}")])]);
    }
    for template in ["v1", "", "/a//b", "/**/a", "/{}", "/{a", "/a{b}", "/*", "/{a.b}", "/a?b"] {
        check(&[(
            "match",
            &format!(r#"{{"path": {{"template": "{template}"}}}}"#),
            &[&format!(
                r#".match.path.template: expected a template such as "/v1/users/{{id}}/orders/**", of at most 64 segments, got "{template}""#
            )],
        )]);
    }
}

#[test]
fn responses_are_ones_a_proxy_can_send() {
    for (fragment, expected) in [
        (r#"{"status": 399}"#, ".status: expected a whole number from 400 to 599, got 399"),
        (r#"{"content_type": "text/plain"}"#, ".content_type: has no effect without a body"),
        (r#"{"headers": {"x y": "1"}}"#, r#".headers["x y"]: not the name of a header"#),
        (r#"{"headers": {"Content-Length": "1"}}"#, ".headers.Content-Length: the proxy sets this header"),
        (
            r#"{"headers": {"x": "a\r\nb: c"}}"#,
            r#".headers.x: expected a header value without control characters or blanks around it, got "a\r\nb: c""#,
        ),
        (
            r#"{"headers": {"x": "a\u0000"}}"#,
            r#".headers.x: expected a header value without control characters or blanks around it, got "a\u0000""#,
        ),
        (
            r#"{"headers": {"x": "1", "X": "2"}}"#,
            ".headers.X: given more than once; names of headers differ in more than case",
        ),
        (r#"{"headers": {"x": "1", "x": "2"}}"#, ".headers.x: given more than once"),
        (r#"{"headers": []}"#, ".headers: expected an object of header names and values, got a list"),
    ] {
        check(&[(
            "responses",
            &format!(r#"{{"rate_limited": {fragment}}}"#),
            &[&format!(".responses.rate_limited{expected}")],
        )]);
    }
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_document() {
    let text = r#"{
        "policies": [
            {"headers": {"reason": 1}, "name": "A", "colour": 1, "rate_limits": [{"rate": "fast"}, {"burst": 0, "name": "l"}]},
            {"name": "b", "name": "c", "mode": "of"}
        ],
        "version": 0
    }"#;
    assert_eq!(
        errors(text),
        [
            "$.policies[0].headers.reason: expected true or false, got 1",
            r#"$.policies[0].name: expected a name of 1 to 64 of a-z, 0-9, "_" and "-", got "A""#,
            "$.policies[0].colour: unknown field; known here: name, mode, enforce_percent, match, request_limits, \
         circuit_breaker, rate_limits, load_shedding, responses, headers",
            "$.policies[0].rate_limits[0].name: required, but missing",
            r#"$.policies[0].rate_limits[0].rate: expected a rate such as "100/s", got "fast""#,
            "$.policies[0].rate_limits[1].rate: required, but missing",
            "$.policies[0].rate_limits[1].burst: expected a whole number from 1 to 1000000000, got 0",
            "$.policies[1].name: given more than once",
            r#"$.policies[1].mode: expected "enforce", "shadow" or "off", got "of""#,
            "$.version: expected 1, the only version, got 0",
        ]
    );
}

#[test]
fn many_errors_are_counted_rather_than_listed() {
    let text = format!(r#"{{"policies": [{}]}}"#, vec!["1"; MAX_ERRORS + 7].join(","));
    let shown = errors(&text);
    assert_eq!(shown.len(), MAX_ERRORS + 1);
    assert_eq!(shown.last().map(String::as_str), Some("and 7 more"));
}

#[test]
fn long_strings_and_paths_are_cut_in_messages() {
    let long = "é".repeat(5000);
    let shown = errors(&format!(r#"{{"policies": [], "mode": "{long}", "{long}": 1}}"#));
    assert!(shown.iter().all(|line| line.len() < 800), "{shown:?}");
    assert!(shown[0].ends_with("é...\""), "{shown:?}");
}

#[test]
fn keys_given_twice_are_found_wherever_they_are() {
    assert_eq!(
        errors(r#"{"policies": [], "policies": [], "x": {"y": 1, "y": 1}}"#),
        [
            "$.policies: given more than once",
            "$.x: unknown field; known here: version, mode, policies",
            "$.x.y: given more than once",
        ]
    );
}
