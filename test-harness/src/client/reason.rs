//! The `x-tidegate-reason` header of a rejection.

use std::fmt;

use hyper::HeaderMap;

/// Why a request was rejected: `rate_limited;policy=checkout;limit=per_client`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    /// `rate_limited`, `circuit_open`, ...: the decision's name in the stats.
    pub decision: String,
    /// The policy that rejected it.
    pub policy: Option<String>,
    /// The rate limit that did.
    pub limit: Option<String>,
}

impl Reason {
    /// Reads the header's value.
    pub fn parse(value: &str) -> Self {
        let mut parts = value.split(';').map(str::trim);
        let decision = parts.next().unwrap_or_default().to_owned();
        let fields: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
        let field = |name| fields.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Self { decision, policy: field("policy"), limit: field("limit") }
    }

    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get("x-tidegate-reason").and_then(|value| value.to_str().ok()).map(Self::parse)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field =
            |name: &str, value: &Option<String>| value.as_ref().map(|v| format!(";{name}={v}")).unwrap_or_default();
        write!(f, "{}{}{}", self.decision, field("policy", &self.policy), field("limit", &self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_and_written_back() {
        let text = "rate_limited;policy=checkout;limit=per_client";
        let reason = Reason::parse(text);
        assert_eq!((reason.policy.as_deref(), reason.limit.as_deref()), (Some("checkout"), Some("per_client")));
        assert_eq!(reason.to_string(), text);
        assert_eq!(Reason::parse("overloaded").to_string(), "overloaded");
    }
}
