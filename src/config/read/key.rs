//! Keys: what tells clients, upstreams or bulkheads apart.

use super::super::error::Context;
use super::super::model::{Attribute, ClientIp, KeySource};
use super::super::node::Node;
use super::fields::{Fields, Schema, list};
use super::value;

static SOURCE: Schema = Schema {
    name: "key source",
    fields: &["header", "query", "cookie", "path_segment", "attribute", "property", "client_ip"],
};

static CLIENT_IP: Schema = Schema { name: "client_ip", fields: &["trusted_hops", "ipv4_prefix", "ipv6_prefix"] };

pub(super) const SCHEMAS: &[&Schema] = &[&SOURCE, &CLIENT_IP];

const MAX_SOURCES: usize = 8;

/// A list of sources, in order; it may be empty.
pub(super) fn read(cx: &mut Context, node: &Node) -> Option<Vec<KeySource>> {
    list(cx, node, 0, MAX_SOURCES, source)
}

fn source(cx: &mut Context, node: &Node) -> Option<KeySource> {
    let fields = Fields::open(cx, node, &SOURCE)?;
    let (kind, _) = fields.only(cx, SOURCE.fields)?;
    fields.required(cx, kind, |cx, node| match kind {
        "header" => value::header_name(cx, node).map(KeySource::Header),
        "query" => value::text(cx, node, 1, 256).map(KeySource::Query),
        "cookie" => value::checked(cx, node, "the name of a cookie", |text| value::is_token(text) && text.len() <= 256)
            .map(KeySource::Cookie),
        "path_segment" => value::byte(cx, node, 63).map(KeySource::PathSegment),
        "attribute" => attribute(cx, node).map(KeySource::Attribute),
        "property" => property(cx, node).map(KeySource::Property),
        _ => client_ip(cx, node).map(KeySource::ClientIp),
    })
}

fn attribute(cx: &mut Context, node: &Node) -> Option<Attribute> {
    let choices = [
        ("method", Attribute::Method),
        ("path", Attribute::Path),
        ("host", Attribute::Host),
        ("route", Attribute::Route),
        ("cluster", Attribute::Cluster),
        ("scheme", Attribute::Scheme),
    ];
    value::one_of(cx, node, &choices)
}

fn property(cx: &mut Context, node: &Node) -> Option<Vec<String>> {
    list(cx, node, 1, 16, |cx, node| {
        // Hosts take the path as one string with NUL between its parts.
        value::checked(cx, node, "a part of a property's path, of 1 to 256 bytes without NUL", |text| {
            (1..=256).contains(&text.len()) && !text.contains('\0')
        })
    })
}

fn client_ip(cx: &mut Context, node: &Node) -> Option<ClientIp> {
    let fields = Fields::open(cx, node, &CLIENT_IP)?;
    let trusted_hops = fields.or(cx, "trusted_hops", 0, |cx, node| value::byte(cx, node, 32));
    let ipv4_prefix = fields.or(cx, "ipv4_prefix", 32, |cx, node| value::byte(cx, node, 32));
    let ipv6_prefix = fields.or(cx, "ipv6_prefix", 64, |cx, node| value::byte(cx, node, 128));
    Some(ClientIp { trusted_hops: trusted_hops?, ipv4_prefix: ipv4_prefix?, ipv6_prefix: ipv6_prefix? })
}
