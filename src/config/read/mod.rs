//! From the tree to the configuration: every field, its default, its bounds, and the rules between fields.
//!
//! A function reads one node, reports all that is wrong with it, and returns `None` if anything was. What it returns on
//! success is therefore only looked at when there were no errors; rules between fields apply to fields that are valid.

mod circuit_breaker;
mod fields;
mod key;
mod load_shedding;
mod matches;
mod rate_limit;
mod response;
mod value;

pub use fields::Schema;
use fields::{Fields, list, unique};

use super::error::{Context, Errors, Step};
use super::model::{BasisPoints, Config, Match, Mode, Policy, RequestLimits, Responses};
use super::node::{Kind, Node};

static CONFIG: Schema = Schema { name: "configuration", fields: &["version", "mode", "policies"] };

static POLICY: Schema = Schema {
    name: "policy",
    fields: &[
        "name",
        "mode",
        "enforce_percent",
        "match",
        "request_limits",
        "circuit_breaker",
        "rate_limits",
        "load_shedding",
        "responses",
        "headers",
    ],
};

static REQUEST_LIMITS: Schema =
    Schema { name: "request_limits", fields: &["max_body_bytes", "max_headers", "max_header_bytes", "max_path_bytes"] };

const SCHEMAS: &[&Schema] = &[&CONFIG, &POLICY, &REQUEST_LIMITS];

/// Every kind of object in a configuration, with the names of its fields.
pub fn schemas() -> impl Iterator<Item = &'static Schema> {
    [
        SCHEMAS,
        matches::SCHEMAS,
        key::SCHEMAS,
        rate_limit::SCHEMAS,
        circuit_breaker::SCHEMAS,
        load_shedding::SCHEMAS,
        response::SCHEMAS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

const MAX_POLICIES: usize = 1000;
const MAX_RATE_LIMITS: usize = 64;

/// Reads a whole configuration.
pub(super) fn config(root: &Node) -> Result<Config, Errors> {
    let mut cx = Context::new();
    duplicates(&mut cx, root);
    let config = read(&mut cx, root);
    cx.finish(config)
}

/// Reports every key that an object has more than once, wherever in the document.
fn duplicates(cx: &mut Context, node: &Node) {
    match &node.kind {
        Kind::List(items) => {
            for (index, item) in items.iter().enumerate() {
                cx.within(Step::Item(index), |cx| duplicates(cx, item));
            }
        }
        Kind::Object(fields) => {
            let mut seen = std::collections::BTreeSet::new();
            for (name, value) in fields {
                cx.within(Step::Field(name), |cx| {
                    if !seen.insert(name.as_str()) {
                        cx.error(value, "given more than once".to_owned());
                    }
                    duplicates(cx, value);
                });
            }
        }
        _ => {}
    }
}

fn read(cx: &mut Context, node: &Node) -> Option<Config> {
    let fields = Fields::open(cx, node, &CONFIG)?;
    let version = fields.or(cx, "version", 1, |cx, node| match node.kind {
        Kind::Number(1.0) => Some(1),
        _ => {
            cx.expected(node, "1, the only version");
            None
        }
    });
    let mode = fields.or(cx, "mode", Mode::Enforce, self::mode);
    // A wrong mode is reported once, where it stands.
    let top = mode.unwrap_or_default();
    let policies = fields.required(cx, "policies", |cx, node| {
        let policies = list(cx, node, 0, MAX_POLICIES, |cx, node| policy(cx, node, top));
        unique(cx, node, "name", "policy");
        policies
    });
    version?;
    Some(Config { mode: mode?, policies: policies? })
}

fn mode(cx: &mut Context, node: &Node) -> Option<Mode> {
    value::one_of(cx, node, &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow), ("off", Mode::Off)])
}

fn policy(cx: &mut Context, node: &Node, top: Mode) -> Option<Policy> {
    let fields = Fields::open(cx, node, &POLICY)?;
    let name = fields.required(cx, "name", value::name);
    let mode = fields.or(cx, "mode", top, self::mode);
    let enforce = fields.or(cx, "enforce_percent", BasisPoints::ALL, value::percent);
    let matches = fields.or(cx, "match", Match::default(), matches::read);
    let request_limits = fields.maybe(cx, "request_limits", request_limits);
    let circuit_breaker = fields.maybe(cx, "circuit_breaker", circuit_breaker::read);
    let rate_limits = fields.or(cx, "rate_limits", Vec::new(), |cx, node| {
        let limits = list(cx, node, 0, MAX_RATE_LIMITS, rate_limit::read);
        unique(cx, node, "name", "rate limit of this policy");
        limits
    });
    let load_shedding = fields.maybe(cx, "load_shedding", load_shedding::read);
    let responses = fields.or(cx, "responses", Responses::default(), response::responses);
    let headers = fields.or(cx, "headers", Default::default(), response::headers);
    Some(Policy {
        name: name?,
        mode: mode?.max(top),
        enforce: enforce?,
        matches: matches?,
        request_limits: request_limits?,
        circuit_breaker: circuit_breaker?,
        rate_limits: rate_limits?,
        load_shedding: load_shedding?,
        responses: responses?,
        headers: headers?,
    })
}

fn request_limits(cx: &mut Context, node: &Node) -> Option<RequestLimits> {
    let fields = Fields::open(cx, node, &REQUEST_LIMITS)?;
    // A tebibyte of body, 16 MiB of headers, 1 MiB of path: beyond what a proxy takes, so beyond any use.
    let max_body_bytes = fields.maybe(cx, "max_body_bytes", |cx, node| value::whole(cx, node, 0, 1 << 40));
    let max_headers = fields.maybe(cx, "max_headers", |cx, node| value::count(cx, node, 1, 65_535));
    let max_header_bytes = fields.maybe(cx, "max_header_bytes", |cx, node| value::count(cx, node, 1, 1 << 24));
    let max_path_bytes = fields.maybe(cx, "max_path_bytes", |cx, node| value::count(cx, node, 1, 1 << 20));
    Some(RequestLimits {
        max_body_bytes: max_body_bytes?,
        max_headers: max_headers?,
        max_header_bytes: max_header_bytes?,
        max_path_bytes: max_path_bytes?,
    })
}
