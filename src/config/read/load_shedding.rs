//! Load shedding: limit, priorities, queue, throttle, deadline.

use super::super::error::{Context, quote};
use super::super::model::{
    BasisPoints, ConcurrencyLimit, Level, LimitAlgorithm, LoadShedding, Priority, Queue, QueueOrder, Release, Throttle,
};
use super::super::node::Node;
use super::fields::{Fields, Schema, list, unique};
use super::value::{self, HOUR, MILLISECOND, MINUTE, SECOND};
use super::{key, matches};

static LOAD_SHEDDING: Schema = Schema {
    name: "load_shedding",
    fields: &["limit", "key", "max_keys", "priority", "queue", "throttle", "deadline", "release"],
};

static LIMIT: Schema = Schema { name: "limit", fields: &["algorithm", "initial", "min", "max", "limit"] };
static PRIORITY: Schema = Schema { name: "priority", fields: &["levels", "default"] };
static LEVEL: Schema = Schema { name: "level", fields: &["name", "match", "share"] };
static QUEUE: Schema = Schema { name: "queue", fields: &["max_length", "max_wait", "order"] };
static THROTTLE: Schema =
    Schema { name: "throttle", fields: &["success_threshold", "window", "max_rejection", "minimum_calls"] };
static DEADLINE: Schema = Schema { name: "deadline", fields: &["header"] };

pub(super) const SCHEMAS: &[&Schema] = &[&LOAD_SHEDDING, &LIMIT, &PRIORITY, &LEVEL, &QUEUE, &THROTTLE, &DEADLINE];

const MAX_CONCURRENCY: u32 = 1_000_000;
const MAX_KEYS: u32 = 65_536;
const MAX_LEVELS: usize = 16;
const MAX_QUEUE: u32 = 100_000;

const DEFAULT_INITIAL: u32 = 20;
const DEFAULT_MIN: u32 = 1;
const DEFAULT_MAX: u32 = 1000;

pub(super) fn read(cx: &mut Context, node: &Node) -> Option<LoadShedding> {
    let fields = Fields::open(cx, node, &LOAD_SHEDDING)?;
    let adaptive = ConcurrencyLimit::Dynamic {
        algorithm: LimitAlgorithm::Adaptive,
        initial: DEFAULT_INITIAL,
        min: DEFAULT_MIN,
        max: DEFAULT_MAX,
    };
    let limit = fields.or(cx, "limit", adaptive, limit);
    let key = fields.or(cx, "key", Vec::new(), key::read);
    let max_keys = fields.or(cx, "max_keys", 1024, |cx, node| value::count(cx, node, 1, MAX_KEYS));
    let priority = fields.maybe(cx, "priority", priority);
    let queue = fields.maybe(cx, "queue", queue);
    let throttle = fields.maybe(cx, "throttle", throttle);
    let deadline_header = fields.maybe(cx, "deadline", |cx, node| {
        Fields::open(cx, node, &DEADLINE)?.required(cx, "header", value::header_name)
    });
    let release = fields.or(cx, "release", Release::End, |cx, node| {
        value::one_of(cx, node, &[("end", Release::End), ("headers", Release::Headers)])
    });
    Some(LoadShedding {
        limit: limit?,
        key: key?,
        max_keys: max_keys?,
        priority: priority?,
        queue: queue?,
        throttle: throttle?,
        deadline_header: deadline_header?,
        release: release?,
    })
}

fn limit(cx: &mut Context, node: &Node) -> Option<ConcurrencyLimit> {
    let fields = Fields::open(cx, node, &LIMIT)?;
    let choices = [
        ("adaptive", Some(LimitAlgorithm::Adaptive)),
        ("gradient2", Some(LimitAlgorithm::Gradient2)),
        ("vegas", Some(LimitAlgorithm::Vegas)),
        ("aimd", Some(LimitAlgorithm::Aimd)),
        ("fixed", None),
    ];
    let algorithm =
        fields.or(cx, "algorithm", Some(LimitAlgorithm::Adaptive), |cx, node| value::one_of(cx, node, &choices));
    let bound = |cx: &mut Context, node: &Node| value::count(cx, node, 1, MAX_CONCURRENCY);
    let given = fields.maybe(cx, "initial", bound);
    let min = fields.or(cx, "min", DEFAULT_MIN, bound);
    let max = fields.maybe(cx, "max", bound);
    let fixed = if algorithm == Some(None) {
        fields.required(cx, "limit", bound)
    } else {
        fields.maybe(cx, "limit", bound).flatten()
    };
    let Some(algorithm) = algorithm? else {
        fields.no_effect(cx, &["initial", "min", "max"], "with a fixed limit")?;
        return fixed.map(ConcurrencyLimit::Fixed);
    };
    fields.no_effect(cx, &["limit"], "unless the algorithm is \"fixed\"")?;
    let min = min?;
    let max = max?.unwrap_or(DEFAULT_MAX.max(min));
    if min > max {
        fields.error(cx, "min", format!("expected at most max, which is {max}, got {min}"));
        return None;
    }
    let initial = given?.unwrap_or(DEFAULT_INITIAL.clamp(min, max));
    if initial < min || initial > max {
        fields.error(cx, "initial", format!("expected a whole number from min to max, {min} to {max}, got {initial}"));
        return None;
    }
    Some(ConcurrencyLimit::Dynamic { algorithm, initial, min, max })
}

fn priority(cx: &mut Context, node: &Node) -> Option<Priority> {
    let fields = Fields::open(cx, node, &PRIORITY)?;
    let levels = fields.required(cx, "levels", |cx, node| {
        let levels = list(cx, node, 1, MAX_LEVELS, level);
        unique(cx, node, "name", "level");
        levels
    });
    let default = fields.maybe(cx, "default", value::name);
    let (levels, default) = (levels?, default?);
    let default = match default {
        // Nothing said: the least important one.
        None => levels.len().saturating_sub(1),
        Some(name) => match levels.iter().position(|level| level.name == name) {
            Some(index) => index,
            None => {
                let names: Vec<String> = levels.iter().map(|level| quote(&level.name)).collect();
                let what = ["expected the name of a level, one of ", &names.join(", "), ", got ", &quote(&name)];
                fields.error(cx, "default", what.concat());
                return None;
            }
        },
    };
    let unused = levels.iter().enumerate().position(|(index, level)| index != default && level.matches.is_none());
    if let Some(index) = unused {
        let message = format!("level {} needs a match: without one only the default level is ever used", index);
        fields.error(cx, "levels", message);
        return None;
    }
    Some(Priority { levels, default })
}

fn level(cx: &mut Context, node: &Node) -> Option<Level> {
    let fields = Fields::open(cx, node, &LEVEL)?;
    let name = fields.required(cx, "name", value::name);
    let matches = fields.maybe(cx, "match", matches::read);
    let share = fields.or(cx, "share", BasisPoints::ALL, value::positive_percent);
    Some(Level { name: name?, matches: matches?, share: share? })
}

fn queue(cx: &mut Context, node: &Node) -> Option<Queue> {
    let fields = Fields::open(cx, node, &QUEUE)?;
    let max_length = fields.or(cx, "max_length", 100, |cx, node| value::count(cx, node, 1, MAX_QUEUE));
    let max_wait =
        fields.or(cx, "max_wait", 100 * MILLISECOND, |cx, node| value::duration(cx, node, MILLISECOND, MINUTE));
    let choices = [("adaptive_lifo", QueueOrder::AdaptiveLifo), ("fifo", QueueOrder::Fifo), ("lifo", QueueOrder::Lifo)];
    let order = fields.or(cx, "order", QueueOrder::AdaptiveLifo, |cx, node| value::one_of(cx, node, &choices));
    Some(Queue { max_length: max_length?, max_wait: max_wait?, order: order? })
}

fn throttle(cx: &mut Context, node: &Node) -> Option<Throttle> {
    let fields = Fields::open(cx, node, &THROTTLE)?;
    let success_threshold = fields.or(cx, "success_threshold", BasisPoints(9500), value::positive_percent);
    let window = fields.or(cx, "window", 30 * SECOND, |cx, node| value::duration(cx, node, SECOND, HOUR));
    let max_rejection = fields.or(cx, "max_rejection", BasisPoints(8000), value::positive_percent);
    let minimum_calls = fields.or(cx, "minimum_calls", 20, |cx, node| value::count(cx, node, 1, 1_000_000));
    Some(Throttle {
        success_threshold: success_threshold?,
        window: window?,
        max_rejection: max_rejection?,
        minimum_calls: minimum_calls?,
    })
}
