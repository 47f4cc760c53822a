//! Rate limits.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::error::{Context, Step};
use super::super::model::{Cost, OnMissingKey, Override, Quota, Rate, RateAlgorithm, RateLimit, Scope};
use super::super::node::{Kind, Node};
use super::fields::{Fields, Schema, list};
use super::key;
use super::value::{self, MAX_COUNT, MILLISECOND, MINUTE};

static RATE_LIMIT: Schema = Schema {
    name: "rate_limit",
    fields: &[
        "name",
        "rate",
        "burst",
        "algorithm",
        "key",
        "on_missing_key",
        "overrides",
        "cost",
        "charge_response",
        "pace",
        "scope",
        "max_keys",
    ],
};

static OVERRIDE: Schema = Schema { name: "override", fields: &["key", "rate", "burst", "unlimited"] };
static COST: Schema = Schema { name: "cost", fields: &["header", "default", "max"] };
static CHARGE_RESPONSE: Schema = Schema { name: "charge_response", fields: &["header"] };
static PACE: Schema = Schema { name: "pace", fields: &["max_wait"] };

pub(super) const SCHEMAS: &[&Schema] = &[&RATE_LIMIT, &OVERRIDE, &COST, &CHARGE_RESPONSE, &PACE];

const DEFAULT_MAX_KEYS: u32 = 65_536;
const MAX_KEYS: u32 = 1 << 22;
const MAX_OVERRIDES: usize = 10_000;
const MAX_COST: u64 = 1_000_000;

/// An empty bucket is full again within ten years, so that times in nanoseconds are far from overflow.
const MAX_REFILL: Duration = Duration::from_secs(3650 * 86_400);

const WINDOW_BURST: &str = "with a window algorithm, which admits the rate's count in each period";

pub(super) fn read(cx: &mut Context, node: &Node) -> Option<RateLimit> {
    let fields = Fields::open(cx, node, &RATE_LIMIT)?;
    let name = fields.required(cx, "name", value::name);
    let algorithm = fields.or(cx, "algorithm", RateAlgorithm::TokenBucket, algorithm);
    let quota = quota(cx, &fields, algorithm);
    let key = fields.or(cx, "key", Vec::new(), key::read);
    let on_missing_key = fields.or(cx, "on_missing_key", OnMissingKey::Skip, on_missing_key);
    let cost = fields.or(cx, "cost", Cost::Fixed(1), cost);
    let overrides = fields.or(cx, "overrides", Vec::new(), |cx, node| {
        let sources = key.as_ref().map(Vec::len);
        let read = list(cx, node, 0, MAX_OVERRIDES, |cx, node| override_(cx, node, sources, algorithm, cost.as_ref()))?;
        unique_keys(cx, node, &read);
        Some(read)
    });
    let charge_response = fields.maybe(cx, "charge_response", |cx, node| {
        Fields::open(cx, node, &CHARGE_RESPONSE)?.required(cx, "header", value::header_name)
    });
    let pace = fields.maybe(cx, "pace", |cx, node| {
        let fields = Fields::open(cx, node, &PACE)?;
        fields.required(cx, "max_wait", |cx, node| value::duration(cx, node, MILLISECOND, MINUTE))
    });
    let scope = fields.or(cx, "scope", Scope::Proxy, scope);
    let max_keys = fields.or(cx, "max_keys", DEFAULT_MAX_KEYS, |cx, node| value::count(cx, node, 1, MAX_KEYS));

    if let (Some(quota), Some(cost)) = (quota, &cost) {
        affordable(cx, &fields, "cost", quota, cost);
    }
    if key.as_ref().is_some_and(Vec::is_empty) {
        if on_missing_key.is_some_and(|policy| policy != OnMissingKey::Skip) {
            fields.no_effect(cx, &["on_missing_key"], "without a key");
        }
        if overrides.as_ref().is_some_and(|list| !list.is_empty()) {
            fields.no_effect(cx, &["overrides"], "without a key");
        }
    }
    Some(RateLimit {
        name: name?,
        quota: quota?,
        algorithm: algorithm?,
        key: key?,
        on_missing_key: on_missing_key?,
        overrides: overrides?,
        cost: cost?,
        charge_response: charge_response?,
        pace: pace?,
        scope: scope?,
        max_keys: max_keys?,
    })
}

/// `rate` and `burst`, of a limit or of an override.
fn quota(cx: &mut Context, fields: &Fields<'_>, algorithm: Option<RateAlgorithm>) -> Option<Quota> {
    let rate = fields.required(cx, "rate", value::rate);
    let burst = fields.maybe(cx, "burst", |cx, node| value::whole(cx, node, 1, MAX_COUNT));
    if algorithm.is_some_and(|algorithm| algorithm != RateAlgorithm::TokenBucket) {
        fields.no_effect(cx, &["burst"], WINDOW_BURST);
    }
    let (rate, burst) = (rate?, burst?);
    let quota = Quota { rate, burst: burst.unwrap_or(rate.count) };
    if refill_seconds(quota) > MAX_REFILL.as_secs() {
        let days = refill_seconds(quota) / 86_400;
        let most = MAX_REFILL.as_secs() / 86_400;
        let message =
            format!("expected a burst that refills within {most} days, got {}, which takes {days}", quota.burst);
        fields.error(cx, "burst", message);
        return None;
    }
    Some(quota)
}

fn refill_seconds(Quota { rate: Rate { count, period }, burst }: Quota) -> u64 {
    // Both are at most 10^9 and a day: 8.64 * 10^13.
    burst.saturating_mul(period.as_secs()).checked_div(count).unwrap_or(u64::MAX)
}

/// Reports a cost that an empty house could not pay.
fn affordable(cx: &mut Context, fields: &Fields<'_>, field: &'static str, quota: Quota, cost: &Cost) -> Option<()> {
    let least = match cost {
        Cost::Fixed(cost) => *cost,
        Cost::Header { default, .. } => *default,
    };
    if least <= quota.burst {
        return Some(());
    }
    let message =
        format!("no request could ever be admitted: each costs {least}, more than the burst of {}", quota.burst);
    fields.error(cx, field, message);
    None
}

fn algorithm(cx: &mut Context, node: &Node) -> Option<RateAlgorithm> {
    let choices = [
        ("token_bucket", RateAlgorithm::TokenBucket),
        ("sliding_window", RateAlgorithm::SlidingWindow),
        ("fixed_window", RateAlgorithm::FixedWindow),
    ];
    value::one_of(cx, node, &choices)
}

fn on_missing_key(cx: &mut Context, node: &Node) -> Option<OnMissingKey> {
    let choices = [("skip", OnMissingKey::Skip), ("share", OnMissingKey::Share), ("reject", OnMissingKey::Reject)];
    value::one_of(cx, node, &choices)
}

fn scope(cx: &mut Context, node: &Node) -> Option<Scope> {
    if matches!(&node.kind, Kind::String(text) if text == "fleet") {
        cx.error(node, "\"fleet\" is reserved for a budget over several proxies and not available".to_owned());
        return None;
    }
    value::one_of(cx, node, &[("proxy", Scope::Proxy), ("worker", Scope::Worker)])
}

fn cost(cx: &mut Context, node: &Node) -> Option<Cost> {
    let Kind::Object(_) = node.kind else {
        let Kind::Number(_) = node.kind else {
            cx.expected(node, &format!("a whole number from 1 to {MAX_COST} or an object with a header"));
            return None;
        };
        return value::whole(cx, node, 1, MAX_COST).map(Cost::Fixed);
    };
    let fields = Fields::open(cx, node, &COST)?;
    let name = fields.required(cx, "header", value::header_name);
    let default = fields.or(cx, "default", 1, |cx, node| value::whole(cx, node, 1, MAX_COST));
    let max = fields.or(cx, "max", 1000, |cx, node| value::whole(cx, node, 1, MAX_COST));
    let (name, default, max) = (name?, default?, max?);
    if default > max {
        fields.error(cx, "default", format!("expected at most max, which is {max}, got {default}"));
        return None;
    }
    Some(Cost::Header { name, default, max })
}

fn override_(
    cx: &mut Context,
    node: &Node,
    sources: Option<usize>,
    algorithm: Option<RateAlgorithm>,
    cost: Option<&Cost>,
) -> Option<Override> {
    let fields = Fields::open(cx, node, &OVERRIDE)?;
    let key = fields.required(cx, "key", |cx, node| {
        let key = list(cx, node, 1, 8, |cx, node| value::text(cx, node, 0, 1024))?;
        match sources {
            // Without any source the limit as a whole says so.
            Some(sources) if sources > 0 && key.len() != sources => {
                let message =
                    format!("expected {sources} values, one for each source of the limit's key, got {}", key.len());
                cx.error(node, message);
                None
            }
            _ => Some(key),
        }
    });
    let unlimited = fields.or(cx, "unlimited", false, value::boolean);
    let quota = match unlimited {
        Some(true) => fields.no_effect(cx, &["rate", "burst"], "beside unlimited").map(|()| None),
        Some(false) => quota(cx, &fields, algorithm).and_then(|quota| {
            if let Some(cost) = cost {
                affordable(cx, &fields, "burst", quota, cost)?;
            }
            Some(Some(quota))
        }),
        None => None,
    };
    Some(Override { key: key?, quota: quota? })
}

/// Reports overrides that an earlier one always hides.
fn unique_keys(cx: &mut Context, node: &Node, overrides: &[Override]) {
    let Kind::List(items) = &node.kind else { return };
    let mut seen = BTreeSet::new();
    for (index, (item, read)) in items.iter().zip(overrides).enumerate() {
        if !seen.insert(&read.key) {
            cx.within(Step::Item(index), |cx| {
                cx.error(item, "has no effect: an earlier override has the same key".to_owned());
            });
        }
    }
}
