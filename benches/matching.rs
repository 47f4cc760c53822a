//! What finding a request's policies costs, with 2 policies and with 200 of the same kind.
#![allow(clippy::unwrap_used, reason = "a failing benchmark or test may panic")]

#[path = "../tests/requests/mod.rs"]
mod requests;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use requests::{Proxy, encode};
use tidegate::config::{FieldCondition, FieldMatcher, KeySource, Match, PathMatcher, StringMatcher, TemplateSegment};
use tidegate::matching::{HeaderMap, Index, KeyBuf, KeyExtractor, Request};

fn exact(text: String) -> StringMatcher {
    StringMatcher::Exact(text)
}

/// The n-th policy of a kind.
type Policy = fn(usize) -> Match;

/// The kinds of policy. The request below matches number 1 of each.
fn kinds() -> [(&'static str, Policy); 7] {
    [
        ("host", |n| Match { hosts: vec![format!("service-{n}.zone-1.example.com")], ..Match::default() }),
        ("wildcard host", |n| Match { hosts: vec![format!("*.zone-{n}.example.com")], ..Match::default() }),
        ("path", |n| Match {
            paths: vec![PathMatcher::String(exact(format!("/service-{n}/orders/42")))],
            ..Match::default()
        }),
        ("prefix", |n| Match {
            paths: vec![PathMatcher::String(StringMatcher::Prefix(format!("/service-{n}/")))],
            ..Match::default()
        }),
        ("template", |n| Match {
            paths: vec![PathMatcher::Template(vec![
                TemplateSegment::Literal(format!("service-{n}")),
                TemplateSegment::Literal("orders".into()),
                TemplateSegment::Any,
            ])],
            ..Match::default()
        }),
        ("header", |n| Match {
            headers: vec![FieldMatcher {
                name: "x-tenant".into(),
                condition: FieldCondition::Value(vec![exact(format!("tenant-{n}"))]),
                invert: false,
            }],
            ..Match::default()
        }),
        ("cluster", |n| Match { clusters: vec![exact(format!("cluster-{n}"))], ..Match::default() }),
    ]
}

fn find(c: &mut Criterion) {
    let raw = encode(&[
        (":authority", "service-1.zone-1.example.com"),
        (":path", "/service-1/orders/42?page=2"),
        (":method", "GET"),
        (":scheme", "https"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, br"),
        ("cookie", "session=0123456789abcdef"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "123e4567-e89b-12d3-a456-426614174000"),
        ("x-tenant", "tenant-1"),
    ]);
    let proxy = Proxy::new(&[("xds\0cluster_name", "cluster-1")]);
    let mut found = Vec::new();
    for (kind, policy) in kinds() {
        for count in [2, 200] {
            let index = Index::new(&(0..count).map(policy).collect::<Vec<_>>()).unwrap();
            index.find(&Request::new(HeaderMap::parse(&raw).unwrap(), &proxy), &mut found);
            assert_eq!(found, [1], "{kind}");
            c.bench_function(&format!("{kind}/{count} policies"), |b| {
                b.iter(|| {
                    let request = Request::new(HeaderMap::parse(black_box(&raw)).unwrap(), &proxy);
                    index.find(&request, &mut found);
                    black_box(found.len())
                });
            });
        }
    }
    let extractor = KeyExtractor::new(&[KeySource::Header("x-tenant".into()), KeySource::Cookie("session".into())]);
    let mut key = KeyBuf::new();
    c.bench_function("key of a header and a cookie", |b| {
        b.iter(|| {
            let request = Request::new(HeaderMap::parse(black_box(&raw)).unwrap(), &proxy);
            black_box(extractor.extract(&request, &mut key))
        });
    });
}

criterion_group!(benches, find);
criterion_main!(benches);
