//! One worker that can be asked again and again without allocating: requests as the proxy hands them over, answers, and
//! a count of what each costs the host.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing benchmark or test may panic")]
#![allow(dead_code, reason = "not every test or benchmark uses all of it")]

use std::cell::Cell as Count;

use serde_json::{Value, json};
use tidegate::config;
use tidegate::engine::stats::{Kind, MetricId, Metrics, Registry};
use tidegate::engine::{Decision, Engine, Env, Permit, SplitMix64, Stream};
use tidegate::matching::{Facts, HeaderMap, Request};
use tidegate::share::{Cell, Memory, Pages, ShareError, SharedState, Version};

/// Calls to the host for one request. Those that return bytes cost ten times as much as the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls that return bytes.
    pub bytes: usize,
    /// All others.
    pub plain: usize,
}

/// Counts for one worker, on whose behalf the fakes below are asked.
#[derive(Default)]
struct Host {
    share: Memory,
    bytes: Count<usize>,
    plain: Count<usize>,
    stores: Count<usize>,
    metrics: Count<u32>,
    answer: Vec<u8>,
}

impl Host {
    fn with_bytes(&self) {
        self.bytes.set(self.bytes.get() + 1);
    }

    fn plainly(&self) {
        self.plain.set(self.plain.get() + 1);
    }
}

impl SharedState for Host {
    fn cell(&self, name: &str) -> Result<Cell, ShareError> {
        self.share.cell(name)
    }

    fn add(&self, cell: Cell, delta: i64) {
        self.plainly();
        self.share.add(cell, delta);
    }

    fn read(&self, cell: Cell) -> i64 {
        self.plainly();
        self.share.read(cell)
    }

    fn pages(&self, name: &str, count: u32, initial: &[u8]) -> Result<Pages, ShareError> {
        self.share.pages(name, count, initial)
    }

    fn load(&self, pages: Pages, index: u32, into: &mut [u8]) -> Result<Version, ShareError> {
        self.with_bytes();
        self.share.load(pages, index, into)
    }

    fn store(&self, pages: Pages, index: u32, bytes: &[u8], expected: Version) -> Result<(), ShareError> {
        self.plainly();
        self.stores.set(self.stores.get() + 1);
        self.share.store(pages, index, bytes, expected)
    }
}

impl Metrics for Host {
    fn define(&self, _: Kind, _: &str) -> Option<MetricId> {
        self.metrics.set(self.metrics.get() + 1);
        Some(MetricId(self.metrics.get()))
    }

    fn add(&self, _: MetricId, _: i64) {
        self.plainly();
    }

    fn record(&self, _: MetricId, _: u64) {
        self.plainly();
    }
}

impl<'a> Facts<'a> for Host {
    fn property(&self, _: &[u8]) -> Option<&'a [u8]> {
        self.with_bytes();
        Some(b"backend")
    }
}

/// A good answer, with a body unless it is told otherwise.
impl Stream for Host {
    fn response_headers(&self) -> Option<HeaderMap<'_>> {
        self.with_bytes();
        HeaderMap::parse(&self.answer)
    }

    fn response_trailer(&self, _: &str) -> Option<&[u8]> {
        self.plainly();
        None
    }

    fn add_response_header(&self, _: &str, _: &str) {
        self.plainly();
    }

    fn replace_response_header(&self, _: &str, _: &str) {
        self.plainly();
    }

    fn flags(&self) -> u64 {
        self.with_bytes();
        0
    }

    fn details(&self) -> Option<&[u8]> {
        self.with_bytes();
        Some(b"via_upstream")
    }
}

/// A worker.
pub struct Worker {
    pub now: u64,
    host: Host,
    own: Memory,
    stats: Registry,
    random: SplitMix64,
    engine: Engine,
    permit: Permit,
    /// Whether answers have a body.
    pub body: bool,
}

impl Worker {
    /// With these policies.
    pub fn new(policies: &Value) -> Self {
        let text = json!({"policies": policies}).to_string();
        let config = config::read(text.as_bytes()).unwrap();
        let answer = super::requests::encode(&[(":status", "200"), ("x-envoy-upstream-service-time", "3")]);
        let host = Host { answer, ..Host::default() };
        let (now, own) = (1_000_000_000_000, Memory::new());
        let (stats, mut random) = (Registry::default(), SplitMix64::new(1));
        let mut env = env(now, &host, &own, &mut random, &stats);
        let engine = Engine::new(&config, &[], "test", &mut env).unwrap();
        Self { now, host, own, stats, random, engine, permit: Permit::default(), body: true }
    }

    /// How many pages have been stored, over all requests.
    pub fn stores(&self) -> usize {
        self.host.stores.get()
    }

    /// What its concurrency limits take at most, by their bound.
    pub fn bulkhead_bytes(&self) -> usize {
        usize::try_from(self.engine.bulkhead_bytes()).unwrap()
    }

    /// Nobody takes the turns that have come, and time goes by.
    pub fn idle(&mut self) {
        let mut env = env(self.now, &self.host, &self.own, &mut self.random, &self.stats);
        while let Some(woken) = self.engine.wake(&mut env) {
            self.engine.forgo(woken, &mut env);
        }
        self.engine.tick(&mut env);
    }

    /// A request that stays in flight.
    pub fn begin(&mut self, raw: &[u8]) -> Permit {
        let (permit, decision) = self.decide(raw);
        assert!(matches!(decision, Decision::Admitted { .. }), "{decision:?}");
        permit
    }

    /// A request that waits in a queue.
    pub fn waits(&mut self, raw: &[u8]) -> Permit {
        let (permit, decision) = self.decide(raw);
        assert_eq!(decision, Decision::Queued);
        permit
    }

    fn decide(&mut self, raw: &[u8]) -> (Permit, Decision) {
        let mut permit = Permit::default();
        let mut env = env(self.now, &self.host, &self.own, &mut self.random, &self.stats);
        let request = Request::new(HeaderMap::parse(raw).unwrap(), &self.host);
        let decision = self.engine.decide(&request, &mut permit, &mut env);
        (permit, decision)
    }

    /// A request and its whole life: whether it was admitted, and what it cost the host beyond the clock.
    pub fn serve(&mut self, raw: &[u8]) -> (bool, Calls) {
        let host = &self.host;
        host.bytes.set(0);
        host.plain.set(0);
        let mut env = env(self.now, host, &self.own, &mut self.random, &self.stats);
        // All headers come in one call.
        host.with_bytes();
        let request = Request::new(HeaderMap::parse(raw).unwrap(), host);
        let decision = self.engine.decide(&request, &mut self.permit, &mut env);
        if !self.permit.is_empty() {
            self.engine.response_headers(host, !self.body, &mut self.permit, &mut env);
            self.engine.end(host, &mut self.permit, &mut env);
        }
        let calls = Calls { bytes: host.bytes.get(), plain: host.plain.get() };
        (!matches!(decision, Decision::Rejected { .. }), calls)
    }
}

fn env<'e>(now: u64, host: &'e Host, own: &'e Memory, random: &'e mut SplitMix64, stats: &'e Registry) -> Env<'e> {
    Env { now, share: host, own, random, metrics: host, stats, hash_key: (1, 2), may_wait: true }
}

/// A request of one client, as the proxy hands it over.
pub fn request(client: u32) -> Vec<u8> {
    let key = format!("key-{client:07}");
    super::requests::encode(&[
        (":authority", "shop.example.com"),
        (":path", "/v1/orders/42?page=2"),
        (":method", "GET"),
        (":scheme", "https"),
        ("user-agent", "bench/1.0"),
        ("accept", "*/*"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "123e4567-e89b-12d3-a456-426614174000"),
        ("x-api-key", &key),
    ])
}

/// A keyed rate limit, a circuit breaker and a concurrency limit in one policy.
pub fn all_three() -> Value {
    json!({
        "name": "all",
        "rate_limits": [keyed()],
        "circuit_breaker": {},
        "load_shedding": {"limit": {"algorithm": "fixed", "limit": 1000}}
    })
}

/// A rate limit per client that is never reached.
pub fn keyed() -> Value {
    json!({"name": "clients", "rate": "100000/s", "key": [{"header": "x-api-key"}], "max_keys": 1_000_000})
}

/// Policies for other paths than the request's, with one limit each.
pub fn others(count: usize) -> Vec<Value> {
    let other = |n: usize| {
        let path = json!({"prefix": format!("/service-{n}/")});
        json!({"name": format!("other-{n}"), "match": {"path": path}, "rate_limits": [{"name": "all", "rate": "100/s"}]})
    };
    (0..count).map(other).collect()
}
