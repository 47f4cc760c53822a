//! Which policies apply to a request, and which key it counts under.
//!
//! A [`Request`] is the host's own header bytes seen as borrowed slices: one pass finds what nearly every policy asks
//! for, and what costs a host call (route, cluster, peer) is asked for when first needed and then kept. A [`Matcher`]
//! is one compiled match, an [`Index`] finds all matching policies without trying each, and a [`KeyExtractor`] writes
//! a request's key into a reused [`KeyBuf`]. Nothing here allocates per request once buffers have grown to their
//! working size and each regular expression has run once.
//!
//! # How values are read
//!
//! Values are bytes and need not be UTF-8. What the configuration leaves open is settled so:
//!
//! - *Repeated fields*: a condition holds if any value of a repeated header or query parameter satisfies it; a key
//!   takes the first. A value the proxy itself has joined with commas is one value.
//! - *Host*: the authority without its port and without the root's trailing dot, so that `example.com.` is no way
//!   around a policy for `example.com`; ASCII case is ignored. `[::1]` keeps its brackets, a configured `::1` gets them.
//!   `*.example.com` is any name below `example.com`, not that name itself.
//! - *Path*: what precedes the first `?`, as received: nothing is decoded or normalised (the proxy can do both before
//!   any filter runs), `;parameters` stay.
//! - *Segments*: what lies between slashes after the leading one, so `/a//b` has three, the second empty, and `/a/` has
//!   two. `{id}` takes any one segment that is not empty; a final `**` takes any number, so `/v1/**` holds for `/v1`,
//!   `/v1/` and `/v1/a/b` but not for `/v1x`. A path without leading slash has no segments and fits no template.
//! - *Query*: pairs split at `&`, names and values percent-decoded with `+` as a space; a malformed `%` stands for
//!   itself. `a` and `a=` are present and empty.
//! - *Cookies*: names compare as written, the value loses surrounding blanks and one pair of double quotes.
//! - *gRPC*: `application/grpc`, alone or followed by `+`, `;` or a blank; `application/grpc-web` is not.
//! - *Absent*: an empty route or cluster name, an empty path segment, and an empty method, path, host or scheme are
//!   absent. An empty header, parameter or cookie is there, and empty.

mod address;
mod fields;
mod headers;
mod index;
mod key;
mod label;
mod matcher;
mod pattern;
mod place;
mod request;

pub use headers::HeaderMap;
pub use index::Index;
pub use key::{KeyBuf, KeyExtractor};
pub use matcher::Matcher;
pub use pattern::{Regex, compile_regex};
pub use request::{Facts, Request};
