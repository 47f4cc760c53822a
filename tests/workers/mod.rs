//! Workers of a simulated proxy: engines that share a memory, with time that stands still until told.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use tidegate::config::{self, Config};
use tidegate::control::Random;
use tidegate::engine::stats::{Kind, MetricId, Metrics, Registry};
use tidegate::engine::{Decision, Engine, Env, LocalReply, Permit, SplitMix64, Stream};
use tidegate::matching::{HeaderMap, Request};
use tidegate::share::Memory;

use super::requests::{Proxy, encode};

pub const SECOND: u64 = 1_000_000_000;

/// What all workers of the proxy write their stats to.
#[derive(Default)]
struct Scrape {
    values: RefCell<HashMap<String, i64>>,
    names: RefCell<Vec<String>>,
}

impl Metrics for Scrape {
    fn define(&self, _: Kind, name: &str) -> Option<MetricId> {
        let mut names = self.names.borrow_mut();
        names.push(name.to_owned());
        Some(MetricId(u32::try_from(names.len() - 1).unwrap()))
    }

    fn add(&self, id: MetricId, delta: i64) {
        *self.values.borrow_mut().entry(self.names.borrow()[id.0 as usize].clone()).or_default() += delta;
    }

    fn record(&self, id: MetricId, value: u64) {
        let name = self.names.borrow()[id.0 as usize].clone();
        self.values.borrow_mut().insert(name, i64::try_from(value).unwrap());
    }
}

/// Another host may define each worker's metrics anew: so does this.
struct Worker {
    own: Memory,
    stats: Registry,
    random: SplitMix64,
    engine: Engine,
}

type Question = fn(&mut Engine, &Request<'_>, &mut Permit, &mut Env<'_>) -> Decision;

/// A proxy with several workers.
pub struct Workers {
    pub now: u64,
    /// Whether there is room for requests that wait.
    pub may_wait: bool,
    pub share: Memory,
    /// What responses were asked for since this was last set to 0. In life each is a host call.
    pub asked: u32,
    scrape: Scrape,
    workers: Vec<Worker>,
}

/// A request that was admitted, or is held.
#[derive(Debug)]
pub struct Admitted {
    worker: usize,
    permit: Permit,
    /// The refusal that was not carried out.
    pub shadow: Option<String>,
    /// Until when it is held.
    pub until: Option<u64>,
    raw: Vec<u8>,
}

impl Workers {
    /// So many workers with this configuration.
    pub fn new(count: usize, configuration: &str) -> Self {
        let config = read(configuration);
        let (share, scrape) = (Memory::new(), Scrape::default());
        // Long after the host's clock began, as in life.
        let now = 1_000 * SECOND;
        let mut proxy = Self { now, may_wait: true, share, asked: 0, scrape, workers: Vec::new() };
        for seed in 0..count {
            let mut parts = (Memory::new(), Registry::default(), SplitMix64::new(seed as u64));
            let engine = {
                let mut env = env(proxy.now, &proxy.share, &proxy.scrape, &mut parts);
                Engine::new(&config, None, "test", &mut env).expect("a memory shares everything")
            };
            let (own, stats, random) = parts;
            proxy.workers.push(Worker { own, stats, random, engine });
        }
        proxy
    }

    /// All workers get another configuration.
    pub fn reconfigure(&mut self, configuration: &str) {
        let config = read(configuration);
        self.each(|engine, env| {
            let next = Engine::new(&config, Some(engine), "test", env).expect("a memory shares everything");
            *engine = next;
        });
    }

    /// Time passes.
    pub fn advance(&mut self, nanos: u64) {
        self.now += nanos;
    }

    /// Every worker's timer goes off.
    pub fn tick(&mut self) {
        self.each(|engine, env| engine.tick(env));
    }

    fn each(&mut self, act: impl Fn(&mut Engine, &mut Env<'_>)) {
        for worker in 0..self.workers.len() {
            self.with(worker, &act);
        }
    }

    fn with<T>(&mut self, worker: usize, act: impl FnOnce(&mut Engine, &mut Env<'_>) -> T) -> T {
        let Worker { own, stats, random, engine } = &mut self.workers[worker];
        let (now, may_wait, share, metrics) = (self.now, self.may_wait, &self.share, &self.scrape);
        let mut env = Env { now, share, own, random, metrics, stats, may_wait, hash_key: (1, 2) };
        act(engine, &mut env)
    }

    /// A request at one worker, through the proxy's cluster `backend`.
    pub fn ask(&mut self, worker: usize, headers: &[(&str, &str)]) -> Result<Admitted, (LocalReply, String)> {
        let mut all = vec![(":method", "GET"), (":path", "/"), (":authority", "example.com"), (":scheme", "http")];
        all.retain(|(name, _)| headers.iter().all(|(given, _)| given != name));
        all.extend(headers);
        let raw = encode(&all);
        self.put(Admitted { worker, permit: Permit::default(), shadow: None, until: None, raw }, Engine::decide)
    }

    /// A request that is held goes on.
    pub fn resume(&mut self, held: Admitted) -> Result<Admitted, (LocalReply, String)> {
        self.put(held, Engine::resume)
    }

    fn put(&mut self, mut asked: Admitted, question: Question) -> Result<Admitted, (LocalReply, String)> {
        let Admitted { worker, permit, raw, .. } = &mut asked;
        let proxy = Proxy::new(&[("xds\0cluster_name", "backend")]);
        let request = Request::new(HeaderMap::parse(raw).unwrap(), &proxy);
        let decision = self.with(*worker, |engine, env| question(engine, &request, permit, env));
        match decision {
            Decision::Unmatched => Ok(Admitted { shadow: None, until: None, ..asked }),
            Decision::Admitted { shadow } => Ok(Admitted { shadow, until: None, ..asked }),
            Decision::Wait { until } => Ok(Admitted { until: Some(until), ..asked }),
            Decision::Rejected { reply, line } => {
                assert!(permit.is_empty(), "a rejected request holds nothing");
                Err((reply, line))
            }
        }
    }

    /// A request that is answered with this at once; the decision as the access log has it.
    pub fn serve(&mut self, worker: usize, headers: &[(&str, &str)], answer: &Answer) -> String {
        match self.ask(worker, headers) {
            Ok(admitted) => {
                let line = admitted.shadow.clone().unwrap_or_else(|| "admitted".to_owned());
                self.answer(admitted, answer);
                line
            }
            Err((_, line)) => line,
        }
    }

    /// The upstream answers an admitted request; the headers that were added for the client.
    pub fn answer(&mut self, mut admitted: Admitted, answer: &Answer) -> Vec<String> {
        let stream = Response { answer, added: RefCell::default(), asked: Cell::default() };
        self.with(admitted.worker, |engine, env| {
            if !answer.headers.is_empty() {
                engine.response_headers(&stream, answer.trailers.is_empty(), &mut admitted.permit, env);
            }
            if !answer.trailers.is_empty() {
                engine.response_trailers(&stream, &mut admitted.permit);
            }
            engine.end(&stream, &mut admitted.permit, env);
            assert!(admitted.permit.is_empty());
            // Hosts tell of a stream's end up to three times.
            engine.end(&stream, &mut admitted.permit, env);
        });
        self.asked += stream.asked.get();
        stream.added.into_inner()
    }

    /// The upstream sends the headers of an answer whose body goes on; the answer comes later.
    pub fn start_answer(&mut self, admitted: &mut Admitted, answer: &Answer) {
        let stream = Response { answer, added: RefCell::default(), asked: Cell::default() };
        self.with(admitted.worker, |engine, env| engine.response_headers(&stream, false, &mut admitted.permit, env));
    }

    /// A stat by its full name; 0 if nobody has touched it.
    pub fn stat(&self, name: &str) -> i64 {
        self.scrape.values.borrow().get(name).copied().unwrap_or(0)
    }
}

fn read(configuration: &str) -> Config {
    config::read(configuration.as_bytes()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn env<'e>(
    now: u64,
    share: &'e Memory,
    metrics: &'e Scrape,
    (own, stats, random): &'e mut (Memory, Registry, SplitMix64),
) -> Env<'e> {
    Env { now, share, own, random: random as &mut dyn Random, metrics, stats, may_wait: true, hash_key: (1, 2) }
}

/// How the upstream, or the proxy in its place, answers.
#[derive(Default)]
pub struct Answer {
    headers: Vec<(&'static str, &'static str)>,
    trailers: Vec<(&'static str, &'static str)>,
    flags: u64,
    local: bool,
}

impl Answer {
    /// The upstream answers with this status.
    pub fn status(status: &'static str) -> Self {
        Self { headers: vec![(":status", status)], ..Self::default() }
    }

    /// No answer: these flags tell why.
    pub fn none(flags: u64) -> Self {
        Self { flags, ..Self::default() }
    }

    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers.push((name, value));
        self
    }

    /// Written by the proxy or another filter.
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }
}

struct Response<'a> {
    answer: &'a Answer,
    added: RefCell<Vec<String>>,
    asked: Cell<u32>,
}

impl Response<'_> {
    fn count(&self) {
        self.asked.set(self.asked.get() + 1);
    }
}

impl Stream for Response<'_> {
    fn response_header(&self, name: &str) -> Option<&[u8]> {
        self.count();
        find(&self.answer.headers, name)
    }

    fn response_trailer(&self, name: &str) -> Option<&[u8]> {
        self.count();
        find(&self.answer.trailers, name)
    }

    fn add_response_header(&self, name: &str, value: &str) {
        self.added.borrow_mut().push(format!("{name}: {value}"));
    }

    fn flags(&self) -> u64 {
        self.count();
        self.answer.flags
    }

    fn details(&self) -> Option<&[u8]> {
        self.count();
        Some(if self.answer.local || self.answer.flags != 0 { b"another_had_the_last_word" } else { b"via_upstream" })
    }
}

fn find(fields: &[(&'static str, &'static str)], name: &str) -> Option<&'static [u8]> {
    fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_bytes())
}
