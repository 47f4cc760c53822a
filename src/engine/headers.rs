//! The headers that tell clients about rate limits.
//!
//! `RateLimit-Policy` and `RateLimit` are structured fields (RFC 9651) as draft-ietf-httpapi-ratelimit-headers has them:
//! lists of strings, the limit's name as the item, `q` and `w` the quota and its window in seconds, `r` the whole
//! requests left, `t` the seconds until `r` grows. The legacy trio speaks of the limit with the least left.

use std::fmt::Write;

use crate::config::ResponseHeaders;
use crate::control::Nanos;

/// The largest integer a structured field may hold (RFC 9651, section 3.3.1).
const LARGEST_INTEGER: u64 = 999_999_999_999_999;

/// What clients are told of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateView<'a> {
    /// The limit's name: letters, digits, `_` and `-`, so it needs no quoting rules beyond the quotes.
    pub name: &'a str,
    /// Requests per period.
    pub count: u64,
    /// The period in seconds.
    pub period_seconds: u64,
    /// Whole requests left.
    pub remaining: u64,
    /// How long until more is left; `None` when nothing is used.
    pub grows_in: Option<Nanos>,
}

/// Nanoseconds as whole seconds, rounded up, so that nobody is told to come back too early.
pub fn seconds_up(nanos: Nanos) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

/// Calls `add(name, value)` for each header these limits call for. `text` is where values are written, for its memory.
pub fn rate_limit_headers<'v>(
    wanted: ResponseHeaders,
    limits: impl Iterator<Item = RateView<'v>> + Clone,
    text: &mut String,
    add: &mut dyn FnMut(&str, &str),
) {
    let Some(tightest) = limits.clone().min_by_key(|limit| limit.remaining) else { return };
    if wanted.ietf {
        text.clear();
        for limit in limits.clone() {
            item(text, limit.name);
            number(text, ";q=", limit.count.min(LARGEST_INTEGER));
            number(text, ";w=", limit.period_seconds);
        }
        add("ratelimit-policy", text);
        text.clear();
        for limit in limits {
            item(text, limit.name);
            number(text, ";r=", limit.remaining.min(LARGEST_INTEGER));
            if let Some(grows_in) = limit.grows_in {
                number(text, ";t=", seconds_up(grows_in));
            }
        }
        add("ratelimit", text);
    }
    if wanted.legacy {
        let values = [
            ("x-ratelimit-limit", tightest.count),
            ("x-ratelimit-remaining", tightest.remaining),
            ("x-ratelimit-reset", tightest.grows_in.map_or(0, seconds_up)),
        ];
        for (name, value) in values {
            text.clear();
            number(text, "", value);
            add(name, text);
        }
    }
}

/// Appends a list's next item.
fn item(text: &mut String, name: &str) {
    text.push_str(if text.is_empty() { "\"" } else { ", \"" });
    text.push_str(name);
    text.push('"');
}

/// Appends a number after its label.
fn number(text: &mut String, label: &str, value: u64) {
    text.push_str(label);
    // Writing to a String cannot fail.
    let _ = write!(text, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(wanted: ResponseHeaders, limits: &[RateView<'_>]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut add = |name: &str, value: &str| lines.push(format!("{name}: {value}"));
        rate_limit_headers(wanted, limits.iter().copied(), &mut String::new(), &mut add);
        lines
    }

    const BURST: RateView<'_> =
        RateView { name: "burst", count: 100, period_seconds: 60, remaining: 50, grows_in: Some(29_000_000_001) };
    const DAILY: RateView<'_> =
        RateView { name: "daily", count: 1000, period_seconds: 86_400, remaining: 7, grows_in: None };
    const IETF: ResponseHeaders = ResponseHeaders { ietf: true, legacy: false, reason: true };

    #[test]
    fn ietf_headers_list_every_limit_with_seconds_rounded_up() {
        assert_eq!(
            written(IETF, &[BURST, DAILY]),
            [
                r#"ratelimit-policy: "burst";q=100;w=60, "daily";q=1000;w=86400"#,
                r#"ratelimit: "burst";r=50;t=30, "daily";r=7"#,
            ]
        );
    }

    #[test]
    fn legacy_headers_speak_of_the_limit_with_the_least_left() {
        let legacy = ResponseHeaders { ietf: false, legacy: true, reason: true };
        assert_eq!(
            written(legacy, &[BURST, DAILY]),
            ["x-ratelimit-limit: 1000", "x-ratelimit-remaining: 7", "x-ratelimit-reset: 0"]
        );
    }

    #[test]
    fn nothing_is_written_when_nothing_is_wanted_or_nothing_limits() {
        assert!(written(IETF, &[]).is_empty());
        assert!(written(ResponseHeaders { ietf: false, legacy: false, reason: true }, &[BURST]).is_empty());
    }

    #[test]
    fn integers_stay_within_what_a_structured_field_may_hold() {
        let huge = RateView { count: u64::MAX, remaining: u64::MAX, ..DAILY };
        assert!(written(IETF, &[huge]).iter().all(|line| line.contains("999999999999999") && !line.contains("18446")));
    }
}
