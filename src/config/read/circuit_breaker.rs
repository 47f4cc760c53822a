//! Circuit breakers.

use std::time::Duration;

use super::super::error::Context;
use super::super::model::{
    Attribute, BasisPoints, BreakerControl, CircuitBreaker, HalfOpen, KeySource, Outcomes, Window,
};
use super::super::node::{Kind, Node};
use super::fields::{Fields, Schema, list};
use super::key;
use super::value::{self, DAY, HOUR, MILLISECOND, SECOND, show};

static CIRCUIT_BREAKER: Schema = Schema {
    name: "circuit_breaker",
    fields: &[
        "key",
        "max_keys",
        "window",
        "minimum_calls",
        "failure_rate_threshold",
        "slow_call_duration",
        "slow_call_rate_threshold",
        "consecutive_failures",
        "open_duration",
        "open_duration_max",
        "half_open",
        "recovery",
        "failure_when",
        "ignore_when",
        "honor_retry_after",
        "state",
    ],
};

static WINDOW: Schema = Schema { name: "window", fields: &["type", "duration", "calls"] };
static HALF_OPEN: Schema = Schema { name: "half_open", fields: &["probes", "timeout"] };
static RECOVERY: Schema = Schema { name: "recovery", fields: &["ramp"] };
static OUTCOMES: Schema = Schema { name: "outcomes", fields: &["status", "grpc_status", "reset", "timeout"] };

pub(super) const SCHEMAS: &[&Schema] = &[&CIRCUIT_BREAKER, &WINDOW, &HALF_OPEN, &RECOVERY, &OUTCOMES];

const DEFAULT_MINIMUM_CALLS: u32 = 20;
const DEFAULT_OPEN: Duration = Duration::from_secs(5);
const DEFAULT_OPEN_MAX: Duration = Duration::from_secs(60);

/// Each tracked breaker has stats of its own.
const MAX_KEYS: u32 = 4096;
const MAX_CALLS: u32 = 1_000_000;
const MAX_WINDOW_CALLS: u32 = 10_000;

/// The names of gRPC status codes, at their numbers.
const GRPC_STATUS: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

pub(super) fn read(cx: &mut Context, node: &Node) -> Option<CircuitBreaker> {
    let fields = Fields::open(cx, node, &CIRCUIT_BREAKER)?;
    let key = fields.or(cx, "key", vec![KeySource::Attribute(Attribute::Cluster)], key::read);
    let max_keys = fields.or(cx, "max_keys", 256, |cx, node| value::count(cx, node, 1, MAX_KEYS));
    let window = fields.or(cx, "window", Window::Time(10 * SECOND), window);
    let minimum_calls = fields.maybe(cx, "minimum_calls", |cx, node| value::count(cx, node, 1, MAX_CALLS));
    let failure_rate_threshold = fields.or(cx, "failure_rate_threshold", BasisPoints(5000), value::percent);
    let slow_call_duration =
        fields.maybe(cx, "slow_call_duration", |cx, node| value::duration(cx, node, MILLISECOND, HOUR));
    let slow_call_rate_threshold = fields.or(cx, "slow_call_rate_threshold", BasisPoints::ALL, value::percent);
    let consecutive_failures =
        fields.or(cx, "consecutive_failures", 0, |cx, node| value::count(cx, node, 0, MAX_CALLS));
    let open = open_durations(cx, &fields);
    let half_open = fields.or(cx, "half_open", HalfOpen { probes: 5, timeout: 10 * SECOND }, half_open);
    let recovery_ramp = fields.maybe(cx, "recovery", |cx, node| {
        let fields = Fields::open(cx, node, &RECOVERY)?;
        fields.required(cx, "ramp", |cx, node| value::duration(cx, node, MILLISECOND, HOUR))
    });
    let failures = Outcomes::failures();
    let failure_when = fields.or(cx, "failure_when", failures.clone(), |cx, node| outcomes(cx, node, failures));
    let ignore_when =
        fields.or(cx, "ignore_when", Outcomes::default(), |cx, node| outcomes(cx, node, Outcomes::default()));
    let honor_retry_after = fields.or(cx, "honor_retry_after", true, value::boolean);
    let state = fields.or(cx, "state", BreakerControl::Auto, state);

    if !fields.has("slow_call_duration") {
        fields.no_effect(cx, &["slow_call_rate_threshold"], "without slow_call_duration");
    }
    let minimum_calls = minimum_calls.and_then(|given| match (given, window) {
        (Some(given), Some(Window::Count(calls))) if given > calls => {
            let message = format!("expected at most the window's calls, which are {calls}, got {given}");
            fields.error(cx, "minimum_calls", message);
            None
        }
        (Some(given), _) => Some(given),
        // The default never makes a short window one that cannot trip.
        (None, Some(Window::Count(calls))) => Some(DEFAULT_MINIMUM_CALLS.min(calls)),
        (None, _) => Some(DEFAULT_MINIMUM_CALLS),
    });
    let (open_duration, open_duration_max) = open?;
    Some(CircuitBreaker {
        key: key?,
        max_keys: max_keys?,
        window: window?,
        minimum_calls: minimum_calls?,
        failure_rate_threshold: failure_rate_threshold?,
        slow_call_duration: slow_call_duration?,
        slow_call_rate_threshold: slow_call_rate_threshold?,
        consecutive_failures: consecutive_failures?,
        open_duration,
        open_duration_max,
        half_open: half_open?,
        recovery_ramp: recovery_ramp?,
        failure_when: failure_when?,
        ignore_when: ignore_when?,
        honor_retry_after: honor_retry_after?,
        state: state?,
    })
}

/// The shortest and the longest open time. Without a longest one, a shortest one above a minute is both.
fn open_durations(cx: &mut Context, fields: &Fields<'_>) -> Option<(Duration, Duration)> {
    let open = fields.or(cx, "open_duration", DEFAULT_OPEN, |cx, node| value::duration(cx, node, MILLISECOND, DAY));
    let max = fields.maybe(cx, "open_duration_max", |cx, node| value::duration(cx, node, MILLISECOND, DAY));
    let (open, max) = (open?, max?);
    let max = max.unwrap_or(DEFAULT_OPEN_MAX.max(open));
    if max < open {
        let least = ["expected at least open_duration, which is ", &show(open), ", got ", &show(max)].concat();
        fields.error(cx, "open_duration_max", least);
        return None;
    }
    Some((open, max))
}

#[derive(Clone, Copy)]
enum WindowType {
    Time,
    Count,
}

fn window(cx: &mut Context, node: &Node) -> Option<Window> {
    let fields = Fields::open(cx, node, &WINDOW)?;
    let kind = fields.or(cx, "type", WindowType::Time, |cx, node| {
        value::one_of(cx, node, &[("time", WindowType::Time), ("count", WindowType::Count)])
    });
    let duration =
        fields.or(cx, "duration", 10 * SECOND, |cx, node| value::duration(cx, node, 100 * MILLISECOND, HOUR));
    let calls = fields.or(cx, "calls", 100, |cx, node| value::count(cx, node, 1, MAX_WINDOW_CALLS));
    match kind? {
        WindowType::Time => {
            fields.no_effect(cx, &["calls"], "in a window of type \"time\"")?;
            Some(Window::Time(duration?))
        }
        WindowType::Count => {
            fields.no_effect(cx, &["duration"], "in a window of type \"count\"")?;
            Some(Window::Count(calls?))
        }
    }
}

fn half_open(cx: &mut Context, node: &Node) -> Option<HalfOpen> {
    let fields = Fields::open(cx, node, &HALF_OPEN)?;
    let probes = fields.or(cx, "probes", 5, |cx, node| value::count(cx, node, 1, 256));
    let timeout = fields.or(cx, "timeout", 10 * SECOND, |cx, node| value::duration(cx, node, MILLISECOND, HOUR));
    Some(HalfOpen { probes: probes?, timeout: timeout? })
}

fn state(cx: &mut Context, node: &Node) -> Option<BreakerControl> {
    let choices = [
        ("auto", BreakerControl::Auto),
        ("forced_open", BreakerControl::ForcedOpen),
        ("disabled", BreakerControl::Disabled),
    ];
    value::one_of(cx, node, &choices)
}

/// What is not given stays as in `default`.
fn outcomes(cx: &mut Context, node: &Node, default: Outcomes) -> Option<Outcomes> {
    let fields = Fields::open(cx, node, &OUTCOMES)?;
    let status = fields.or(cx, "status", default.status, |cx, node| list(cx, node, 0, 100, status));
    let grpc_status = fields.or(cx, "grpc_status", default.grpc_status, |cx, node| list(cx, node, 0, 17, grpc_status));
    let reset = fields.or(cx, "reset", default.reset, value::boolean);
    let timeout = fields.or(cx, "timeout", default.timeout, value::boolean);
    Some(Outcomes { status: status?, grpc_status: grpc_status?, reset: reset?, timeout: timeout? })
}

/// `503`, `"503"`, `"5xx"` or `"500-504"`.
fn status(cx: &mut Context, node: &Node) -> Option<(u16, u16)> {
    let range = match &node.kind {
        Kind::Number(number) if number.fract() == 0.0 && (100.0..=599.0).contains(number) => {
            Some((*number as u16, *number as u16))
        }
        Kind::String(text) => status_range(text),
        _ => None,
    };
    if range.is_none() {
        cx.expected(node, "a status from 100 to 599, a class such as \"5xx\" or a range such as \"500-504\"");
    }
    range
}

fn status_range(text: &str) -> Option<(u16, u16)> {
    let one = |text: &str| {
        let plain = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten().filter(|status| (100..=599).contains(status))
    };
    if let Some((low, high)) = text.split_once('-') {
        return Some((one(low)?, one(high)?)).filter(|(low, high)| low <= high);
    }
    match text.strip_suffix("xx") {
        Some(class) => {
            let low = one(&[class, "00"].concat())?;
            Some((low, low.saturating_add(99)))
        }
        None => one(text).map(|status| (status, status)),
    }
}

fn grpc_status(cx: &mut Context, node: &Node) -> Option<u8> {
    let code = match &node.kind {
        Kind::Number(number) if number.fract() == 0.0 && (0.0..=16.0).contains(number) => Some(*number as u8),
        Kind::String(name) => {
            GRPC_STATUS.iter().position(|known| known == name).and_then(|code| u8::try_from(code).ok())
        }
        _ => None,
    };
    if code.is_none() {
        let near = match &node.kind {
            Kind::String(name) => value::near(name, GRPC_STATUS.into_iter()),
            _ => String::new(),
        };
        let what = "expected a gRPC status such as \"unavailable\" or a number from 0 to 16, got ";
        cx.error(node, [what, &super::super::error::describe(node), &near].concat());
    }
    code
}
