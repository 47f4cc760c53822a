//! What a valid configuration is: plain data, checked once by the reader and never again.
//!
//! Every type here can only hold values the reader has accepted, so nothing downstream validates a second time.
//! Settings compare with `==`; an update keeps the state of whatever compares equal.

mod circuit_breaker;
mod load_shedding;
mod matches;
mod rate_limit;
mod response;

pub use self::circuit_breaker::*;
pub use self::load_shedding::*;
pub use self::matches::*;
pub use self::rate_limit::*;
pub use self::response::*;

/// A whole configuration, version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The mode of every policy that does not narrow it.
    pub mode: Mode,
    /// The policies, in the order written. All that match a request apply to it.
    pub policies: Vec<Policy>,
}

/// Whether a decision is carried out. Ordered: the larger of two modes wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// Rejections are carried out.
    #[default]
    Enforce,
    /// Decisions are made and counted, nothing is rejected.
    Shadow,
    /// The policy does nothing at all.
    Off,
}

/// A share in hundredths of a percent, 0 to 10 000, so that thresholds compare exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BasisPoints(pub u16);

impl BasisPoints {
    /// 100 percent.
    pub const ALL: Self = Self(10_000);
}

/// One policy: a match and its controls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Unique, `[a-z0-9_-]{1,64}`; it names stats and headers.
    pub name: String,
    /// The stricter of the configuration's mode and the policy's own: off beats shadow beats enforce.
    pub mode: Mode,
    /// The share of would-be rejections that is enforced; the rest count as shadow.
    pub enforce: BasisPoints,
    /// Which requests the policy applies to. The default matches all.
    pub matches: Match,
    /// Bounds on the request itself.
    pub request_limits: Option<RequestLimits>,
    /// Circuit breaker.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Rate limits; all of them must conform.
    pub rate_limits: Vec<RateLimit>,
    /// Concurrency limit, queue, priorities and throttle.
    pub load_shedding: Option<LoadShedding>,
    /// How rejections look, where the defaults do not do.
    pub responses: Responses,
    /// Which headers tell clients about limits.
    pub headers: ResponseHeaders,
}

/// Bounds on the request itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestLimits {
    /// Bytes of body (413).
    pub max_body_bytes: Option<u64>,
    /// Number of headers, pseudo-headers not counted (431).
    pub max_headers: Option<u32>,
    /// Bytes of all header names and values, pseudo-headers not counted (431).
    pub max_header_bytes: Option<u32>,
    /// Bytes of path with query (414).
    pub max_path_bytes: Option<u32>,
}
