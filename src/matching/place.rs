//! Where the index puts a policy: the hash of something a matching request must show.
//!
//! # Hash
//!
//! FNV-1a, finished with a multiply-and-shift mix, is a byte at a time, which is what lets one pass serve all prefixes.
//! It is not keyed against collisions and need not be: the table holds configured strings alone, a request only looks
//! up, and a collision, accidental or crafted, costs the client's own request one more comparison. A keyed hash would
//! buy nothing for several times the cost on keys this short.

use std::hash::Hasher;

use super::matcher::HostPattern;
use crate::config::{FieldCondition, FieldMatcher, Match, PathMatcher, StringMatcher, TemplateSegment};

/// A host call is worth about this many candidates tried in vain.
pub(super) const HOST_CALL: usize = 16;

/// That a header is there says less than what it holds: the name alone is worth this many candidates less.
const NAME_ONLY: usize = 8;

/// Where a policy may be placed.
pub(super) struct Place {
    pub(super) kind: Kind,
    pub(super) hash: u64,
    /// Bytes of the host, path or name.
    pub(super) length: usize,
    /// Where the name alone lies, when the place is a name with its value.
    pub(super) name: Option<u64>,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Host,
    HostBelow,
    Path,
    PathPrefix,
    HeaderName,
    HeaderValue,
    QueryName,
    QueryValue,
    Route,
    Cluster,
}

impl Kind {
    pub(super) fn handicap(self) -> usize {
        match self {
            Self::HeaderName | Self::QueryName => NAME_ONLY,
            Self::Route | Self::Cluster => HOST_CALL,
            _ => 0,
        }
    }
}

/// Everything a policy could be placed by: each option is a set of places of which a matching request shows at least
/// one. Of equal ones the first is taken.
pub(super) fn options(matches: &Match) -> Vec<Vec<Place>> {
    let mut options = Vec::new();
    options.extend(places(&matches.paths, path_place));
    options.extend(places(&matches.hosts, |host| Some(host_place(&HostPattern::new(host)))));
    options.extend(matches.headers.iter().filter_map(|f| field_places(f, Kind::HeaderName, Kind::HeaderValue)));
    options.extend(matches.query.iter().filter_map(|f| field_places(f, Kind::QueryName, Kind::QueryValue)));
    options.extend(places(&matches.routes, |route| exact_place(route, Kind::Route)));
    options.extend(places(&matches.clusters, |cluster| exact_place(cluster, Kind::Cluster)));
    options
}

/// One place for each alternative; `None` when there are none, or one has no place.
fn places<T>(alternatives: &[T], place: impl Fn(&T) -> Option<Place>) -> Option<Vec<Place>> {
    alternatives.iter().map(place).collect::<Option<Vec<_>>>().filter(|places| !places.is_empty())
}

fn text_place(text: &[u8], kind: Kind) -> Place {
    Place { kind, hash: Fnv::default().bytes(text).finish(kind), length: text.len(), name: None }
}

fn exact_place(matcher: &StringMatcher, kind: Kind) -> Option<Place> {
    match matcher {
        StringMatcher::Exact(text) => Some(text_place(text.as_bytes(), kind)),
        _ => None,
    }
}

fn host_place(host: &HostPattern) -> Place {
    let (text, kind) = match host {
        HostPattern::Exact(text) => (text, Kind::Host),
        HostPattern::Below(text) => (text, Kind::HostBelow),
    };
    let reversed = text.iter().rev().map(u8::to_ascii_lowercase);
    Place { kind, hash: reversed.fold(Fnv::default(), Fnv::byte).finish(kind), length: text.len(), name: None }
}

fn path_place(path: &PathMatcher) -> Option<Place> {
    match path {
        PathMatcher::String(StringMatcher::Prefix(prefix)) => prefix_place(prefix),
        PathMatcher::String(matcher) => exact_place(matcher, Kind::Path),
        PathMatcher::Template(template) => template_place(template),
    }
}

/// What nearly every path starts with is no place.
fn prefix_place(prefix: &str) -> Option<Place> {
    (prefix.len() > 1).then(|| text_place(prefix.as_bytes(), Kind::PathPrefix))
}

fn template_place(template: &[TemplateSegment]) -> Option<Place> {
    let mut head = String::new();
    for segment in template {
        match segment {
            TemplateSegment::Literal(literal) => {
                head.push('/');
                head.push_str(literal);
            }
            TemplateSegment::Any => {
                head.push('/');
                return prefix_place(&head);
            }
            // Also none: the head need not be followed by a slash.
            TemplateSegment::Rest => return prefix_place(&head),
        }
    }
    let whole = if head.is_empty() { "/" } else { &head };
    Some(text_place(whole.as_bytes(), Kind::Path))
}

fn field_places(field: &FieldMatcher, by_name: Kind, by_value: Kind) -> Option<Vec<Place>> {
    let name = field.name.as_bytes();
    let by_name = text_place(name, by_name);
    match (&field.condition, field.invert) {
        (FieldCondition::Present(present), invert) if *present != invert => Some(vec![by_name]),
        (FieldCondition::Value(values), false) => {
            let exact = places(values, |value| match value {
                StringMatcher::Exact(text) => Some(Place {
                    kind: by_value,
                    hash: Fnv::default().bytes(name).value(text.bytes()).finish(by_value),
                    length: name.len(),
                    name: Some(by_name.hash),
                }),
                _ => None,
            });
            Some(exact.unwrap_or_else(|| vec![by_name]))
        }
        _ => None,
    }
}

/// A running FNV-1a hash.
#[derive(Clone, Copy)]
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(super) fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        bytes.iter().copied().fold(self, Self::byte)
    }

    /// Goes on from a name to its value.
    pub(super) fn value(self, value: impl Iterator<Item = u8>) -> Self {
        value.fold(self.byte(0), Self::byte)
    }

    /// The hash of a place of this kind.
    pub(super) fn finish(self, kind: Kind) -> u64 {
        self.byte(kind as u8).mixed()
    }

    /// Spreads the last bytes over all bits, as a hash table needs.
    pub(super) fn mixed(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    }
}

/// Passes hashes through: the table's keys are hashes already.
#[derive(Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = Fnv::default().bytes(bytes).0;
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The bit of a set of lengths that stands for this one.
pub(super) fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}
