//! Keys: what a request counts under.
//!
//! A key is its components in order, each preceded by its length, so that no two lists of components share an
//! encoding. Addresses are kept as their canonical text: what a user writes in an override is what is compared.
//!
//! # Labels
//!
//! In the name of a stat a key is its components joined by `|`. Whatever is not printable ASCII, or means something to
//! those who read stat names (`|` `%` `~` quotes, backslash, and a dot at the start or the end of a component, since
//! proxies trim dots), becomes `%XX`. What would be longer than 64 bytes is
//! cut and ends in `~` and sixteen hexadecimal digits that depend on the whole key, so that distinct keys stay tellable.

use super::fields::{Decoded, cookie, parameter, segments};
use super::{Request, address, label};
use crate::config::{Attribute, ClientIp, KeySource};
use std::fmt;

/// Extracts the key of a request.
#[derive(Debug)]
pub struct KeyExtractor {
    sources: Box<[Source]>,
}

#[derive(Debug)]
enum Source {
    Header(Box<[u8]>),
    Query(Box<[u8]>),
    Cookie(Box<[u8]>),
    PathSegment(u8),
    Attribute(Attribute),
    /// Parts joined by zero bytes.
    Property(Box<[u8]>),
    ClientIp(ClientIp),
}

impl KeyExtractor {
    /// Prepares the sources.
    #[must_use]
    pub fn new(sources: &[KeySource]) -> Self {
        let bytes = |name: &str| name.as_bytes().into();
        let sources = sources.iter().map(|source| match source {
            KeySource::Header(name) => Source::Header(bytes(name)),
            KeySource::Query(name) => Source::Query(bytes(name)),
            KeySource::Cookie(name) => Source::Cookie(bytes(name)),
            KeySource::PathSegment(position) => Source::PathSegment(*position),
            KeySource::Attribute(attribute) => Source::Attribute(*attribute),
            KeySource::Property(path) => Source::Property(bytes(&path.join("\0"))),
            KeySource::ClientIp(client_ip) => Source::ClientIp(*client_ip),
        });
        Self { sources: sources.collect() }
    }

    /// Whether there are no sources: every request then has the same, empty key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Writes the request's key, replacing what was there. Returns `false`, and leaves an empty key, when a source is
    /// absent.
    #[must_use]
    pub fn extract(&self, request: &Request<'_>, into: &mut KeyBuf) -> bool {
        into.clear();
        let complete = self.sources.iter().all(|source| source.write(request, into).is_some());
        if !complete {
            into.clear();
        }
        complete
    }
}

impl Source {
    /// Appends one component; `None` when it is absent.
    fn write(&self, request: &Request<'_>, into: &mut KeyBuf) -> Option<()> {
        match self {
            Self::Header(name) => into.push_bytes(request.headers().get(name)?),
            Self::Query(name) => into.push(Decoded(parameter(request.query(), name).next()?)),
            Self::Cookie(name) => {
                let value = request.headers().all(b"cookie").find_map(|header| cookie(header, name))?;
                into.push_bytes(value)
            }
            Self::PathSegment(position) => {
                let segment = segments(request.path())?.nth(usize::from(*position))?;
                into.push_bytes(not_empty(segment)?)
            }
            Self::Attribute(attribute) => {
                let value = match attribute {
                    Attribute::Method => request.method(),
                    Attribute::Path => request.path(),
                    Attribute::Host => return into.push(not_empty(request.host())?.iter().map(u8::to_ascii_lowercase)),
                    Attribute::Route => request.route()?,
                    Attribute::Cluster => request.cluster()?,
                    Attribute::Scheme => request.scheme(),
                };
                into.push_bytes(not_empty(value)?)
            }
            Self::Property(path) => into.push_bytes(request.property(path)?),
            Self::ClientIp(source) => {
                let address = address::client(request, *source)?;
                into.component(|bytes| address::write(address, bytes))
            }
        }
    }
}

fn not_empty(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

/// Width of a component's length in the encoding.
const LENGTH: usize = size_of::<u32>();

/// A key, in a buffer that is used again and again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyBuf {
    bytes: Vec<u8>,
}

/// As its [`label`](KeyBuf::label).
impl fmt::Display for KeyBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

impl Default for KeyBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyBuf {
    /// An empty key with room for most.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(256) }
    }

    /// The key of these components.
    #[must_use]
    pub fn of(components: &[impl AsRef<[u8]>]) -> Self {
        let mut key = Self { bytes: Vec::new() };
        // A component is as long as a configuration at most, so each is written.
        components.iter().for_each(|component| _ = key.push_bytes(component.as_ref()));
        key
    }

    /// Makes the key empty again.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Makes the key this one, in the memory it has.
    pub fn copy_from(&mut self, other: &Self) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&other.bytes);
    }

    /// The encoded key: equal exactly when all components are.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The components, in the order of the sources.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<LENGTH>()?;
            let (part, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            rest = after;
            Some(part)
        })
    }

    /// The key as part of a stat's name: see the module's section on labels. Allocates: it is meant for the moment a key
    /// gets its stats, not for each request.
    #[must_use]
    pub fn label(&self) -> String {
        label::of(self)
    }

    fn push_bytes(&mut self, component: &[u8]) -> Option<()> {
        self.component(|bytes| bytes.extend_from_slice(component))
    }

    fn push(&mut self, component: impl Iterator<Item = u8>) -> Option<()> {
        self.component(|bytes| bytes.extend(component))
    }

    /// Appends what `write` appends, with its length in front. Returns `None` beyond 4 GiB, which no header reaches.
    fn component(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Option<()> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; LENGTH]);
        write(&mut self.bytes);
        let place = self.bytes.get_mut(start..)?;
        let length = u32::try_from(place.len().checked_sub(LENGTH)?).ok()?;
        place.get_mut(..LENGTH)?.copy_from_slice(&length.to_le_bytes());
        Some(())
    }
}
