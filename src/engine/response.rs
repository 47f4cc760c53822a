//! A rejection as the client sees it: status, headers, body.
//!
//! The default body is a problem document (RFC 9457) with the types the IETF `RateLimit` draft registers. gRPC requests
//! get a trailers-only reply: `RESOURCE_EXHAUSTED` for rate limits, `UNAVAILABLE` for the rest; the proxy makes one of
//! the local reply and puts the body into `grpc-message`.

use std::fmt::Write;

use crate::config::{ResponseHeaders, ResponseTemplate};

use super::compile::Policy;
use super::headers::{Lines, RateView, rate_limit_headers, seconds_up};
use super::rejection::{Invalid, Reason, Rejection};

const RESOURCE_EXHAUSTED: u8 = 8;
const UNAVAILABLE: u8 = 14;

/// What the proxy is to answer in the upstream's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body; for gRPC the message.
    pub body: String,
    /// gRPC status, for gRPC requests.
    pub grpc_status: Option<u8>,
    /// The decision, for `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
}

/// The reply to a rejected request. `rates` is the state of the limits that were asked, where one of them rejected it.
pub fn local_reply(
    policy: &Policy,
    rejection: &Rejection,
    rates: &[(ResponseHeaders, RateView<'_>)],
    grpc: bool,
) -> LocalReply {
    let (template, status) = match rejection.reason {
        Reason::RateLimited => (&policy.responses.rate_limited, 429),
        Reason::CircuitOpen(_) => (&policy.responses.circuit_open, 503),
        Reason::Overloaded | Reason::QueueTimeout | Reason::Displaced | Reason::PastDeadline | Reason::Throttled => {
            (&policy.responses.overloaded, 503)
        }
        Reason::Invalid(Invalid::Path) => (&policy.responses.invalid_request, 414),
        Reason::Invalid(Invalid::Headers) => (&policy.responses.invalid_request, 431),
        Reason::Invalid(Invalid::Body) => (&policy.responses.invalid_request, 413),
    };
    let status = template.status.unwrap_or(status);
    let limit = limit_name(policy, rejection);
    let mut headers = Vec::new();
    if let Some(wait) = rejection.wait {
        headers.push(("retry-after".to_owned(), seconds_up(wait).to_string()));
    }
    if policy.headers.reason {
        headers.push(("x-tidegate-reason".to_owned(), reason_line(policy, rejection)));
    }
    let mut tell = |name: &str, value: &str, _| headers.push((name.to_owned(), value.to_owned()));
    rate_limit_headers(rates.iter().copied(), &mut Lines::default(), &mut tell);
    let (content_type, body) = match &template.body {
        _ if grpc => (None, grpc_message(policy, rejection, limit)),
        Some(body) => (template.content_type.clone().or_else(|| Some("text/plain".to_owned())), body.clone()),
        None => (Some("application/problem+json".to_owned()), problem(policy, rejection, limit, status)),
    };
    headers.extend(content_type.map(|value| ("content-type".to_owned(), value)));
    add_configured(&mut headers, template);
    LocalReply {
        status,
        headers,
        body,
        grpc_status: grpc.then_some(match rejection.reason {
            Reason::RateLimited => RESOURCE_EXHAUSTED,
            _ => UNAVAILABLE,
        }),
        details: match rejection.reason {
            Reason::RateLimited => "tidegate_rate_limited",
            Reason::CircuitOpen(_) => "tidegate_circuit_open",
            Reason::Overloaded | Reason::Displaced | Reason::PastDeadline | Reason::Throttled => "tidegate_overloaded",
            Reason::QueueTimeout => "tidegate_queue_timeout",
            Reason::Invalid(_) => "tidegate_invalid_request",
        },
    }
}

/// Configured headers replace ours of the same name.
fn add_configured(headers: &mut Vec<(String, String)>, template: &ResponseTemplate) {
    headers.retain(|(name, _)| !template.headers.iter().any(|(configured, _)| configured == name));
    headers.extend(template.headers.iter().cloned());
}

/// `rate_limited;policy=checkout;limit=per_client`: what the reason header and access logs say.
pub fn reason_line(policy: &Policy, rejection: &Rejection) -> String {
    let mut line = format!("{};policy={}", rejection.reason.label(), policy.name);
    if let Some(limit) = limit_name(policy, rejection) {
        line.push_str(";limit=");
        line.push_str(limit);
    }
    let more = match rejection.reason {
        Reason::CircuitOpen(trip) => [";trip=", trip],
        Reason::Displaced => [";cause=", "displaced"],
        Reason::PastDeadline => [";cause=", "deadline"],
        Reason::Throttled => [";cause=", "throttle"],
        _ => return line,
    };
    line.push_str(&more.concat());
    line
}

/// The rate limit that rejected, if one did.
fn limit_name<'p>(policy: &'p Policy, rejection: &Rejection) -> Option<&'p str> {
    rejection.limit.and_then(|limit| policy.rates.get(limit)).map(|rate| rate.name.as_str())
}

fn title(reason: Reason) -> &'static str {
    match reason {
        Reason::RateLimited => "Rate limit exceeded",
        Reason::CircuitOpen(_) => "Upstream is failing, circuit open",
        Reason::Overloaded | Reason::Displaced => "Service overloaded",
        Reason::QueueTimeout => "Service overloaded, waited too long",
        Reason::PastDeadline => "Service overloaded, cannot answer in the time left",
        Reason::Throttled => "Upstream is failing, only a part of the requests is let through",
        Reason::Invalid(Invalid::Path) => "Path too long",
        Reason::Invalid(Invalid::Headers) => "Request headers too large",
        Reason::Invalid(Invalid::Body) => "Request body too large",
    }
}

fn grpc_message(policy: &Policy, rejection: &Rejection, limit: Option<&str>) -> String {
    let mut text = format!("{} (policy {}", title(rejection.reason), policy.name);
    if let Some(limit) = limit {
        text.push_str(", limit ");
        text.push_str(limit);
    }
    text.push(')');
    text
}

/// The problem document. Every string in it is one of ours or a checked name: none needs escaping.
fn problem(policy: &Policy, rejection: &Rejection, limit: Option<&str>, status: u16) -> String {
    let kind = match rejection.reason {
        Reason::RateLimited => "https://iana.org/assignments/http-problem-types#quota-exceeded",
        Reason::CircuitOpen(_)
        | Reason::Overloaded
        | Reason::QueueTimeout
        | Reason::Displaced
        | Reason::PastDeadline
        | Reason::Throttled => "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        Reason::Invalid(_) => "about:blank",
    };
    let mut body = format!(
        r#"{{"type":"{kind}","title":"{}","status":{status},"policy":"{}""#,
        title(rejection.reason),
        policy.name
    );
    if let Some(limit) = limit {
        // Writing to a String cannot fail.
        let _ = write!(body, r#","violated-policies":["{limit}"]"#);
    }
    if let Some(wait) = rejection.wait {
        let _ = write!(body, r#","retry-after":{}"#, seconds_up(wait));
    }
    body.push('}');
    body
}
