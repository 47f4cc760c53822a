//! The headers that tell clients about rate limits.
//!
//! `RateLimit-Policy` and `RateLimit` are structured fields (RFC 9651) as draft-ietf-httpapi-ratelimit-headers has them:
//! lists of strings, the limit's name as the item, `q` and `w` the quota and its window in seconds, `r` the whole
//! requests left, `t` the seconds until `r` grows. The legacy trio speaks of the limit with the least left.
//!
//! A response says each of this once, over the limits of all policies that apply; each policy has its own say on which.
//! What an upstream says of its own limits stays in the structured fields, which are lists. In the trio, where there is room
//! for one limit, ours takes its place: two values of a number are none.

use std::cmp::Reverse;

use crate::config::ResponseHeaders;
use crate::control::Nanos;

/// The largest integer a structured field may hold (RFC 9651, section 3.3.1).
const LARGEST_INTEGER: u64 = 999_999_999_999_999;

/// What clients are told of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateView<'a> {
    /// The limit's name: letters, digits, `_` and `-`, so it needs no quoting rules beyond the quotes.
    pub name: &'a str,
    /// The limit and its quota, as [`policy_item`] has them: written once, since requests do not change them.
    pub policy: &'a str,
    /// Requests per period.
    pub count: u64,
    /// Whole requests left.
    pub remaining: u64,
    /// How long until more is left; `None` when nothing is used.
    pub grows_in: Option<Nanos>,
}

/// What becomes of headers of the same name that the response has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// They stay: it is a list.
    Beside,
    /// They go.
    Instead,
}

/// Nanoseconds as whole seconds, rounded up, so that nobody is told to come back too early.
pub fn seconds_up(nanos: Nanos) -> u64 {
    const SECOND: u32 = 1_000_000_000;
    // To divide 64 bits by what is known beforehand is a call in WebAssembly, and times are short as a rule.
    u32::try_from(nanos).map_or_else(|_| nanos.div_ceil(u64::from(SECOND)), |nanos| u64::from(nanos.div_ceil(SECOND)))
}

/// A limit as `RateLimit-Policy` lists it: so many requests per period, which is in seconds.
pub fn policy_item(name: &str, count: u64, period_seconds: u64) -> String {
    format!("\"{name}\";q={};w={period_seconds}", count.min(LARGEST_INTEGER))
}

/// Where the values of headers are written, for its memory.
#[derive(Debug, Default)]
pub struct Lines {
    policies: String,
    left: String,
}

/// Calls `tell(name, value, how)` for each header these limits call for, each with what its policy wants told.
pub fn rate_limit_headers<'v>(
    limits: impl Iterator<Item = (ResponseHeaders, RateView<'v>)>,
    Lines { policies, left }: &mut Lines,
    tell: &mut dyn FnMut(&str, &str, Tell),
) {
    policies.clear();
    left.clear();
    let mut tightest: Option<RateView<'v>> = None;
    for (wanted, limit) in limits {
        if wanted.ietf {
            next_item(policies);
            policies.push_str(limit.policy);
            next_item(left);
            left.push('"');
            left.push_str(limit.name);
            number(left, "\";r=", limit.remaining.min(LARGEST_INTEGER));
            if let Some(grows_in) = limit.grows_in {
                number(left, ";t=", seconds_up(grows_in));
            }
        }
        // Of those with as little left the one that takes longest to have more.
        let order = |limit: &RateView<'_>| (limit.remaining, Reverse(limit.grows_in));
        if wanted.legacy && tightest.is_none_or(|other| order(&limit) < order(&other)) {
            tightest = Some(limit);
        }
    }
    if !policies.is_empty() {
        tell("ratelimit-policy", policies, Tell::Beside);
        tell("ratelimit", left, Tell::Beside);
    }
    if let Some(limit) = tightest {
        tell_legacy(&limit, left, tell);
    }
}

/// The legacy trio.
#[cold]
fn tell_legacy(tightest: &RateView<'_>, text: &mut String, tell: &mut dyn FnMut(&str, &str, Tell)) {
    let values = [
        ("x-ratelimit-limit", tightest.count),
        ("x-ratelimit-remaining", tightest.remaining),
        ("x-ratelimit-reset", tightest.grows_in.map_or(0, seconds_up)),
    ];
    for (name, value) in values {
        text.clear();
        number(text, "", value);
        tell(name, text, Tell::Instead);
    }
}

/// Parts what comes next from the list's items before it.
fn next_item(text: &mut String) {
    if !text.is_empty() {
        text.push_str(", ");
    }
}

/// Appends a number after its label.
fn number(text: &mut String, label: &str, value: u64) {
    text.push_str(label);
    // By hand: the formatter takes a twelfth of the whole time of a request in here.
    const HALF: u64 = 1_000_000_000;
    match u32::try_from(value) {
        Ok(value) => push_digits(text, value, 1),
        // More than 32 bits in parts of nine digits: to divide 64 bits is a call in WebAssembly.
        Err(_) => {
            let (head, tail) = (value / HALF, (value % HALF) as u32);
            number(text, "", head);
            push_digits(text, tail, 9);
        }
    }
}

/// Appends a number with at least so many digits.
fn push_digits(text: &mut String, value: u32, least: usize) {
    let mut digits = [b'0'; 10];
    let mut rest = value;
    let mut written = 0;
    for digit in digits.iter_mut().rev() {
        if rest == 0 && written >= least {
            break;
        }
        // A remainder of ten fits a byte.
        *digit = b'0'.saturating_add((rest % 10) as u8);
        rest /= 10;
        written = written.saturating_add(1);
    }
    text.extend(digits.iter().skip(digits.len().saturating_sub(written)).map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(limits: &[(ResponseHeaders, RateView<'_>)]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut tell = |name: &str, value: &str, _| lines.push(format!("{name}: {value}"));
        rate_limit_headers(limits.iter().copied(), &mut Lines::default(), &mut tell);
        lines
    }

    fn written(wanted: ResponseHeaders, limits: &[RateView<'_>]) -> Vec<String> {
        told(&limits.iter().map(|limit| (wanted, *limit)).collect::<Vec<_>>())
    }

    const BURST: RateView<'_> = RateView {
        name: "burst",
        policy: "\"burst\";q=100;w=60",
        count: 100,
        remaining: 50,
        grows_in: Some(29_000_000_001),
    };
    const DAILY: RateView<'_> =
        RateView { name: "daily", policy: "\"daily\";q=1000;w=86400", count: 1000, remaining: 7, grows_in: None };
    const IETF: ResponseHeaders = ResponseHeaders { ietf: true, legacy: false, reason: true };

    const LEGACY: ResponseHeaders = ResponseHeaders { ietf: false, legacy: true, reason: true };

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
    fn a_limit_is_listed_with_its_quota() {
        assert_eq!(policy_item("burst", 100, 60), BURST.policy);
        assert_eq!(policy_item("daily", 1000, 86_400), DAILY.policy);
    }

    #[test]
    fn legacy_headers_speak_of_the_limit_with_the_least_left() {
        assert_eq!(
            written(LEGACY, &[BURST, DAILY]),
            ["x-ratelimit-limit: 1000", "x-ratelimit-remaining: 7", "x-ratelimit-reset: 0"]
        );
        let exhausted = RateView { remaining: 0, grows_in: Some(1), ..BURST };
        let for_longer = RateView { remaining: 0, grows_in: Some(9_000_000_000), ..DAILY };
        for both in [[exhausted, for_longer], [for_longer, exhausted]] {
            assert_eq!(written(LEGACY, &both)[2], "x-ratelimit-reset: 9");
        }
    }

    #[test]
    fn each_header_is_told_once_over_policies_that_want_different_ones() {
        let both = ResponseHeaders { ietf: true, legacy: true, reason: true };
        let off = ResponseHeaders { ietf: false, legacy: false, reason: true };
        let other = RateView { name: "other", policy: "\"other\";q=100;w=60", remaining: 1, ..BURST };
        let none = RateView { name: "none", remaining: 0, ..BURST };
        assert_eq!(
            told(&[(both, BURST), (LEGACY, DAILY), (IETF, other), (off, none)]),
            [
                r#"ratelimit-policy: "burst";q=100;w=60, "other";q=100;w=60"#,
                r#"ratelimit: "burst";r=50;t=30, "other";r=1;t=30"#,
                "x-ratelimit-limit: 1000",
                "x-ratelimit-remaining: 7",
                "x-ratelimit-reset: 0",
            ]
        );
    }

    #[test]
    fn times_are_told_in_seconds_rounded_up_however_long() {
        const SECOND: u64 = 1_000_000_000;
        for (nanos, seconds) in [(0, 0), (1, 1), (SECOND, 1), (SECOND + 1, 2), (4 * SECOND + 294_967_295, 5)] {
            assert_eq!(seconds_up(nanos), seconds, "{nanos}");
        }
        // One nanosecond more than 32 bits hold, and the most there is.
        assert_eq!((seconds_up(1 << 32), seconds_up(5 * SECOND), seconds_up(u64::MAX)), (5, 5, 18_446_744_074));
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for value in [0, 7, 10, 99, 100, 1_234_567_890, u64::from(u32::MAX), 5_000_000_000, 7_000_000_012, u64::MAX] {
            let mut text = String::new();
            number(&mut text, "x=", value);
            assert_eq!(text, format!("x={value}"));
        }
    }

    #[test]
    fn nothing_is_written_when_nothing_is_wanted_or_nothing_limits() {
        assert!(written(IETF, &[]).is_empty());
        assert!(written(ResponseHeaders { ietf: false, legacy: false, reason: true }, &[BURST]).is_empty());
    }

    #[test]
    fn integers_stay_within_what_a_structured_field_may_hold() {
        let policy = policy_item("daily", u64::MAX, 86_400);
        let huge = RateView { policy: &policy, count: u64::MAX, remaining: u64::MAX, ..DAILY };
        assert!(written(IETF, &[huge]).iter().all(|line| line.contains("999999999999999") && !line.contains("18446")));
    }
}
