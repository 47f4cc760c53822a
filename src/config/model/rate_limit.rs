//! Rate limits.

use std::time::Duration;

use super::KeySource;

/// So many per period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many, at least 1.
    pub count: u64,
    /// In which time: a second, a minute, an hour or a day.
    pub period: Duration,
}

/// One rate limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// Unique within the policy, `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// The rate and the burst of keys without an override.
    pub quota: Quota,
    /// How the rate is measured.
    pub algorithm: RateAlgorithm,
    /// What tells clients apart; empty is one budget for all.
    pub key: Vec<KeySource>,
    /// What to do when a key source is absent.
    pub on_missing_key: OnMissingKey,
    /// Other quotas for some keys; the first that matches wins.
    pub overrides: Vec<Override>,
    /// What a request costs.
    pub cost: Cost,
    /// Response header whose number is charged when the response arrives.
    pub charge_response: Option<String>,
    /// Delay instead of rejecting, at most this long.
    pub pace: Option<Duration>,
    /// Who shares the budget.
    pub scope: Scope,
    /// Keys tracked at once.
    pub max_keys: u32,
}

/// A rate and how much of it may be used at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// The rate.
    pub rate: Rate,
    /// Capacity of the bucket, at least 1. Windows do not use it.
    pub burst: u64,
}

/// How a rate is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RateAlgorithm {
    /// Continuous refill up to `burst`.
    #[default]
    TokenBucket,
    /// Two windows, interpolated.
    SlidingWindow,
    /// One window, aligned to the period.
    FixedWindow,
}

/// What a rate limit does when a key source is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnMissingKey {
    /// The limit does not apply.
    #[default]
    Skip,
    /// All such requests share one bucket.
    Share,
    /// The request is rejected.
    Reject,
}

/// Another quota for one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Override {
    /// The values of the limit's key sources, in order.
    pub key: Vec<String>,
    /// The quota, or none: unlimited.
    pub quota: Option<Quota>,
}

/// What a request costs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cost {
    /// Always this many, at least 1.
    Fixed(u64),
    /// What the header says, held to 1 ..= max; `default` when it is absent or not a number.
    Header {
        /// The header's name, lower case.
        name: String,
        /// The cost without it.
        default: u64,
        /// The most it can ask for.
        max: u64,
    },
}

/// Who shares a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    /// All workers of the proxy.
    #[default]
    Proxy,
    /// Each worker has its own.
    Worker,
}
