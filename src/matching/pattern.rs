//! String matchers, compiled.
//!
//! # Choice of engine
//!
//! Both `regex-lite` and `regex` (without its default features, over bytes, ASCII classes) run in linear time.
//! Growth of a release `wasm32-wasip1` module, and time to match natively:
//!
//! | engine | module | `^/api/v[0-9]+/users/[0-9]+$` hit / miss | UUID | `\.(png\|jpe?g\|css\|js)$` | 1 KiB path |
//! |---|---|---|---|---|---|
//! | regex-lite 0.1.9 | +69 kB | 775 / 104 ns | 1266 ns | 644 ns | 37.5 us |
//! | regex 1.13.1, `std` alone | +377 kB | 541 / 84 ns | 804 ns | 709 ns | 23.3 us |
//! | with one-pass and backtracking engines | +413 kB | 113 / 40 ns | 178 ns | 258 ns | 2.4 us |
//! | with lazy DFAs as well | +525 kB | 55 / 23 ns | 81 ns | 34 ns | 1.7 us |
//!
//! `regex-lite` it is: the module is loaded and compiled by every proxy, an expression is run by few policies and only
//! on requests that got past the rest of their match, where it costs about as much as one or two host calls. Lazy DFAs
//! would besides keep a cache of up to megabytes for each expression and worker. Its price is paid on long values, and
//! by whoever writes an expression where a prefix, a suffix or a template would do.
//!
//! Classes such as `\w` and `\d`, and case folding, are ASCII's. `.` is any character but a line feed.

use std::cell::RefCell;

use super::fields::{Decoded, is_plain};
use crate::config::StringMatcher;

/// The most memory one compiled expression may take, in bytes. The time for each byte of a value grows with it: the
/// worst expression found just below the limit takes 8 us a byte natively, a usual one 30 to 40 ns.
const REGEX_SIZE_LIMIT: usize = 32 << 10;

/// A regular expression that runs in linear time.
#[derive(Debug, Clone)]
pub struct Regex(regex_lite::Regex);

impl Regex {
    /// Whether it is found anywhere in the value. It is never found in a value that is not UTF-8.
    #[must_use]
    pub fn is_match(&self, value: &[u8]) -> bool {
        std::str::from_utf8(value).is_ok_and(|text| self.0.is_match(text))
    }
}

/// Compiles an expression.
///
/// # Errors
///
/// What is wrong with it, or that it is too large.
pub fn compile_regex(expression: &str) -> Result<Regex, String> {
    regex_lite::RegexBuilder::new(expression)
        .size_limit(REGEX_SIZE_LIMIT)
        .build()
        .map(Regex)
        .map_err(|error| error.to_string())
}

/// A string matcher, ready to run.
#[derive(Debug)]
pub(super) enum Pattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    Regex(Regex),
}

impl Pattern {
    pub(super) fn new(matcher: &StringMatcher) -> Result<Self, String> {
        let bytes = |s: &str| s.as_bytes().into();
        Ok(match matcher {
            StringMatcher::Exact(s) => Self::Exact(bytes(s)),
            StringMatcher::Prefix(s) => Self::Prefix(bytes(s)),
            StringMatcher::Suffix(s) => Self::Suffix(bytes(s)),
            StringMatcher::Contains(s) => Self::Contains(bytes(s)),
            StringMatcher::Regex(s) => Self::Regex(compile_regex(s)?),
        })
    }

    pub(super) fn all(matchers: &[StringMatcher]) -> Result<Box<[Self]>, String> {
        matchers.iter().map(Self::new).collect()
    }

    pub(super) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(s) => value == &**s,
            Self::Prefix(s) => value.starts_with(s),
            Self::Suffix(s) => value.ends_with(s),
            Self::Contains(s) => s.is_empty() || value.windows(s.len()).any(|window| window == &**s),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

thread_local! {
    /// Where an encoded value is decoded to be matched: not every pattern can read it byte by byte. It grows to the
    /// longest such value seen, which the proxy's limit on headers bounds.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whether any of the patterns matches the percent-decoded value.
pub(super) fn any_matches_decoded(patterns: &[Pattern], encoded: &[u8]) -> bool {
    if is_plain(encoded) {
        return patterns.iter().any(|pattern| pattern.matches(encoded));
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        scratch.extend(Decoded(encoded));
        patterns.iter().any(|pattern| pattern.matches(scratch))
    })
}
