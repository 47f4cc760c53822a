//! Matches: to which requests something applies.

use super::super::error::{Context, quote};
use super::super::model::{FieldCondition, FieldMatcher, Match, PathMatcher, StringMatcher, TemplateSegment};
use super::super::node::{Kind, Node};
use super::fields::{Fields, Schema, list, one_or_many};
use super::value;

static MATCH: Schema =
    Schema { name: "match", fields: &["host", "path", "method", "headers", "query", "route", "cluster", "grpc"] };

static STRING_MATCHER: Schema =
    Schema { name: "string matcher", fields: &["exact", "prefix", "suffix", "contains", "regex"] };

static PATH_MATCHER: Schema =
    Schema { name: "path matcher", fields: &["exact", "prefix", "suffix", "contains", "regex", "template"] };

static FIELD_MATCHER: Schema = Schema {
    name: "field matcher",
    fields: &["name", "exact", "prefix", "suffix", "contains", "regex", "present", "invert"],
};

pub(super) const SCHEMAS: &[&Schema] = &[&MATCH, &STRING_MATCHER, &PATH_MATCHER, &FIELD_MATCHER];

/// Items of each list of a match.
const MAX_ITEMS: usize = 1000;
const MAX_TEXT: usize = 4096;
const MAX_REGEX: usize = 1024;
const MAX_SEGMENTS: usize = 64;

/// Bytes a compiled regular expression may take.
const REGEX_SIZE: usize = 256 * 1024;

pub(super) fn read(cx: &mut Context, node: &Node) -> Option<Match> {
    let fields = Fields::open(cx, node, &MATCH)?;
    let hosts = fields.or(cx, "host", Vec::new(), |cx, node| one_or_many(cx, node, MAX_ITEMS, host));
    let paths = fields.or(cx, "path", Vec::new(), |cx, node| one_or_many(cx, node, MAX_ITEMS, path));
    let methods = fields.or(cx, "method", Vec::new(), |cx, node| one_or_many(cx, node, MAX_ITEMS, method));
    let headers = fields.or(cx, "headers", Vec::new(), |cx, node| {
        list(cx, node, 0, MAX_ITEMS, |cx, node| field(cx, node, value::header_name))
    });
    let query = fields.or(cx, "query", Vec::new(), |cx, node| {
        list(cx, node, 0, MAX_ITEMS, |cx, node| field(cx, node, |cx, node| value::text(cx, node, 1, 256)))
    });
    let routes = fields.or(cx, "route", Vec::new(), |cx, node| one_or_many(cx, node, MAX_ITEMS, string));
    let clusters = fields.or(cx, "cluster", Vec::new(), |cx, node| one_or_many(cx, node, MAX_ITEMS, string));
    let grpc = fields.maybe(cx, "grpc", value::boolean);
    Some(Match {
        hosts: hosts?,
        paths: paths?,
        methods: methods?,
        headers: headers?,
        query: query?,
        routes: routes?,
        clusters: clusters?,
        grpc: grpc?,
    })
}

fn host(cx: &mut Context, node: &Node) -> Option<String> {
    let what = "a host without port such as \"example.com\" or \"*.example.com\" (leave host out for every host)";
    value::checked(cx, node, what, |text| {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let labels = |name: &str| {
            name.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            })
        };
        let literal = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        text.len() <= 255
            && literal.map_or(labels(name), |ip| {
                ip.contains(':') && ip.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
            })
    })
    .map(|host| host.to_ascii_lowercase())
}

fn method(cx: &mut Context, node: &Node) -> Option<String> {
    const USUAL: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    let method =
        value::checked(cx, node, "a method such as \"GET\"", |text| value::is_token(text) && text.len() <= 64)?;
    if let Some(usual) = USUAL.iter().find(|usual| usual.eq_ignore_ascii_case(&method) && **usual != method) {
        // Methods are case-sensitive: `get` is another one, which nobody sends.
        cx.expected(node, &["the method ", &quote(usual)].concat());
        return None;
    }
    Some(method)
}

fn string(cx: &mut Context, node: &Node) -> Option<StringMatcher> {
    if let Kind::Object(_) = node.kind {
        let fields = Fields::open(cx, node, &STRING_MATCHER)?;
        let (kind, _) = fields.only(cx, STRING_MATCHER.fields)?;
        return fields.required(cx, kind, |cx, node| string_of(cx, node, kind));
    }
    let Kind::String(_) = node.kind else {
        cx.expected(node, "a string or an object such as {\"prefix\": \"...\"}");
        return None;
    };
    string_of(cx, node, "exact")
}

/// The matcher `kind` of the text in `node`.
fn string_of(cx: &mut Context, node: &Node, kind: &str) -> Option<StringMatcher> {
    // An exact value may be empty; anything starts with nothing, so the others may not.
    let text = value::text(cx, node, usize::from(kind != "exact"), if kind == "regex" { MAX_REGEX } else { MAX_TEXT })?;
    Some(match kind {
        "exact" => StringMatcher::Exact(text),
        "prefix" => StringMatcher::Prefix(text),
        "suffix" => StringMatcher::Suffix(text),
        "contains" => StringMatcher::Contains(text),
        _ => {
            if let Err(reason) = check_regex(&text) {
                cx.error(node, ["expected a regular expression, got ", &quote(&text), ": ", &reason].concat());
                return None;
            }
            StringMatcher::Regex(text)
        }
    })
}

/// Whether the engine that will match takes this pattern, and if not why.
fn check_regex(pattern: &str) -> Result<(), String> {
    match regex_lite::RegexBuilder::new(pattern).size_limit(REGEX_SIZE).build() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn path(cx: &mut Context, node: &Node) -> Option<PathMatcher> {
    let Kind::Object(_) = node.kind else {
        return string(cx, node).and_then(|matcher| possible(cx, node, matcher));
    };
    let fields = Fields::open(cx, node, &PATH_MATCHER)?;
    let (kind, _) = fields.only(cx, PATH_MATCHER.fields)?;
    fields.required(cx, kind, |cx, node| match kind {
        "template" => template(cx, node).map(PathMatcher::Template),
        _ => string_of(cx, node, kind).and_then(|matcher| possible(cx, node, matcher)),
    })
}

/// Reports a matcher that no path can satisfy: paths start with a slash, or are `*`, and come without their query.
fn possible(cx: &mut Context, node: &Node, matcher: StringMatcher) -> Option<PathMatcher> {
    let (text, start) = match &matcher {
        StringMatcher::Exact(text) if text != "*" => (text, true),
        StringMatcher::Prefix(text) => (text, true),
        StringMatcher::Suffix(text) | StringMatcher::Contains(text) => (text, false),
        _ => return Some(PathMatcher::String(matcher)),
    };
    if start && !text.starts_with('/') {
        cx.expected(node, "a path that starts with \"/\"");
        return None;
    }
    if text.contains('?') {
        cx.expected(node, "a path without query (see the match's query)");
        return None;
    }
    Some(PathMatcher::String(matcher))
}

fn template(cx: &mut Context, node: &Node) -> Option<Vec<TemplateSegment>> {
    let parsed = match &node.kind {
        Kind::String(text) => parse_template(text),
        _ => None,
    };
    if parsed.is_none() {
        cx.expected(node, "a template such as \"/v1/users/{id}/orders/**\", of at most 64 segments");
    }
    parsed
}

fn parse_template(text: &str) -> Option<Vec<TemplateSegment>> {
    let mut segments = Vec::new();
    let mut parts = text.strip_prefix('/')?.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        let variable = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        segments.push(match (part, variable) {
            ("**", _) if last => TemplateSegment::Rest,
            (_, Some(name)) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                TemplateSegment::Any
            }
            // Empty only at the end, where it stands for the path's last slash.
            ("", _) if !last => return None,
            _ if part.contains(['{', '}', '*', '?', '#']) => return None,
            _ => TemplateSegment::Literal(part.to_owned()),
        });
    }
    (segments.len() <= MAX_SEGMENTS).then_some(segments)
}

/// A condition on a header or a query parameter, whose name `name` reads.
fn field(cx: &mut Context, node: &Node, name: fn(&mut Context, &Node) -> Option<String>) -> Option<FieldMatcher> {
    let fields = Fields::open(cx, node, &FIELD_MATCHER)?;
    let name = fields.required(cx, "name", name);
    let condition =
        fields.only(cx, &["exact", "prefix", "suffix", "contains", "regex", "present"]).and_then(|(kind, _)| {
            fields.required(cx, kind, |cx, node| match kind {
                "present" => value::boolean(cx, node).map(FieldCondition::Present),
                _ => one_or_many(cx, node, MAX_ITEMS, |cx, node| string_of(cx, node, kind)).map(FieldCondition::Value),
            })
        });
    let invert = fields.or(cx, "invert", false, value::boolean);
    Some(FieldMatcher { name: name?, condition: condition?, invert: invert? })
}
