//! Workers of a simulated proxy: engines that share a memory, with time that stands still until told.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use tidegate::config::{self, Config};
use tidegate::control::Random;
use tidegate::engine::stats::{Kind, MetricId, Metrics, Registry};
use tidegate::engine::{Decision, Engine, Env, LocalReply, Permit, SplitMix64, Stream};
use tidegate::matching::{HeaderMap, Request};
use tidegate::share::{GRACE, Memory, SharedState};

use super::counting::Counting;
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
    /// The last decides; those before serve the requests they decided about to their end.
    engines: Vec<Engine>,
}

type Question = fn(&mut Engine, &Request<'_>, &mut Permit, &mut Env<'_>) -> Decision;

/// A proxy with several workers.
pub struct Workers {
    pub now: u64,
    /// Whether there is room for requests that wait.
    pub may_wait: bool,
    pub hash_key: (u64, u64),
    pub share: Counting,
    /// What responses were asked for since this was last set to 0. In life each is a host call.
    pub asked: u32,
    /// Turns that came in queues.
    pub turns: u32,
    scrape: Scrape,
    workers: Vec<Worker>,
    streams: u32,
}

/// A request that was admitted, or is held.
#[derive(Debug)]
pub struct Admitted {
    pub worker: usize,
    engine: usize,
    stream: u32,
    pub permit: Permit,
    /// The refusal that was not carried out.
    pub shadow: Option<String>,
    /// Until when it is held.
    pub until: Option<u64>,
    /// It waits in a queue.
    pub queued: bool,
    raw: Vec<u8>,
}

impl Admitted {
    /// The number of its stream: they are numbered in the order in which they ask.
    pub fn stream(&self) -> u32 {
        self.stream
    }

    /// Whether there is anything left for its stream's end.
    pub fn holds_anything(&self) -> bool {
        !self.permit.is_empty()
    }
}

impl Workers {
    /// So many workers with this configuration.
    pub fn new(count: usize, configuration: &str) -> Self {
        let config = read(configuration);
        let (share, scrape) = (Counting::default(), Scrape::default());
        // Long after the host's clock began, as in life.
        let now = 1_000 * SECOND;
        let hash_key = (1, 2);
        let mut proxy =
            Self { now, may_wait: true, hash_key, share, asked: 0, turns: 0, scrape, workers: Vec::new(), streams: 0 };
        for seed in 0..count {
            let mut parts = (Memory::new(), Registry::default(), SplitMix64::new(seed as u64));
            let engine = {
                let mut env = env(proxy.now, &proxy.share, &proxy.scrape, &mut parts);
                Engine::new(&config, &[], "test", &mut env).expect("a memory shares everything")
            };
            let (own, stats, random) = parts;
            proxy.workers.push(Worker { own, stats, random, engines: vec![engine] });
        }
        proxy
    }

    /// All workers get another configuration. What the one before decided about it serves to its end.
    pub fn reconfigure(&mut self, configuration: &str) {
        for worker in 0..self.workers.len() {
            self.reconfigure_one(worker, configuration);
        }
    }

    /// One worker gets another configuration, before or after the others.
    pub fn reconfigure_one(&mut self, worker: usize, configuration: &str) {
        let config = read(configuration);
        self.with_all(worker, |engines, env| {
            let newest_first: Vec<&Engine> = engines.iter().rev().collect();
            let next = Engine::new(&config, &newest_first, "test", env).expect("a memory shares everything");
            engines.push(next);
        });
    }

    /// The last request of one of a worker's engines has ended, counted from the oldest.
    pub fn retire(&mut self, worker: usize, at: usize) {
        self.with_all(worker, |engines, env| {
            let gone = engines.remove(at);
            let newest_first: Vec<&Engine> = engines.iter().rev().collect();
            gone.release_rows(env);
            gone.retire(&newest_first, env);
        });
    }

    /// The same at all workers, so long ago that others may have its places among what workers share.
    pub fn free_places_of(&mut self, at: usize) {
        for worker in 0..self.workers.len() {
            self.retire(worker, at);
        }
        self.advance(GRACE);
        self.tick();
    }

    /// That of the oldest, say because its listener has drained.
    pub fn retire_oldest(&mut self, worker: usize) {
        self.retire(worker, 0);
    }

    /// That of the newest, where the host uses the one before again.
    pub fn retire_newest(&mut self, worker: usize) {
        self.retire(worker, self.workers[worker].engines.len() - 1);
    }

    fn with_all(&mut self, worker: usize, act: impl FnOnce(&mut Vec<Engine>, &mut Env<'_>)) {
        let Worker { own, stats, random, engines } = &mut self.workers[worker];
        let (now, may_wait, share, metrics) = (self.now, self.may_wait, &self.share, &self.scrape);
        let hash_key = self.hash_key;
        act(engines, &mut Env { now, share, own, random, metrics, stats, may_wait, hash_key });
    }

    /// A worker's VM dies, and another takes its place. Its requests are never heard of again.
    pub fn kill(&mut self, worker: usize, configuration: &str) {
        let mut parts = (Memory::new(), Registry::default(), SplitMix64::new(1_000 + u64::from(self.streams)));
        let engine = {
            let mut env = env(self.now, &self.share, &self.scrape, &mut parts);
            Engine::new(&read(configuration), &[], "test", &mut env).expect("a memory shares everything")
        };
        let (own, stats, random) = parts;
        self.workers[worker] = Worker { own, stats, random, engines: vec![engine] };
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
            for engine in 0..self.workers[worker].engines.len() {
                self.with((worker, engine), &act);
            }
        }
    }

    fn with<T>(&mut self, (worker, engine): (usize, usize), act: impl FnOnce(&mut Engine, &mut Env<'_>) -> T) -> T {
        let Worker { own, stats, random, engines } = &mut self.workers[worker];
        let engine = &mut engines[engine];
        let (now, may_wait, share, metrics) = (self.now, self.may_wait, &self.share, &self.scrape);
        let hash_key = self.hash_key;
        let mut env = Env { now, share, own, random, metrics, stats, may_wait, hash_key };
        act(engine, &mut env)
    }

    /// A request at one worker, through the proxy's cluster `backend`.
    pub fn ask(&mut self, worker: usize, headers: &[(&str, &str)]) -> Result<Admitted, (LocalReply, String)> {
        let mut all = vec![(":method", "GET"), (":path", "/"), (":authority", "example.com"), (":scheme", "http")];
        all.retain(|(name, _)| headers.iter().all(|(given, _)| given != name));
        all.extend(headers);
        let raw = encode(&all);
        self.streams += 1;
        let (stream, engine, mut permit) = (self.streams, self.workers[worker].engines.len() - 1, Permit::default());
        permit.of_stream(stream);
        let asked = Admitted { worker, engine, stream, permit, shadow: None, until: None, queued: false, raw };
        self.put(asked, Engine::decide)
    }

    /// Everybody of those that wait whose turn it is at a worker goes on, or is turned away: by their place in the order
    /// in which they were asked.
    pub fn wake(&mut self, worker: usize, waiting: &mut Vec<Admitted>) -> Vec<(u32, Result<Admitted, String>)> {
        let mut gone_on = Vec::new();
        let before = self.turns;
        for engine in 0..self.workers[worker].engines.len() {
            while let Some(woken) = self.with((worker, engine), |engine, env| engine.wake(env)) {
                self.turns += 1;
                assert!(self.turns - before < 1_000, "turns without end");
                let stream = woken.stream();
                let at = waiting.iter().position(|one| one.worker == worker && one.stream == stream);
                let mut one = waiting.swap_remove(at.expect("only those that wait are woken"));
                one.permit.grant(woken).expect("only once");
                match self.resume(one) {
                    Ok(again) if again.queued => waiting.push(again),
                    Ok(admitted) => gone_on.push((stream, Ok(admitted))),
                    Err((_, line)) => gone_on.push((stream, Err(line))),
                }
            }
        }
        gone_on
    }

    /// A request that is held goes on.
    pub fn resume(&mut self, held: Admitted) -> Result<Admitted, (LocalReply, String)> {
        self.put(held, Engine::resume)
    }

    /// The same where the proxy does not give its headers again.
    pub fn resume_unread(&mut self, held: Admitted) -> Result<Admitted, (LocalReply, String)> {
        self.put(held, |engine, _, permit, env| engine.resume_unread(permit, env))
    }

    fn put(&mut self, mut asked: Admitted, question: Question) -> Result<Admitted, (LocalReply, String)> {
        let Admitted { worker, engine, permit, raw, .. } = &mut asked;
        let proxy = Proxy::new(&[("xds\0cluster_name", "backend")]);
        let request = Request::new(HeaderMap::parse(raw).unwrap(), &proxy);
        let decision = self.with((*worker, *engine), |engine, env| question(engine, &request, permit, env));
        match decision {
            Decision::Unmatched => Ok(Admitted { shadow: None, until: None, queued: false, ..asked }),
            Decision::Admitted { shadow } => Ok(Admitted { shadow, until: None, queued: false, ..asked }),
            Decision::Wait { until } => Ok(Admitted { until: Some(until), queued: false, ..asked }),
            Decision::Queued => Ok(Admitted { until: None, queued: true, ..asked }),
            Decision::Rejected { reply, line } => {
                assert!(permit.is_empty(), "a rejected request holds nothing");
                Err((reply, line))
            }
        }
    }

    /// So many more bytes of the body of a request that was admitted; what the access log then has of it, if that changes.
    pub fn receive(&mut self, admitted: &mut Admitted, bytes: usize) -> Result<Option<String>, (LocalReply, String)> {
        if !admitted.permit.body_grew(bytes) {
            return Ok(None);
        }
        let at = (admitted.worker, admitted.engine);
        match self.with(at, |engine, env| engine.cut_off(&mut admitted.permit, env)) {
            Decision::Rejected { reply, line } => Err((reply, line)),
            Decision::Admitted { shadow } => Ok(shadow),
            other => panic!("{other:?}"),
        }
    }

    /// No more of a request's body comes.
    pub fn end_body(&mut self, admitted: &mut Admitted) {
        let at = (admitted.worker, admitted.engine);
        self.with(at, |engine, env| engine.body_ended(&mut admitted.permit, env));
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

    /// The upstream answers an admitted request; the headers of the client's response that tell of rate limits.
    pub fn answer(&mut self, mut admitted: Admitted, answer: &Answer) -> Vec<String> {
        let stream = Response::new(answer);
        self.with((admitted.worker, admitted.engine), |engine, env| {
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
        // What the client gets of these: what the upstream sent and was not replaced, and what was added.
        let replaced = stream.replaced.into_inner();
        let ours = |name: &str| name.contains("ratelimit");
        let kept = answer.headers.iter().filter(|(name, _)| ours(name) && !replaced.iter().any(|one| one == name));
        kept.map(|(name, value)| format!("{name}: {value}")).chain(stream.added.into_inner()).collect()
    }

    /// The upstream sends the headers of an answer whose body goes on; the answer comes later.
    pub fn start_answer(&mut self, admitted: &mut Admitted, answer: &Answer) {
        let stream = Response::new(answer);
        self.with((admitted.worker, admitted.engine), |engine, env| {
            engine.response_headers(&stream, false, &mut admitted.permit, env)
        });
    }

    /// How many internal errors were counted, of any kind.
    pub fn errors(&self) -> i64 {
        let values = self.scrape.values.borrow();
        values.iter().filter(|(name, _)| name.starts_with("tidegate_errors_total")).map(|(_, errors)| errors).sum()
    }

    /// A number the workers share, by the end of its name; the sum, if several end so.
    pub fn number(&self, end: &str) -> i64 {
        let names = self.share.cell_names().into_iter().filter(|name| name.ends_with(end));
        names.map(|name| self.share.memory.read(self.share.memory.cell(&name).unwrap())).sum()
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
    share: &'e Counting,
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

    /// These flags tell why it is as it is.
    pub fn flags(mut self, flags: u64) -> Self {
        self.flags = flags;
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
    headers: Vec<u8>,
    added: RefCell<Vec<String>>,
    replaced: RefCell<Vec<String>>,
    asked: Cell<u32>,
}

impl<'a> Response<'a> {
    fn new(answer: &'a Answer) -> Self {
        let headers = encode(&answer.headers);
        Self { answer, headers, added: RefCell::default(), replaced: RefCell::default(), asked: Cell::default() }
    }

    fn count(&self) {
        self.asked.set(self.asked.get() + 1);
    }
}

impl Stream for Response<'_> {
    fn response_headers(&self) -> Option<HeaderMap<'_>> {
        self.count();
        HeaderMap::parse(&self.headers)
    }

    fn response_trailer(&self, name: &str) -> Option<&[u8]> {
        self.count();
        find(&self.answer.trailers, name)
    }

    fn add_response_header(&self, name: &str, value: &str) {
        self.added.borrow_mut().push(format!("{name}: {value}"));
    }

    fn replace_response_header(&self, name: &str, value: &str) {
        self.replaced.borrow_mut().push(name.to_owned());
        self.add_response_header(name, value);
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
