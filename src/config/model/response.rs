//! What clients are told.

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
