//! What is measured: one listener each, in the same Envoy.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::modules::Modules;
use crate::envoy::{HttpFilter, Listener, Tidegate, locate};

/// A listener and what is sent to it.
#[derive(Debug, Clone)]
pub struct Variant {
    /// In words.
    pub title: &'static str,
    /// How many clients its requests come from.
    pub keys: u32,
    /// Which headers they have more than usual.
    pub more: More,
    filters: Vec<HttpFilter>,
}

/// Headers beside the usual ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct More {
    /// So many.
    pub count: usize,
    /// So long is the value of each.
    pub bytes: usize,
}

/// Names by which budgets find their variants.
pub mod title {
    /// The control every other one is held against.
    pub const NONE: &str = "no filter";
    /// On the SDK.
    pub const STOCK: &str = "do-nothing wasm filter, stock SDK";
    /// Envoy's own three together.
    pub const NATIVE: &str = "Envoy's own three filters";
    /// No policy speaks to the requests.
    pub const UNMATCHED: &str = "Tidegate: no policy matches";
    /// The three controls in one policy.
    pub const ALL: &str = "Tidegate: all three controls";
    /// The same from many clients.
    pub const MANY_KEYS: &str = "Tidegate: all three, 1 000 000 keys";
    /// The same beside one policy that does not match.
    pub const TWO: &str = "Tidegate: all three + 1 other policy";
    /// The same beside 200.
    pub const TWO_HUNDRED: &str = "Tidegate: all three + 200 others";
    /// The three controls in the bench build.
    pub const TIMED: &str = "timed";
}

/// Headers of a request as Tidegate sees it, where no more are asked for.
pub const HEADERS: usize = 12;

/// Clients of most variants.
const FEW: u32 = 100;
/// Clients of one.
const MANY: u32 = 1_000_000;

/// One page that all requests want.
pub const RATE: &str = "Tidegate: a rate limit without a key";

pub(super) fn key() -> Value {
    json!([{"header": "x-api-key"}])
}

/// No limit is ever reached: what is measured is the price of being protected, not of being rejected.
fn rate_limit(key: &Value) -> Value {
    json!([{"name": "clients", "rate": "100000/s", "key": key, "max_keys": MANY}])
}

/// This build of Tidegate, or another one.
fn tidegate(build: &Path, name: &str, policies: &Value) -> HttpFilter {
    let configuration = json!({"version": 1, "policies": policies}).to_string();
    Tidegate::with_module(build.to_owned()).text(configuration).name(name).vm_id(name).into()
}

fn controls(key: &Value) -> Value {
    json!({
        "name": "all",
        "rate_limits": rate_limit(key),
        "circuit_breaker": {},
        "load_shedding": adaptive()
    })
}

/// A limit that learns, and has room for what is sent here from the start.
fn adaptive() -> Value {
    json!({"limit": {"algorithm": "adaptive", "initial": 1000, "min": 1000, "max": 2000}})
}

/// The three controls in a policy that matches, and others that do not.
pub(super) fn beside(others: usize, key: &Value) -> Value {
    let other = |n: usize| {
        let path = json!({"prefix": format!("/service-{n}/")});
        json!({"name": format!("other-{n}"), "match": {"path": path}, "rate_limits": [{"name": "all", "rate": "100/s"}]})
    };
    (0..others).map(other).chain([controls(key)]).collect()
}

fn few(title: &'static str, filters: Vec<HttpFilter>) -> Variant {
    Variant { title, keys: FEW, more: More::default(), filters }
}

fn module(name: &str, path: &Path) -> HttpFilter {
    Tidegate::with_module(path.to_owned()).name(name).vm_id(name).into()
}

/// Envoy's `adaptive_concurrency`, `admission_control` and `local_ratelimit`, none of which ever rejects here.
fn native() -> Vec<HttpFilter> {
    let type_url = |name: &str| format!("type.googleapis.com/envoy.extensions.filters.http.{name}.v3");
    vec![
        HttpFilter::local_ratelimit(1_000_000_000, "1s"),
        HttpFilter::Raw(json!({
            "name": "envoy.filters.http.admission_control",
            "typed_config": {
                "@type": format!("{}.AdmissionControl", type_url("admission_control")),
                "enabled": {"default_value": true, "runtime_key": "bench.admission"},
                "sampling_window": "30s",
                "success_criteria": {"http_criteria": {"http_success_status": [{"start": 100, "end": 500}]}}
            }
        })),
        HttpFilter::Raw(json!({
            "name": "envoy.filters.http.adaptive_concurrency",
            "typed_config": {
                "@type": format!("{}.AdaptiveConcurrency", type_url("adaptive_concurrency")),
                "enabled": {"default_value": true, "runtime_key": "bench.adaptive"},
                "gradient_controller_config": {
                    "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
                    "min_rtt_calc_params": {
                        "interval": "60s", "request_count": 50, "min_concurrency": 100, "buffer": {"value": 100.0}
                    }
                }
            }
        })),
    ]
}

/// Work like that of the three controls as one would write it in Lua, each worker for itself: a token bucket for each client,
/// a place in flight, failures among the last answers, and a header that tells what is left.
const LUA: &str = r#"
local buckets, in_flight, answered, failed = {}, 0, 0, 0
function envoy_on_request(handle)
  local key = handle:headers():get("x-api-key")
  local now = tonumber(handle:timestampString(EnvoyTimestampResolution.MICROSECOND))
  if key == nil or in_flight >= 1000 or (answered > 100 and failed * 2 > answered) then
    handle:respond({[":status"] = "503"}, "")
    return
  end
  local bucket = buckets[key]
  if bucket == nil then
    bucket = {100000, now}
    buckets[key] = bucket
  end
  local tokens = math.min(100000, bucket[1] + (now - bucket[2]) * 0.1)
  if tokens < 1 then
    handle:respond({[":status"] = "429"}, "")
    return
  end
  bucket[1], bucket[2] = tokens - 1, now
  in_flight = in_flight + 1
  handle:streamInfo():dynamicMetadata():set("bench", "left", tokens - 1)
end
function envoy_on_response(handle)
  in_flight = in_flight - 1
  answered = answered + 1
  if string.byte(handle:headers():get(":status")) == 53 then failed = failed + 1 end
  if answered > 10000 then answered, failed = answered / 2, failed / 2 end
  local left = handle:streamInfo():dynamicMetadata():get("bench")["left"]
  handle:headers():add("ratelimit", "\"clients\";r=" .. math.floor(left))
end
"#;

fn lua() -> HttpFilter {
    HttpFilter::Raw(json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": LUA}
        }
    }))
}

/// All variants; the first is the control. `against` is another build of Tidegate to be measured beside this one.
///
/// # Errors
/// A module has not been built.
pub fn all(modules: &Modules, against: Option<&Path>) -> Result<Vec<Variant>> {
    let this = locate::tidegate_wasm()?;
    let key = key();
    let policy = |title, name: &str, policies: &Value| few(title, vec![tidegate(&this, name, policies)]);
    let unmatched = json!([{
        "name": "elsewhere", "match": {"path": {"prefix": "/elsewhere/"}}, "rate_limits": rate_limit(&key)
    }]);
    let fixed = json!({"limit": {"algorithm": "fixed", "limit": 1000}});
    let all_three = json!([controls(&key)]);
    let mut variants = vec![
        few(title::NONE, vec![]),
        few(title::STOCK, vec![module("stock", &modules.stock)]),
        few("do-nothing wasm filter, minimal", vec![module("minimal", &modules.minimal)]),
        few("Envoy's local_ratelimit", vec![HttpFilter::local_ratelimit(1_000_000_000, "1s")]),
        few(title::NATIVE, native()),
        few("Lua filter of similar work", vec![lua()]),
        policy(title::UNMATCHED, "unmatched", &unmatched),
        policy(RATE, "rate", &json!([{"name": "all", "rate_limits": rate_limit(&json!([]))}])),
        policy("Tidegate: a keyed rate limit", "keyed", &json!([{"name": "all", "rate_limits": rate_limit(&key)}])),
        policy("Tidegate: a circuit breaker", "breaker", &json!([{"name": "all", "circuit_breaker": {}}])),
        policy("Tidegate: a fixed concurrency limit", "limit", &json!([{"name": "all", "load_shedding": fixed}])),
        policy("Tidegate: adaptive concurrency", "adaptive", &json!([{"name": "all", "load_shedding": adaptive()}])),
        policy(title::ALL, "all", &all_three),
        Variant { keys: MANY, ..policy(title::MANY_KEYS, "many", &all_three) },
        policy(title::TWO, "two", &beside(1, &key)),
        policy(title::TWO_HUNDRED, "two-hundred", &beside(200, &key)),
    ];
    if let Some(other) = against {
        let policy = |title, name: &str, policies: &Value| few(title, vec![tidegate(other, name, policies)]);
        variants.push(policy("the other build: no policy matches", "other-unmatched", &unmatched));
        variants.push(policy("the other build: all three controls", "other-all", &all_three));
    }
    Ok(variants)
}

impl Variant {
    /// Its listener.
    pub fn listener(&self) -> Listener {
        self.filters.iter().cloned().fold(Listener::new(self.title), Listener::filter)
    }
}

/// What grows with the number of workers: a limit that all requests share, and the three controls.
///
/// # Errors
/// Tidegate has not been built.
pub fn by_workers() -> Result<Vec<Variant>> {
    let this = locate::tidegate_wasm()?;
    let policy = |title, name: &str, policies: &Value| few(title, vec![tidegate(&this, name, policies)]);
    let single = json!([{"name": "all", "rate_limits": rate_limit(&json!([]))}]);
    Ok(vec![
        few(title::NONE, vec![]),
        policy(RATE, "rate", &single),
        policy(title::ALL, "all", &json!([controls(&key())])),
    ])
}

/// The three controls beside more and more policies, and with more and more keys.
///
/// # Errors
/// Tidegate has not been built.
pub fn by_size() -> Result<Vec<Variant>> {
    let this = locate::tidegate_wasm()?;
    let policy = |title, name: &str, policies: &Value| few(title, vec![tidegate(&this, name, policies)]);
    let alone = json!([controls(&key())]);
    Ok(vec![
        few(title::NONE, vec![]),
        policy("1 policy, 100 keys", "all", &alone),
        policy("20 policies", "twenty", &beside(19, &key())),
        policy("200 policies", "two-hundred", &beside(199, &key())),
        policy("1000 policies", "thousand", &beside(999, &key())),
        Variant { keys: 10_000, ..policy("10 000 keys", "more", &alone) },
        Variant { keys: MANY, ..policy("1 000 000 keys", "many", &alone) },
    ])
}

/// No filter and the three controls, with requests of some headers more.
///
/// # Errors
/// Tidegate has not been built.
pub fn by_headers(more: More) -> Result<Vec<Variant>> {
    let all = vec![tidegate(&locate::tidegate_wasm()?, "all", &json!([controls(&key())]))];
    Ok([few(title::NONE, vec![]), few(title::ALL, all)].map(|variant| Variant { more, ..variant }).into())
}

/// The three controls in the bench build.
pub fn timed(modules: &Modules) -> Variant {
    few(title::TIMED, vec![tidegate(&modules.timed, "timed", &json!([controls(&key())]))])
}

/// The limit without a key in the bench build.
pub fn timed_rate(modules: &Modules) -> Variant {
    let policies = json!([{"name": "all", "rate_limits": rate_limit(&json!([]))}]);
    few(title::TIMED, vec![tidegate(&modules.timed, "timed", &policies)])
}

/// These policies, and requests of so many clients.
///
/// # Errors
/// Tidegate has not been built.
pub fn of_policies(policies: &Value, keys: u32) -> Result<Variant> {
    Ok(Variant { keys, ..few(title::ALL, vec![tidegate(&locate::tidegate_wasm()?, "all", policies)]) })
}

/// The three controls beside others, with a million keys: what a soak is run on.
///
/// # Errors
/// Tidegate has not been built.
pub fn soak() -> Result<Vec<Variant>> {
    let filter = tidegate(&locate::tidegate_wasm()?, "soak", &beside(19, &key()));
    Ok(vec![Variant { keys: MANY, ..few(title::MANY_KEYS, vec![filter]) }])
}

/// Writes the request of one client, with some headers more than usual. All have the same length, whoever sends them.
pub fn write_request(into: &mut Vec<u8>, key: u32, more: More) {
    use std::io::Write;
    // A Vec takes whatever is written.
    let _ = write!(
        into,
        "GET /v1/orders/42?page=2 HTTP/1.1\r\nhost: shop.example.com\r\nuser-agent: bench/1.0\r\naccept: */*\r\n\
         accept-encoding: gzip\r\nx-api-key: key-{key:07}\r\nx-request-source: bench\r\n"
    );
    for header in 0..more.count {
        let _ = write!(into, "x-more-{header:03}: {:v<1$}\r\n", "", more.bytes);
    }
    into.extend_from_slice(b"\r\n");
}
