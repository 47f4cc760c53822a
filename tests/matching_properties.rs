//! That the index finds what a scan would, that keys are unambiguous, and that no request makes anything panic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper may panic")]

mod requests;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use requests::{Proxy, encode};
use tidegate::config::{
    Attribute, ClientIp, FieldCondition, FieldMatcher, KeySource, Match, PathMatcher, StringMatcher, TemplateSegment,
};
use tidegate::matching::{HeaderMap, Index, KeyBuf, KeyExtractor, Matcher, Request};

fn string_matcher(values: &'static [&'static str]) -> impl Strategy<Value = StringMatcher> {
    (select(values), 0..5).prop_map(|(text, kind)| match kind {
        0 => StringMatcher::Prefix(text.into()),
        1 => StringMatcher::Suffix(text.into()),
        2 => StringMatcher::Contains(text.into()),
        3 => StringMatcher::Regex(format!("^{text}").replace('*', r"\*")),
        _ => StringMatcher::Exact(text.into()),
    })
}

const PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "//", "*", ""];
const NAMES: &[&str] = &["x", "y", "xy"];
const VALUES: &[&str] = &["", "1", "2", "1 2"];
const FACTS: &[&str] = &["one", "two", "on"];
const HOSTS: &[&str] = &["a.test", "*.a.test", "b.a.test", "*.test", "*.b.a.test", "::1"];

fn path_matcher() -> impl Strategy<Value = PathMatcher> {
    let segment = prop_oneof![
        3 => select(&["a", "b", ""][..]).prop_map(|s| TemplateSegment::Literal(s.into())),
        1 => Just(TemplateSegment::Any),
    ];
    let template = (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(mut template, rest)| {
        template.extend(rest.then_some(TemplateSegment::Rest));
        PathMatcher::Template(template)
    });
    prop_oneof![string_matcher(PATHS).prop_map(PathMatcher::String), template]
}

fn field_matcher() -> impl Strategy<Value = FieldMatcher> {
    let condition = prop_oneof![
        any::<bool>().prop_map(FieldCondition::Present),
        prop::collection::vec(string_matcher(VALUES), 1..3).prop_map(FieldCondition::Value),
    ];
    (select(NAMES), condition, prop::bool::weighted(0.2)).prop_map(|(name, condition, invert)| FieldMatcher {
        name: name.into(),
        condition,
        invert,
    })
}

/// Mostly none, so that policies are not so narrow that nothing matches.
fn few<T: Clone + std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(item, 1..3)]
}

fn policy() -> impl Strategy<Value = Match> {
    let message = (
        few(select(HOSTS).prop_map(String::from)),
        few(path_matcher()),
        few(select(&["GET", "PUT"][..]).prop_map(String::from)),
        few(field_matcher()),
        few(field_matcher()),
    );
    let facts = (few(string_matcher(FACTS)), few(string_matcher(FACTS)), prop::option::weighted(0.1, any::<bool>()));
    (message, facts).prop_map(|((hosts, paths, methods, headers, query), (routes, clusters, grpc))| Match {
        hosts,
        paths,
        methods,
        headers,
        query,
        routes,
        clusters,
        grpc,
    })
}

type Owned = Vec<(String, String)>;

fn request() -> impl Strategy<Value = (Owned, Vec<(&'static str, &'static str)>)> {
    let pair = || (select(NAMES), select(VALUES));
    let host = select(&["a.test", "B.A.test:80", "c.b.a.test.", ".a.test", "[::1]:1", "other", ""][..]);
    let message = (host, select(PATHS), prop::collection::vec(pair(), 0..3), prop::collection::vec(pair(), 0..4));
    let rest = (select(&["GET", "PUT"][..]), select(&["application/grpc", "text/plain"][..]));
    let facts = subsequence(vec![("xds\0route_name", "one"), ("route_name", "two"), ("cluster_name", "on")], 0..=3);
    (message, rest, facts).prop_map(|((host, path, query, fields), (method, content_type), facts)| {
        let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "%20"))).collect();
        let mut headers: Owned = [(":authority", host), (":method", method), ("content-type", content_type)]
            .into_iter()
            .chain(fields)
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        headers.push((":path".into(), format!("{path}?{}", query.join("&"))));
        (headers, facts)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_index_finds_what_a_scan_of_all_matchers_finds(
        policies in prop::collection::vec(policy(), 0..12),
        requests in prop::collection::vec(request(), 1..8),
    ) {
        let index = Index::new(&policies).unwrap();
        let matchers: Vec<_> = policies.iter().map(|policy| Matcher::new(policy).unwrap()).collect();
        let mut found = Vec::new();
        for (headers, facts) in &requests {
            let raw = encode(headers);
            let proxy = Proxy::new(facts);
            let request = Request::new(HeaderMap::parse(&raw).unwrap(), &proxy);
            index.find(&request, &mut found);
            let scanned: Vec<u32> = (0..).zip(&matchers).filter(|(_, m)| m.matches(&request)).map(|(i, _)| i).collect();
            prop_assert_eq!(&found, &scanned, "{:?}", headers);
        }
    }

    #[test]
    fn header_maps_round_trip(pairs in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..20)) {
        let raw = encode(&pairs);
        let headers = HeaderMap::parse(&raw).unwrap();
        let read: Vec<_> = headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        prop_assert_eq!(headers.len(), pairs.len());
        prop_assert_eq!(read, pairs);
    }

    #[test]
    fn no_bytes_make_reading_a_request_panic(mut raw in any::<Vec<u8>>(), pairs in 0_u8..4, small in any::<bool>()) {
        // Small counts and lengths are what gets past the first check.
        for (position, byte) in raw.iter_mut().enumerate().take(4 + 8 * usize::from(pairs)).filter(|_| small) {
            *byte = match position { 0 => pairs, _ if position % 4 == 0 => *byte % 8, _ => 0 };
        }
        if let Some(headers) = HeaderMap::parse(&raw) {
            prop_assert_eq!(headers.iter().count(), headers.len());
        }
    }

    #[test]
    fn no_values_make_matching_or_extraction_panic(
        values in prop::collection::vec(any::<Vec<u8>>(), 6),
        policies in prop::collection::vec(policy(), 4),
    ) {
        let names = [":path", ":authority", "cookie", "x-forwarded-for", "content-type", "x"];
        let pairs: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).zip(values).collect();
        let raw = encode(&pairs);
        let proxy = Proxy::new(&[]);
        let request = Request::new(HeaderMap::parse(&raw).unwrap(), &proxy);
        let mut found = Vec::new();
        Index::new(&policies).unwrap().find(&request, &mut found);
        let client_ip = ClientIp { trusted_hops: 1, ipv4_prefix: 24, ipv6_prefix: 64 };
        let mut key = KeyBuf::new();
        for source in [
            KeySource::Header("x".into()),
            KeySource::Query("x".into()),
            KeySource::Cookie("x".into()),
            KeySource::PathSegment(0),
            KeySource::Attribute(Attribute::Host),
            KeySource::ClientIp(client_ip),
        ] {
            let complete = KeyExtractor::new(&[source]).extract(&request, &mut key);
            prop_assert_eq!(key.parts().count(), usize::from(complete));
            prop_assert!(key.label().len() <= 64);
        }
    }

    #[test]
    fn keys_are_equal_only_when_all_components_are(
        one in prop::collection::vec("[ab|\0\u{1}]{0,3}", 0..4),
        other in prop::collection::vec("[ab|\0\u{1}]{0,3}", 0..4),
    ) {
        let encoded = [&one, &other].map(|values| {
            let pairs: Vec<_> = values.iter().enumerate().map(|(i, value)| (i.to_string(), value.clone())).collect();
            let sources: Vec<_> = pairs.iter().map(|(name, _)| KeySource::Header(name.clone())).collect();
            let raw = encode(&pairs);
            let proxy = Proxy::new(&[]);
            let mut key = KeyBuf::new();
            let request = Request::new(HeaderMap::parse(&raw).unwrap(), &proxy);
            assert!(KeyExtractor::new(&sources).extract(&request, &mut key));
            assert!(key.parts().eq(values.iter().map(String::as_bytes)));
            key
        });
        prop_assert_eq!(encoded[0].as_bytes() == encoded[1].as_bytes(), one == other);
    }
}
