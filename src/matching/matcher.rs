//! One match, compiled.

use super::fields::{parameter, segments};
use super::pattern::{Pattern, any_matches_decoded};
use super::{HeaderMap, Request};
use crate::config::{FieldCondition, FieldMatcher, Match, PathMatcher, TemplateSegment};

/// A compiled match. What costs least is tried first, what costs a host call last.
#[derive(Debug)]
pub struct Matcher {
    methods: Box<[Box<[u8]>]>,
    grpc: Option<bool>,
    hosts: Box<[HostPattern]>,
    paths: Box<[PathPattern]>,
    headers: Box<[Field]>,
    query: Box<[Field]>,
    routes: Box<[Pattern]>,
    clusters: Box<[Pattern]>,
}

impl Matcher {
    /// Compiles a match.
    ///
    /// # Errors
    ///
    /// What is wrong with one of its regular expressions.
    pub fn new(matches: &Match) -> Result<Self, String> {
        Ok(Self {
            methods: matches.methods.iter().map(|method| method.as_bytes().into()).collect(),
            grpc: matches.grpc,
            hosts: matches.hosts.iter().map(|host| HostPattern::new(host)).collect(),
            paths: matches.paths.iter().map(PathPattern::new).collect::<Result<_, _>>()?,
            headers: matches.headers.iter().map(Field::new).collect::<Result<_, _>>()?,
            query: matches.query.iter().map(Field::new).collect::<Result<_, _>>()?,
            routes: Pattern::all(&matches.routes)?,
            clusters: Pattern::all(&matches.clusters)?,
        })
    }

    /// Whether every part of the match holds for the request.
    #[must_use]
    pub fn matches(&self, request: &Request<'_>) -> bool {
        self.matches_message(request) && self.matches_facts(request)
    }

    /// Whether there is no condition at all.
    pub(super) fn matches_everything(&self) -> bool {
        self.methods.is_empty()
            && self.grpc.is_none()
            && self.hosts.is_empty()
            && self.paths.is_empty()
            && self.headers.is_empty()
            && self.query.is_empty()
            && self.routes.is_empty()
            && self.clusters.is_empty()
    }

    /// Whether the parts that need no host call hold.
    pub(super) fn matches_message(&self, request: &Request<'_>) -> bool {
        none_or_any(&self.methods, |method| **method == *request.method())
            && self.grpc.is_none_or(|grpc| grpc == request.is_grpc())
            && none_or_any(&self.hosts, |host| host.matches(request.host()))
            && none_or_any(&self.paths, |path| path.matches(request.path()))
            && self.headers.iter().all(|field| field.holds_for_headers(request.headers()))
            && self.query.iter().all(|field| field.holds_for_query(request.query()))
    }

    fn matches_facts(&self, request: &Request<'_>) -> bool {
        let named = |name: Option<&[u8]>, pattern: &Pattern| name.is_some_and(|name| pattern.matches(name));
        none_or_any(&self.routes, |route| named(request.route(), route))
            && none_or_any(&self.clusters, |cluster| named(request.cluster(), cluster))
    }
}

fn none_or_any<T>(items: &[T], holds: impl Fn(&T) -> bool) -> bool {
    items.is_empty() || items.iter().any(holds)
}

/// A host, or everything below one.
#[derive(Debug)]
pub(super) enum HostPattern {
    /// This host.
    Exact(Box<[u8]>),
    /// Any longer name that ends with this; it starts with a dot.
    Below(Box<[u8]>),
}

impl HostPattern {
    /// Reads a configured host: lower case, without port.
    pub(super) fn new(host: &str) -> Self {
        match host.strip_prefix('*') {
            Some(below) if below.starts_with('.') => Self::Below(below.as_bytes().into()),
            // An IPv6 address stands in brackets in a request.
            _ if host.parse::<std::net::Ipv6Addr>().is_ok() => Self::Exact(format!("[{host}]").into_bytes().into()),
            _ => Self::Exact(host.as_bytes().into()),
        }
    }

    fn matches(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => host.eq_ignore_ascii_case(exact),
            Self::Below(suffix) => match host.len().checked_sub(suffix.len()) {
                None | Some(0) => false,
                Some(start) => host.get(start..).is_some_and(|tail| tail.eq_ignore_ascii_case(suffix)),
            },
        }
    }
}

#[derive(Debug)]
enum PathPattern {
    String(Pattern),
    Template(Box<[TemplateSegment]>),
}

impl PathPattern {
    fn new(path: &PathMatcher) -> Result<Self, String> {
        Ok(match path {
            PathMatcher::String(matcher) => Self::String(Pattern::new(matcher)?),
            PathMatcher::Template(template) => Self::Template(template.as_slice().into()),
        })
    }

    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::String(pattern) => pattern.matches(path),
            Self::Template(template) => template_matches(template, path),
        }
    }
}

fn template_matches(template: &[TemplateSegment], path: &[u8]) -> bool {
    if template.is_empty() {
        return path == b"/";
    }
    let Some(mut segments) = segments(path) else { return false };
    for wanted in template {
        let fits = match wanted {
            TemplateSegment::Rest => return true,
            TemplateSegment::Literal(literal) => segments.next() == Some(literal.as_bytes()),
            TemplateSegment::Any => segments.next().is_some_and(|segment| !segment.is_empty()),
        };
        if !fits {
            return false;
        }
    }
    segments.next().is_none()
}

/// A condition on a header or query parameter.
#[derive(Debug)]
struct Field {
    name: Box<[u8]>,
    /// No patterns: its presence alone.
    patterns: Option<Box<[Pattern]>>,
    /// What finding such a field must come to.
    expected: bool,
}

impl Field {
    fn new(field: &FieldMatcher) -> Result<Self, String> {
        let (patterns, expected) = match &field.condition {
            FieldCondition::Present(present) => (None, *present),
            FieldCondition::Value(matchers) => (Some(Pattern::all(matchers)?), true),
        };
        Ok(Self { name: field.name.as_bytes().into(), patterns, expected: expected != field.invert })
    }

    fn holds_for_headers(&self, headers: HeaderMap<'_>) -> bool {
        let found = headers.all(&self.name).any(|value| match &self.patterns {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| pattern.matches(value)),
        });
        found == self.expected
    }

    fn holds_for_query(&self, query: &[u8]) -> bool {
        let found = parameter(query, &self.name).any(|value| match &self.patterns {
            None => true,
            Some(patterns) => any_matches_decoded(patterns, value),
        });
        found == self.expected
    }
}
