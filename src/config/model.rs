//! What a valid configuration is: plain data, checked once by the reader and never again.
//!
//! Every type here can only hold values the reader has accepted, so nothing downstream validates a second time.
//! Settings compare with `==`; an update keeps the state of whatever compares equal.

use std::time::Duration;

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

/// How a string is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StringMatcher {
    /// The whole value, byte for byte.
    Exact(String),
    /// The value starts with this.
    Prefix(String),
    /// The value ends with this.
    Suffix(String),
    /// The value holds this anywhere.
    Contains(String),
    /// A regular expression, already checked, searched anywhere in the value, in linear time.
    Regex(String),
}

/// Which requests a policy or a priority level applies to: every part given must hold, an empty part always does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Match {
    /// Any of these hosts, lower case, no port: exact, or `*.example.com` for any name below it.
    pub hosts: Vec<String>,
    /// Any of these, on the path without its query.
    pub paths: Vec<PathMatcher>,
    /// Any of these methods, as written (methods are case-sensitive).
    pub methods: Vec<String>,
    /// All of these header conditions; names are lower case.
    pub headers: Vec<FieldMatcher>,
    /// All of these query parameter conditions.
    pub query: Vec<FieldMatcher>,
    /// Any of these, on the name of the route.
    pub routes: Vec<StringMatcher>,
    /// Any of these, on the name of the upstream cluster.
    pub clusters: Vec<StringMatcher>,
    /// Whether the request is gRPC (`content-type: application/grpc...`).
    pub grpc: Option<bool>,
}

/// A condition on the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatcher {
    /// A string matcher on the whole path.
    String(StringMatcher),
    /// A template such as `/v1/users/{id}/orders/**`.
    Template(Vec<TemplateSegment>),
}

/// One segment of a path template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TemplateSegment {
    /// This text exactly.
    Literal(String),
    /// `{name}`: any one non-empty segment.
    Any,
    /// A final `**`: any number of segments, also none.
    Rest,
}

/// A condition on a header or query parameter of this name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldMatcher {
    /// The header's (lower case) or parameter's name.
    pub name: String,
    /// What must hold.
    pub condition: FieldCondition,
    /// The condition must not hold; an absent field satisfies that.
    pub invert: bool,
}

/// What is asked of a header or query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FieldCondition {
    /// It is there (`true`) or is not (`false`).
    Present(bool),
    /// Its value matches any of these.
    Value(Vec<StringMatcher>),
}

/// Where one component of a key comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// The first value of this header (lower case name).
    Header(String),
    /// The first value of this query parameter.
    Query(String),
    /// The value of this cookie.
    Cookie(String),
    /// The n-th segment of the path, counted from 0.
    PathSegment(u8),
    /// A fact every request has.
    Attribute(Attribute),
    /// A property of the proxy, by path.
    Property(Vec<String>),
    /// The client's address, masked.
    ClientIp(ClientIp),
}

/// A fact of the request that needs no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// The method.
    Method,
    /// The path without its query.
    Path,
    /// The host, lower case, without its port.
    Host,
    /// The name of the route the proxy chose.
    Route,
    /// The name of the upstream cluster the proxy chose.
    Cluster,
    /// `http` or `https`.
    Scheme,
}

/// Which address stands for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientIp {
    /// 0: the connection's peer; n: the n-th `x-forwarded-for` entry from the right.
    pub trusted_hops: u8,
    /// Bits of an IPv4 address that count, 0 to 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that count, 0 to 128.
    pub ipv6_prefix: u8,
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

/// A circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CircuitBreaker {
    /// One breaker per value.
    pub key: Vec<KeySource>,
    /// Breakers tracked at once; the keys beyond share one.
    pub max_keys: u32,
    /// Over which calls the rates are taken.
    pub window: Window,
    /// Rates are not judged before so many calls.
    pub minimum_calls: u32,
    /// Trips when reached; 0 is off.
    pub failure_rate_threshold: BasisPoints,
    /// A call that takes longer to its response headers is slow.
    pub slow_call_duration: Option<Duration>,
    /// Trips when reached; 0 is off.
    pub slow_call_rate_threshold: BasisPoints,
    /// Trips at this many failures in a row; 0 is off.
    pub consecutive_failures: u32,
    /// How long the first trip lasts.
    pub open_duration: Duration,
    /// The longest a trip lasts, `Retry-After` included; at least `open_duration`.
    pub open_duration_max: Duration,
    /// How recovery is tried.
    pub half_open: HalfOpen,
    /// After closing, re-admit linearly over this time.
    pub recovery_ramp: Option<Duration>,
    /// What counts as a failure.
    pub failure_when: Outcomes,
    /// What counts neither as failure nor as success.
    pub ignore_when: Outcomes,
    /// A failure's `Retry-After` lengthens the open time.
    pub honor_retry_after: bool,
    /// Manual override.
    pub state: BreakerControl,
}

/// Over which calls a breaker's rates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// Those that ended within this time.
    Time(Duration),
    /// The last so many.
    Count(u32),
}

/// How a breaker tries whether its upstream is well again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HalfOpen {
    /// Requests admitted while half-open, over all workers.
    pub probes: u32,
    /// Probes unanswered after this time count as failures.
    pub timeout: Duration,
}

/// A class of outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Outcomes {
    /// Inclusive ranges of HTTP status.
    pub status: Vec<(u16, u16)>,
    /// gRPC status codes, 0 to 16.
    pub grpc_status: Vec<u8>,
    /// The upstream reset the stream or could not be reached.
    pub reset: bool,
    /// The upstream timed out.
    pub timeout: bool,
}

impl Outcomes {
    /// What an upstream's failures are unless a policy says otherwise.
    pub fn failures() -> Self {
        Self { status: vec![(500, 599)], grpc_status: vec![2, 4, 13, 14, 15], reset: true, timeout: true }
    }
}

/// Manual override of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BreakerControl {
    /// The breaker decides.
    #[default]
    Auto,
    /// Everything is rejected.
    ForcedOpen,
    /// Nothing is rejected, nothing is counted.
    Disabled,
}

/// Load shedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadShedding {
    /// How many requests may be in flight.
    pub limit: ConcurrencyLimit,
    /// One limit per value (a bulkhead); empty is one for all.
    pub key: Vec<KeySource>,
    /// Limits tracked at once; the keys beyond share one.
    pub max_keys: u32,
    /// Who goes first.
    pub priority: Option<Priority>,
    /// Where requests wait for a free place.
    pub queue: Option<Queue>,
    /// Success-rate throttle.
    pub throttle: Option<Throttle>,
    /// Header that says how much time a request has left.
    pub deadline_header: Option<String>,
    /// When a place becomes free.
    pub release: Release,
}

/// How many requests may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConcurrencyLimit {
    /// This many.
    Fixed(u32),
    /// Found by this algorithm within bounds.
    Dynamic {
        /// The algorithm.
        algorithm: LimitAlgorithm,
        /// The limit to start with, from `min` to `max`; 20 by default, held to them.
        initial: u32,
        /// The least it becomes, at least 1, which is the default.
        min: u32,
        /// The most it becomes; 1000 by default, or `min` if that is more.
        max: u32,
    },
}

/// How a concurrency limit is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitAlgorithm {
    /// Tidegate's own.
    Adaptive,
    /// Latency gradient against a long-term average.
    Gradient2,
    /// Estimated queue length.
    Vegas,
    /// Additive increase, multiplicative decrease.
    Aimd,
}

/// Priority levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priority {
    /// Most important first.
    pub levels: Vec<Level>,
    /// Index of the level of requests that match none.
    pub default: usize,
}

/// One priority level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Unique, `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// Who belongs to it; none: only those that match no level, if this is the default.
    pub matches: Option<Match>,
    /// Admitted only while in-flight is below this share of the limit.
    pub share: BasisPoints,
}

/// A bounded queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Queue {
    /// Requests waiting at most.
    pub max_length: u32,
    /// The longest a request waits.
    pub max_wait: Duration,
    /// Who is served first within a level.
    pub order: QueueOrder,
}

/// Who is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum QueueOrder {
    /// Newest first and short patience while the queue does not drain.
    #[default]
    AdaptiveLifo,
    /// Oldest first.
    Fifo,
    /// Newest first.
    Lifo,
}

/// Success-rate throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Throttle {
    /// Above this success rate nothing is rejected.
    pub success_threshold: BasisPoints,
    /// Over which time the rate is taken.
    pub window: Duration,
    /// The most it rejects.
    pub max_rejection: BasisPoints,
    /// Nothing is rejected before so many calls in the window.
    pub minimum_calls: u32,
}

/// When a place becomes free again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Release {
    /// When the stream ends.
    #[default]
    End,
    /// When the response headers arrive.
    Headers,
}

/// How rejections look, by reason; what is absent has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Responses {
    /// Default status 429.
    pub rate_limited: ResponseTemplate,
    /// Default status 503.
    pub circuit_open: ResponseTemplate,
    /// Default status 503.
    pub overloaded: ResponseTemplate,
    /// Default status 413, 414 or 431, by what was too large.
    pub invalid_request: ResponseTemplate,
}

/// What a rejection's response says, where it differs from the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseTemplate {
    /// Status, 400 to 599.
    pub status: Option<u16>,
    /// Further headers, names in lower case, in the order written.
    pub headers: Vec<(String, String)>,
    /// Body in place of the problem document.
    pub body: Option<String>,
    /// Content type of that body.
    pub content_type: Option<String>,
}

/// Which headers tell clients about limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResponseHeaders {
    /// `RateLimit` and `RateLimit-Policy`.
    pub ietf: bool,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`.
    pub legacy: bool,
    /// `x-tidegate-reason` on rejections.
    pub reason: bool,
}

impl Default for ResponseHeaders {
    fn default() -> Self {
        Self { ietf: true, legacy: false, reason: true }
    }
}
