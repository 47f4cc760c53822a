//! Which requests a policy applies to, and what tells them apart.

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
