//! Single values: numbers, words, durations, rates, names.

use std::time::Duration;

use super::super::error::{Context, quote};
use super::super::model::{BasisPoints, Rate};
use super::super::node::{Kind, Node};
use super::super::suggest;

/// The most a rate or a burst can count. At 10^9 a second one unit takes one nanosecond.
pub(super) const MAX_COUNT: u64 = 1_000_000_000;

/// A whole number within bounds. `100.0` is one too: a Struct has no other numbers.
#[inline(never)]
pub(super) fn whole(cx: &mut Context, node: &Node, min: u64, max: u64) -> Option<u64> {
    if let Kind::Number(number) = node.kind
        && number.fract() == 0.0
        && number >= min as f64
        && number <= max as f64
    {
        return Some(number as u64);
    }
    cx.expected(node, &format!("a whole number from {min} to {max}"));
    None
}

/// A whole number within bounds of 32 bits.
#[inline(never)]
pub(super) fn count(cx: &mut Context, node: &Node, min: u32, max: u32) -> Option<u32> {
    whole(cx, node, u64::from(min), u64::from(max)).and_then(|number| u32::try_from(number).ok())
}

/// A whole number within bounds of 8 bits.
#[inline(never)]
pub(super) fn byte(cx: &mut Context, node: &Node, max: u8) -> Option<u8> {
    whole(cx, node, 0, u64::from(max)).and_then(|number| u8::try_from(number).ok())
}

/// 0 to 100 percent, rounded to a hundredth.
#[inline(never)]
pub(super) fn percent(cx: &mut Context, node: &Node) -> Option<BasisPoints> {
    match node.kind {
        Kind::Number(number) if (0.0..=100.0).contains(&number) => {
            let points = (number * 100.0).round() as u16;
            if points == 0 && number > 0.0 {
                cx.expected(node, "0 or a percentage from 0.01 to 100");
                return None;
            }
            Some(BasisPoints(points))
        }
        _ => {
            cx.expected(node, "a percentage from 0 to 100");
            None
        }
    }
}

/// As [`percent`], where 0 would mean nothing.
#[inline(never)]
pub(super) fn positive_percent(cx: &mut Context, node: &Node) -> Option<BasisPoints> {
    match node.kind {
        Kind::Number(0.0) => {
            cx.expected(node, "a percentage from 0.01 to 100");
            None
        }
        _ => percent(cx, node),
    }
}

#[inline(never)]
pub(super) fn boolean(cx: &mut Context, node: &Node) -> Option<bool> {
    match node.kind {
        Kind::Bool(value) => Some(value),
        _ => {
            cx.expected(node, "true or false");
            None
        }
    }
}

/// A string of `min` to `max` bytes.
#[inline(never)]
pub(super) fn text(cx: &mut Context, node: &Node, min: usize, max: usize) -> Option<String> {
    let Kind::String(text) = &node.kind else {
        cx.expected(node, "a string");
        return None;
    };
    if text.len() < min {
        cx.error(node, "expected a string that is not empty".to_owned());
        return None;
    }
    if text.len() > max {
        cx.error(node, format!("expected a string of at most {max} bytes, got {}", text.len()));
        return None;
    }
    Some(text.clone())
}

/// A string that `valid` accepts; `what` describes those.
#[inline(never)]
pub(super) fn checked(cx: &mut Context, node: &Node, what: &str, valid: fn(&str) -> bool) -> Option<String> {
    match &node.kind {
        Kind::String(text) if valid(text) => Some(text.clone()),
        _ => {
            cx.expected(node, what);
            None
        }
    }
}

/// One of these words.
pub(super) fn one_of<T: Copy>(cx: &mut Context, node: &Node, choices: &[(&str, T)]) -> Option<T> {
    let word = match &node.kind {
        Kind::String(word) => Some(word),
        _ => None,
    };
    let found = choices.iter().find(|(name, _)| word.is_some_and(|word| word == name));
    if found.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        not_one_of(cx, node, &names);
    }
    found.map(|(_, value)| *value)
}

/// Reports a node that is none of these words.
#[inline(never)]
pub(super) fn not_one_of(cx: &mut Context, node: &Node, names: &[&str]) {
    let mut what = String::new();
    for (index, name) in names.iter().enumerate() {
        what.push_str(match index {
            0 => "",
            i if i + 1 == names.len() => " or ",
            _ => ", ",
        });
        what.push_str(&quote(name));
    }
    cx.expected(node, &what);
}

/// A name of a policy, a limit or a level: it becomes part of stats and headers.
#[inline(never)]
pub(super) fn name(cx: &mut Context, node: &Node) -> Option<String> {
    checked(cx, node, "a name of 1 to 64 of a-z, 0-9, \"_\" and \"-\"", |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
    })
}

/// A token of RFC 9110, section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// The name of a header, in lower case.
#[inline(never)]
pub(super) fn header_name(cx: &mut Context, node: &Node) -> Option<String> {
    checked(cx, node, "the name of a header", |text| is_token(text) && text.len() <= 256)
        .map(|name| name.to_ascii_lowercase())
}

/// The value of a header: no control characters, no blanks around it.
#[inline(never)]
pub(super) fn header_value(cx: &mut Context, node: &Node) -> Option<String> {
    checked(cx, node, "a header value without control characters or blanks around it", |text| {
        text.trim_ascii() == text && text.len() <= 8192 && !text.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f)
    })
}

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// A duration within bounds.
#[inline(never)]
pub(super) fn duration(cx: &mut Context, node: &Node, min: Duration, max: Duration) -> Option<Duration> {
    let parsed = match &node.kind {
        Kind::String(text) => parse_duration(text),
        _ => None,
    };
    match parsed {
        None => cx.expected(node, "a duration such as \"250ms\", \"1.5s\", \"2m\" or \"1h\""),
        Some(duration) if duration < min || duration > max => {
            cx.expected(node, &["a duration from ", &show(min), " to ", &show(max)].concat());
        }
        Some(_) => {}
    }
    parsed.filter(|duration| (min..=max).contains(duration))
}

/// A duration as it would be written.
#[inline(never)]
pub(super) fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    let (unit, suffix) = match ms {
        ms if ms > 0 && ms.is_multiple_of(3_600_000) => (3_600_000, "h"),
        ms if ms > 0 && ms.is_multiple_of(60_000) => (60_000, "m"),
        ms if ms > 0 && ms.is_multiple_of(1000) => (1000, "s"),
        _ => (1, "ms"),
    };
    quote(&[&(ms / unit).to_string(), suffix].concat())
}

/// Digits, perhaps a fraction, and a unit. What is finer than a nanosecond is cut off.
fn parse_duration(text: &str) -> Option<Duration> {
    let (number, nanos) = [("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)]
        .into_iter()
        .find_map(|(suffix, nanos)| Some((text.strip_suffix(suffix)?, nanos)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // 10^9 units of at most an hour, times 10^9 for the fraction, is far within 128 bits.
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok().filter(|length| *length <= 9)?);
    let units = u128::from(digits(whole, 9)?) * scale + u128::from(digits(fraction, 9)?);
    // Saturates at 584 years, which is beyond every bound as well.
    Some(Duration::from_nanos(u64::try_from(units * nanos / scale).unwrap_or(u64::MAX)))
}

/// A number of 1 to `most` digits and nothing else.
fn digits(text: &str, most: usize) -> Option<u64> {
    let plain = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A rate.
#[inline(never)]
pub(super) fn rate(cx: &mut Context, node: &Node) -> Option<Rate> {
    let parsed = match &node.kind {
        Kind::String(text) => parse_rate(text),
        _ => None,
    };
    match parsed {
        None => cx.expected(node, "a rate such as \"100/s\""),
        Some(rate) if !(1..=MAX_COUNT).contains(&rate.count) => {
            cx.expected(node, &format!("a rate of 1 to {MAX_COUNT} per period"));
        }
        Some(_) => {}
    }
    parsed.filter(|rate| (1..=MAX_COUNT).contains(&rate.count))
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (count, unit) = text.split_once('/')?;
    let period = match unit {
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return None,
    };
    Some(Rate { count: digits(count, 19)?, period })
}

/// What is said of a word that is nearly one of `known`.
pub(super) fn near<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> String {
    match suggest::nearest(word, known) {
        Some(near) => ["; did you mean ", &quote(near), "?"].concat(),
        None => String::new(),
    }
}
