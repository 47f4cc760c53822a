//! What each condition of a match and each source of a key makes of a request.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper may panic")]

mod requests;

use requests::{Proxy, encode};
use tidegate::config::{
    Attribute, ClientIp, FieldCondition, FieldMatcher, KeySource, Match, PathMatcher, StringMatcher, TemplateSegment,
};
use tidegate::matching::{HeaderMap, Index, KeyBuf, KeyExtractor, Matcher, Request, compile_regex};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn with<R>(headers: Pairs<'_>, properties: Pairs<'_>, test: impl FnOnce(&Request<'_>, &Proxy<'_>) -> R) -> R {
    let raw = encode(headers);
    let proxy = Proxy::new(properties);
    test(&Request::new(HeaderMap::parse(&raw).unwrap(), &proxy), &proxy)
}

/// Checks every row with the matcher, and again through an index that holds a decoy beside it.
fn check(rows: &[(&Match, Pairs<'_>, bool)]) {
    for (matches, headers, expected) in rows {
        let found = with(headers, PROPERTIES, |request, _| {
            assert_eq!(Matcher::new(matches).unwrap().matches(request), *expected, "{matches:?} on {headers:?}");
            let decoy = Match { hosts: vec!["decoy.test".into()], ..Match::default() };
            let mut found = vec![7];
            Index::new(&[decoy, (*matches).clone()]).unwrap().find(request, &mut found);
            found
        });
        assert_eq!(found, if *expected { vec![1] } else { vec![] }, "index of {matches:?} on {headers:?}");
    }
}

const PROPERTIES: Pairs<'_> =
    &[("xds\0route_name", "checkout"), ("cluster_name", "backend"), ("source\0address", "192.0.2.77:4242")];

fn exact(s: &str) -> StringMatcher {
    StringMatcher::Exact(s.into())
}

fn regex(s: &str) -> StringMatcher {
    StringMatcher::Regex(s.into())
}

fn hosts(hosts: &[&str]) -> Match {
    Match { hosts: hosts.iter().map(ToString::to_string).collect(), ..Match::default() }
}

fn path(matcher: StringMatcher) -> Match {
    Match { paths: vec![PathMatcher::String(matcher)], ..Match::default() }
}

/// Segments as users write them: `{}` for any, `**` for the rest.
fn template(text: &str) -> Match {
    let segments = text.strip_prefix('/').unwrap().split('/').map(|segment| match segment {
        "{}" => TemplateSegment::Any,
        "**" => TemplateSegment::Rest,
        literal => TemplateSegment::Literal(literal.into()),
    });
    Match { paths: vec![PathMatcher::Template(segments.collect())], ..Match::default() }
}

fn field(name: &str, condition: FieldCondition, invert: bool) -> FieldMatcher {
    FieldMatcher { name: name.into(), condition, invert }
}

fn header(name: &str, condition: FieldCondition, invert: bool) -> Match {
    Match { headers: vec![field(name, condition, invert)], ..Match::default() }
}

fn query(name: &str, condition: FieldCondition, invert: bool) -> Match {
    Match { query: vec![field(name, condition, invert)], ..Match::default() }
}

fn value(matcher: StringMatcher) -> FieldCondition {
    FieldCondition::Value(vec![matcher])
}

#[test]
fn an_empty_match_matches_every_request_and_needs_no_headers() {
    check(&[(&Match::default(), &[], true), (&Match::default(), &[(":path", "/")], true)]);
    assert!(!Index::new(&[Match::default(), Match::default()]).unwrap().needs_headers());
    assert!(!Index::new(&[]).unwrap().needs_headers());
    assert!(Index::new(&[Match::default(), hosts(&["a.test"])]).unwrap().needs_headers());
}

#[test]
fn hosts_ignore_case_and_port_and_a_wildcard_is_any_name_below() {
    let (one, below, six) = (hosts(&["example.com"]), hosts(&["*.example.com"]), hosts(&["::1"]));
    for (matches, authority, expected) in [
        (&one, "example.com", true),
        (&one, "EXAMPLE.com:8443", true),
        (&one, "example.com.", true),
        (&one, "a.example.com", false),
        (&one, "example.co", false),
        (&one, "", false),
        (&below, "a.example.com", true),
        (&below, "a.B.Example.com:80", true),
        (&below, "example.com", false),
        (&below, ".example.com", false),
        (&below, "notexample.com", false),
        (&six, "[::1]:80", true),
        (&six, "[::1]", true),
        (&six, "[::2]", false),
        (&hosts(&["[::1]"]), "[::1]:80", true),
        (&hosts(&["other.test", "*.example.com"]), "x.example.com", true),
    ] {
        check(&[(matches, &[(":authority", authority)], expected), (matches, &[("host", authority)], expected)]);
    }
    check(&[(&one, &[("host", "example.com"), (":authority", "other.test")], false), (&one, &[], false)]);
}

#[test]
fn paths_are_compared_without_their_query() {
    for (matcher, raw_path, expected) in [
        (exact("/a"), "/a", true),
        (exact("/a"), "/a?b=/c", true),
        (exact("/a"), "/a/", false),
        (exact("/a"), "/a;v=1", false),
        (exact("/a"), "/A", false),
        (StringMatcher::Prefix("/api/".into()), "/api/v1", true),
        (StringMatcher::Prefix("/api/".into()), "/api", false),
        (StringMatcher::Prefix(String::new()), "*", true),
        (StringMatcher::Suffix(".png".into()), "/x.png?y", true),
        (StringMatcher::Suffix(".png".into()), "/x?y.png", false),
        (StringMatcher::Contains("admin".into()), "/x/admin/y", true),
        (StringMatcher::Contains("admin".into()), "/x?admin", false),
        (StringMatcher::Contains(String::new()), "", true),
        (regex("^/v[0-9]+/"), "/v12/x", true),
        (regex("^/v[0-9]+/"), "/x/v12/", false),
        (regex("v[0-9]"), "/x/v1", true),
    ] {
        check(&[(&path(matcher), &[(":path", raw_path)], expected)]);
    }
}

#[test]
fn templates_count_segments_exactly() {
    for (text, raw_path, expected) in [
        ("/", "/", true),
        ("/", "/a", false),
        ("/v1/users/{}", "/v1/users/7", true),
        ("/v1/users/{}", "/v1/users/7?x=/y", true),
        ("/v1/users/{}", "/v1/users/", false),
        ("/v1/users/{}", "/v1/users", false),
        ("/v1/users/{}", "/v1/users/7/", false),
        ("/v1/users/{}", "/v1//users/7", false),
        ("/v1/users/{}", "/v1/usersx/7", false),
        ("/v1/users/{}/", "/v1/users/7/", true),
        ("/{}/b", "/a/b", true),
        ("/{}/b", "//b", false),
        ("/{}", "/", false),
        ("/v1/**", "/v1", true),
        ("/v1/**", "/v1/", true),
        ("/v1/**", "/v1/a//b/", true),
        ("/v1/**", "/v1x", false),
        ("/v1/{}/**", "/v1/a", true),
        ("/v1/{}/**", "/v1", false),
        ("/**", "/", true),
        ("/**", "*", false),
        ("/a/b", "/a/b", true),
        ("/a/b", "/a/b/", false),
    ] {
        check(&[(&template(text), &[(":path", raw_path)], expected)]);
    }
    let root = Match { paths: vec![PathMatcher::Template(vec![])], ..Match::default() };
    check(&[(&root, &[(":path", "/")], true), (&root, &[(":path", "/a")], false), (&root, &[], false)]);
}

#[test]
fn methods_are_case_sensitive_and_any_of_them_will_do() {
    let matches = Match { methods: vec!["GET".into(), "HEAD".into()], ..Match::default() };
    check(&[
        (&matches, &[(":method", "GET")], true),
        (&matches, &[(":method", "HEAD")], true),
        (&matches, &[(":method", "get")], false),
        (&matches, &[(":method", "POST")], false),
        (&matches, &[], false),
    ]);
}

#[test]
fn header_conditions_hold_for_any_value_and_an_absent_header_satisfies_an_inverted_one() {
    let gold: Pairs<'_> = &[("x-tier", "basic"), ("x-tier", "gold")];
    let basic: Pairs<'_> = &[("x-tier", "basic")];
    let (empty, none): (Pairs<'_>, Pairs<'_>) = (&[("x-tier", "")], &[("x-tiers", "gold")]);
    let is_gold = |invert| header("x-tier", value(exact("gold")), invert);
    let is_there = |present, invert| header("x-tier", FieldCondition::Present(present), invert);
    check(&[
        (&is_gold(false), gold, true),
        (&is_gold(false), basic, false),
        (&is_gold(false), none, false),
        (&is_gold(true), gold, false),
        (&is_gold(true), basic, true),
        (&is_gold(true), none, true),
        (&is_there(true, false), empty, true),
        (&is_there(true, false), none, false),
        (&is_there(false, false), empty, false),
        (&is_there(false, false), none, true),
        (&is_there(true, true), none, true),
        (&is_there(true, true), empty, false),
        (&is_there(false, true), empty, true),
        (&is_there(false, true), none, false),
        (&header("x-tier", FieldCondition::Value(vec![exact("gold"), regex("^bas")]), false), basic, true),
        (&header("x-tier", FieldCondition::Value(vec![exact("gold"), exact("basic")]), false), basic, true),
        (&header(":method", value(exact("PUT")), false), &[(":method", "PUT")], true),
    ]);
    let both = Match {
        headers: vec![field("a", value(exact("1")), false), field("b", value(exact("2")), false)],
        ..Match::default()
    };
    check(&[(&both, &[("a", "1"), ("b", "2")], true), (&both, &[("a", "1")], false), (&both, &[("b", "2")], false)]);
}

#[test]
fn query_conditions_see_decoded_names_and_values() {
    let user = |matcher| query("user", value(matcher), false);
    for (matches, raw_path, expected) in [
        (user(exact("a b")), "/?user=a+b", true),
        (user(exact("a b")), "/?user=a%20b", true),
        (user(exact("a+b")), "/?user=a%2bb", true),
        (user(exact("a+b")), "/?user=a+b", false),
        (user(exact("me")), "/?us%65r=m%65", true),
        (user(exact("me")), "/?x=1&user=you&user=me", true),
        (user(exact("me")), "/?users=me", false),
        (user(exact("me")), "/user=me", false),
        (user(exact("a=b")), "/?user=a=b", true),
        (user(exact("100%")), "/?user=100%", true),
        (user(exact("%zz")), "/?user=%zz", true),
        (user(exact("")), "/?user", true),
        (user(exact("")), "/?&&user=", true),
        (user(StringMatcher::Prefix("a b".into())), "/?user=a%20bc", true),
        (user(StringMatcher::Suffix("é".into())), "/?user=caf%C3%A9", true),
        (user(StringMatcher::Contains("&".into())), "/?user=a%26b", true),
        (user(regex("^a b$")), "/?user=a+b", true),
        (user(regex("^a b$")), "/?user=a+b%FF", false),
        (query("user", FieldCondition::Present(true), false), "/?user", true),
        (query("user", FieldCondition::Present(true), false), "/?", false),
        (query("user", FieldCondition::Present(false), false), "/?x", true),
        (query("user", value(exact("me")), true), "/", true),
        (query("user", value(exact("me")), true), "/?user=me", false),
    ] {
        check(&[(&matches, &[(":path", raw_path)], expected)]);
    }
}

#[test]
fn routes_and_clusters_come_from_the_proxy_under_either_name() {
    let route = |name: &str| Match { routes: vec![exact(name)], ..Match::default() };
    let cluster = |matcher| Match { clusters: vec![exact("other"), matcher], ..Match::default() };
    check(&[
        (&route("checkout"), &[], true),
        (&route("other"), &[], false),
        (&cluster(exact("backend")), &[], true),
        (&cluster(StringMatcher::Prefix("back".into())), &[], true),
        (&cluster(regex("^front")), &[], false),
    ]);
    let everything = Match { routes: vec![StringMatcher::Prefix(String::new())], ..Match::default() };
    for properties in [[].as_slice(), &[("xds\0route_name", "")]] {
        with(&[], properties, |request, _| assert!(!Matcher::new(&everything).unwrap().matches(request)));
    }
}

#[test]
fn grpc_is_a_condition_either_way() {
    let grpc = |grpc| Match { grpc: Some(grpc), ..Match::default() };
    let web: Pairs<'_> = &[("content-type", "application/grpc-web")];
    check(&[
        (&grpc(true), &[("content-type", "application/grpc+proto")], true),
        (&grpc(true), web, false),
        (&grpc(false), web, true),
        (&grpc(false), &[], true),
        (&grpc(false), &[("content-type", "application/grpc")], false),
    ]);
}

#[test]
fn values_that_are_not_utf8_compare_as_bytes_and_match_no_regex() {
    let raw = encode(&[(b":path".as_slice(), b"/a\xff/b".as_slice()), (b"x", b"\xfe")]);
    let proxy = Proxy::new(&[]);
    let request = Request::new(HeaderMap::parse(&raw).unwrap(), &proxy);
    let holds = |matches: Match| Matcher::new(&matches).unwrap().matches(&request);
    assert!(holds(path(StringMatcher::Prefix("/a".into()))));
    assert!(holds(path(StringMatcher::Suffix("/b".into()))));
    assert!(!holds(path(regex(""))));
    assert!(holds(header("x", FieldCondition::Present(true), false)));
    assert!(holds(header("x", value(regex(".*")), true)));
}

#[test]
fn a_regex_is_refused_with_its_reason_when_malformed_or_too_large() {
    assert!(compile_regex("a(b").is_err());
    assert!(compile_regex("[a-z]{1,1000}{1,1000}").is_err());
    assert!(compile_regex(r"^/api/v\d+/(users|orders)/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$").is_ok());
    let broken = path(regex("a(b"));
    assert!(Matcher::new(&broken).is_err());
    assert!(Index::new(&[Match::default(), broken]).is_err());
}

#[test]
fn the_proxy_is_asked_only_when_a_policy_could_still_match_and_only_once() {
    let on_cluster = Match { methods: vec!["POST".into()], clusters: vec![exact("backend")], ..Match::default() };
    let on_path = Match { clusters: vec![exact("backend")], ..path(exact("/a")) };
    let index = Index::new(&[on_cluster.clone(), on_path, on_cluster]).unwrap();
    let mut found = Vec::new();
    for (method, path, asked, expected) in [
        ("GET", "/", 0, vec![]),
        ("GET", "/a", 1, vec![1]),
        ("POST", "/", 1, vec![0, 2]),
        ("POST", "/a", 1, vec![0, 1, 2]),
    ] {
        with(&[(":method", method), (":path", path)], &[("xds\0cluster_name", "backend")], |request, proxy| {
            index.find(request, &mut found);
            assert_eq!(found, expected, "{method} {path}");
            assert_eq!(proxy.asked.get(), asked, "{method} {path}");
        });
    }
    with(&[], &[], |request, proxy| {
        assert_eq!((request.route(), request.route(), request.peer()), (None, None, None));
        assert_eq!(proxy.asked.get(), 3, "an absent name is remembered too, after both of its paths were tried");
    });
}

/// The key's components as text, or `None` when a source is absent.
fn key(sources: &[KeySource], headers: Pairs<'_>, properties: Pairs<'_>) -> Option<Vec<String>> {
    let mut key = KeyBuf::default();
    with(headers, properties, |request, _| KeyExtractor::new(sources).extract(request, &mut key))
        .then(|| key.parts().map(|part| String::from_utf8_lossy(part).into_owned()).collect())
}

fn one(source: KeySource, headers: Pairs<'_>) -> Option<String> {
    key(&[source], headers, PROPERTIES).map(|parts| parts.concat())
}

#[test]
fn each_key_source_takes_its_first_value_or_is_absent() {
    use Attribute::{Cluster, Host, Method, Path, Route, Scheme};
    let headers: Pairs<'_> = &[
        (":method", "PUT"),
        (":path", "/v1//users;x/?user=a%20b&user=c&e=&us%65r2=z"),
        (":authority", "Example.COM:80"),
        (":scheme", "https"),
        ("x-key", "k1"),
        ("x-key", "k2"),
        ("x-empty", ""),
        ("cookie", "a=1; sid = \"s=3\" ;b"),
        ("cookie", "sid=later; c=4; q=\""),
    ];
    for (source, expected) in [
        (KeySource::Header("x-key".into()), Some("k1")),
        (KeySource::Header("x-empty".into()), Some("")),
        (KeySource::Header("x-none".into()), None),
        (KeySource::Query("user".into()), Some("a b")),
        (KeySource::Query("user2".into()), Some("z")),
        (KeySource::Query("e".into()), Some("")),
        (KeySource::Query("none".into()), None),
        (KeySource::Cookie("a".into()), Some("1")),
        (KeySource::Cookie("sid".into()), Some("s=3")),
        (KeySource::Cookie("c".into()), Some("4")),
        (KeySource::Cookie("q".into()), Some("\"")),
        (KeySource::Cookie("b".into()), None),
        (KeySource::Cookie("A".into()), None),
        (KeySource::PathSegment(0), Some("v1")),
        (KeySource::PathSegment(1), None),
        (KeySource::PathSegment(2), Some("users;x")),
        (KeySource::PathSegment(3), None),
        (KeySource::PathSegment(9), None),
        (KeySource::Attribute(Method), Some("PUT")),
        (KeySource::Attribute(Path), Some("/v1//users;x/")),
        (KeySource::Attribute(Host), Some("example.com")),
        (KeySource::Attribute(Route), Some("checkout")),
        (KeySource::Attribute(Cluster), Some("backend")),
        (KeySource::Attribute(Scheme), Some("https")),
        (KeySource::Property(vec!["source".into(), "address".into()]), Some("192.0.2.77:4242")),
        (KeySource::Property(vec!["metadata".into(), "x".into()]), None),
    ] {
        assert_eq!(one(source.clone(), headers).as_deref(), expected, "{source:?}");
    }
    for attribute in [Method, Path, Host, Route, Cluster, Scheme] {
        assert_eq!(key(&[KeySource::Attribute(attribute)], &[], &[]), None, "{attribute:?}");
    }
}

#[test]
fn a_key_is_its_components_in_order_and_empty_when_one_is_absent() {
    let (a, b) = (KeySource::Header("a".into()), KeySource::Header("b".into()));
    let headers: Pairs<'_> = &[("b", "2"), ("a", "1")];
    assert_eq!(key(&[a.clone(), b.clone()], headers, &[]), Some(vec!["1".into(), "2".into()]));
    assert_eq!(key(&[b.clone(), a.clone()], headers, &[]), Some(vec!["2".into(), "1".into()]));
    assert_eq!(key(&[], headers, &[]), Some(vec![]));
    assert!(KeyExtractor::new(&[]).is_empty() && !KeyExtractor::new(std::slice::from_ref(&a)).is_empty());

    let mut kept = KeyBuf::new();
    with(headers, &[], |request, _| {
        assert!(KeyExtractor::new(std::slice::from_ref(&a)).extract(request, &mut kept));
        assert!(!KeyExtractor::new(&[a, KeySource::Header("c".into())]).extract(request, &mut kept));
    });
    assert!(kept.as_bytes().is_empty());
}

#[test]
fn a_client_address_is_taken_from_the_hop_asked_for_and_masked() {
    let ip = |trusted_hops, ipv4_prefix, ipv6_prefix| {
        KeySource::ClientIp(ClientIp { trusted_hops, ipv4_prefix, ipv6_prefix })
    };
    let peer = |address: &str, source| key(&[source], &[], &[("source\0address", address)]).map(|parts| parts.concat());
    for (address, source, expected) in [
        ("192.0.2.77:4242", ip(0, 32, 64), Some("192.0.2.77")),
        ("192.0.2.77:4242", ip(0, 24, 64), Some("192.0.2.0")),
        ("192.0.2.77:4242", ip(0, 25, 64), Some("192.0.2.0")),
        ("192.0.2.200:4242", ip(0, 25, 64), Some("192.0.2.128")),
        ("192.0.2.77:4242", ip(0, 0, 64), Some("0.0.0.0")),
        ("192.0.2.77", ip(0, 32, 64), Some("192.0.2.77")),
        ("[2001:db8:1:2:3::4]:443", ip(0, 32, 64), Some("2001:db8:1:2::")),
        ("[2001:db8:1:2:3::4]:443", ip(0, 32, 128), Some("2001:db8:1:2:3::4")),
        ("[2001:db8:1:2:3::4]:443", ip(0, 32, 0), Some("::")),
        ("2001:db8::1", ip(0, 32, 128), Some("2001:db8::1")),
        ("::1", ip(0, 32, 128), Some("::1")),
        ("[::ffff:192.0.2.77]:80", ip(0, 24, 64), Some("192.0.2.0")),
        ("::ffff:192.0.2.77", ip(0, 32, 64), Some("192.0.2.77")),
        ("192.0.2.77:", ip(0, 32, 64), None),
        ("192.0.2.77:http", ip(0, 32, 64), None),
        ("192.0.2.256", ip(0, 32, 64), None),
        ("[192.0.2.7]", ip(0, 32, 64), None),
        ("[::1", ip(0, 32, 64), None),
        ("[::1]x", ip(0, 32, 64), None),
        ("/tmp/socket", ip(0, 32, 64), None),
        ("", ip(0, 32, 64), None),
    ] {
        assert_eq!(peer(address, source.clone()).as_deref(), expected, "{address} {source:?}");
    }

    let headers: Pairs<'_> = &[
        ("x-forwarded-for", "spoofed, 203.0.113.9:1234"),
        ("x-other", "x"),
        ("x-forwarded-for", "[2001:db8::5]:9, 10.0.0.1 "),
    ];
    for (hops, expected) in [
        (0, Some("192.0.2.77")),
        (1, Some("10.0.0.1")),
        (2, Some("2001:db8::5")),
        (3, Some("203.0.113.9")),
        (4, None),
        (5, None),
        (255, None),
    ] {
        assert_eq!(one(ip(hops, 32, 128), headers).as_deref(), expected, "{hops} hops");
    }
    assert_eq!(one(ip(1, 32, 64), &[]), None);
}

#[test]
fn labels_are_safe_in_stat_names_and_tell_long_keys_apart() {
    let label = |values: &[&str]| {
        let names: Vec<String> = (0..values.len()).map(|i| format!("h{i}")).collect();
        let headers: Vec<_> = names.iter().map(String::as_str).zip(values.iter().copied()).collect();
        let sources: Vec<_> = names.iter().cloned().map(KeySource::Header).collect();
        let mut key = KeyBuf::new();
        with(&headers, &[], |request, _| assert!(KeyExtractor::new(&sources).extract(request, &mut key)));
        key.label()
    };
    assert_eq!(label(&[]), "");
    assert_eq!(label(&["gold", "/v1"]), "gold|/v1");
    assert_eq!(label(&["outbound|80|svc.ns.local"]), "outbound%7C80%7Csvc.ns.local");
    assert_eq!(label(&[".a.", ".", "b"]), "%2Ea%2E|%2E|b");
    assert_eq!(label(&["a.b", "c|d", "50%", "é \n"]), "a.b|c%7Cd|50%25|%C3%A9%20%0A");
    assert_eq!(label(&["x".repeat(64).as_str()]), "x".repeat(64));
    let (long, longer) = (label(&["x".repeat(65).as_str()]), label(&["x".repeat(66).as_str()]));
    assert_ne!(long, longer);
    for label in [long, longer, label(&["é".repeat(40).as_str()]), label(&[".".repeat(4000).as_str(), "b"])] {
        assert!(label.len() <= 64, "{label}");
        let (kept, note) = label.rsplit_once('~').unwrap();
        assert!(note.len() == 16 && note.bytes().all(|b| b.is_ascii_hexdigit()), "{label}");
        assert!(kept.len() >= 45 && label.bytes().all(|b| b.is_ascii_graphic()) && !label.starts_with('.'), "{label}");
    }
}

#[test]
fn malformed_header_maps_are_refused() {
    let sound = encode(&[("a", "1"), ("bb", "")]);
    assert!(HeaderMap::parse(&sound).is_some());
    for cut in 1..sound.len() {
        assert!(HeaderMap::parse(&sound[..cut]).is_none(), "cut to {cut}");
    }
    assert!(HeaderMap::parse(&[&sound[..], &[0]].concat()).is_none());
    assert!(HeaderMap::parse(&[0xff; 4]).is_none());
    assert!(HeaderMap::parse(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0, 0, 0]).is_none());
    for empty in [HeaderMap::parse(&[]).unwrap(), HeaderMap::parse(&[0; 4]).unwrap()] {
        assert_eq!((empty.is_empty(), empty.len(), empty.iter().count(), empty.get(b"a")), (true, 0, 0, None));
    }
}
