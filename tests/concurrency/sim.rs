//! A proxy with several workers before an upstream with so many slots, as discrete events. Deterministic for a seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use tidegate::control::concurrency::{Algorithm, ConcurrencyLimits, Ended, Place, Settings, Share, SlotId};
use tidegate::control::{Nanos, Random};
use tidegate::engine::SplitMix64;
use tidegate::share::Memory;

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MS;

/// How service times scatter around their mean.
#[derive(Debug, Clone, Copy)]
pub enum Scatter {
    None,
    Exponential,
    /// One in ten takes 5.5 times as long as each of the others.
    Bimodal,
}

/// What changes at a time.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// Open loop: requests a second, at random.
    Rate(f64),
    /// Closed loop: so many clients, each of which asks again when it is answered.
    Clients(u32),
    /// So many requests at once, again after so long; 0 is none.
    Bursts(u32, Nanos),
    /// Requests the upstream works on at once.
    Slots(usize),
    /// Mean service time.
    Service(Nanos),
    /// So much work of others, who have gone, comes to the upstream's queue at once.
    Backlog(u32),
    /// So many streams are open, each of which holds a place, and none of the upstream's slots, until there are to be fewer:
    /// the oldest end first, well. Those that find no place do not come.
    Streams(usize),
}

/// Who stands still for a moment, as on a machine that others use too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The proxy's workers, each by itself.
    Workers,
    /// The upstream: nothing that is due is done, and nothing begins.
    Upstream,
    /// The clients: what was to be sent is sent all at once afterwards.
    Clients,
}

/// Stalls at random.
#[derive(Debug, Clone)]
pub struct Noise {
    pub whom: Vec<Whom>,
    pub from: Nanos,
    pub until: Nanos,
    /// Mean time from the end of one to the begin of the next.
    pub every: Nanos,
    /// How long they last, anything between.
    pub lasting: (Nanos, Nanos),
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub algorithm: Algorithm,
    pub workers: usize,
    pub seed: u64,
    pub duration: Nanos,
    pub scatter: Scatter,
    /// Share of requests that are critical; the others have `bulk_share` of the limit.
    pub critical: f64,
    pub bulk_share: Share,
    /// Share of requests whose client leaves before they are answered.
    pub cancelled: f64,
    /// How long clients wait at most; 0 is for ever. The upstream serves them all the same.
    pub patience: Nanos,
    /// Share of requests that fail at once.
    pub failing: f64,
    pub changes: Vec<(Nanos, Change)>,
    pub noise: Vec<Noise>,
    /// Answers leave at multiples of this only, as with an upstream whose timers are coarse; 0 is at any time.
    pub quantum: Nanos,
}

impl Scenario {
    /// 10 slots of 20 ms and two workers.
    pub fn new(algorithm: Algorithm, seconds: u64, changes: &[(Nanos, Change)]) -> Self {
        Self {
            algorithm,
            workers: 2,
            seed: 1,
            duration: seconds * SECOND,
            scatter: Scatter::None,
            critical: 0.0,
            bulk_share: Share::ALL,
            cancelled: 0.0,
            patience: 0,
            failing: 0.0,
            changes: changes.to_vec(),
            noise: Vec::new(),
            quantum: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Rejected,
    Answered(Nanos),
    Cancelled,
    Failed,
}

#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub at: Nanos,
    pub critical: bool,
    pub fate: Option<Fate>,
}

struct Flying {
    place: Option<Place>,
    /// When it had its place.
    since: Nanos,
    worker: usize,
    client: Option<u32>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Change(usize),
    Arrive(u32),
    Ask(u32),
    Burst(u32),
    Enter(usize),
    /// Of a request, or of others' work.
    Finish(Option<usize>),
    Hear(usize),
    Leave(usize),
    Fail(usize),
    Tick(usize),
    Stall(usize),
    /// The upstream may have stood still with free slots.
    GoOn,
}

pub struct Run {
    pub requests: Vec<Request>,
    pub inflight_at_end: i64,
}

struct Sim {
    scenario: Scenario,
    now: Nanos,
    share: Memory,
    random: SplitMix64,
    workers: Vec<ConcurrencyLimits>,
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    sequence: u64,
    requests: Vec<Request>,
    flying: Vec<Flying>,
    /// What waits for a slot: requests, and work of others.
    waiting: VecDeque<Option<usize>>,
    busy: usize,
    slots: usize,
    /// Their places, and since when they are held.
    streams: VecDeque<(Place, Nanos)>,
    service: Nanos,
    rate: f64,
    rates: u32,
    clients: u32,
    bursts: (u32, Nanos),
    burst: u32,
    /// Until when they stand still.
    workers_stand: Vec<Nanos>,
    upstream_stands: Nanos,
    clients_stand: Nanos,
    /// Of its own, so that noise moves nothing else.
    noise: SplitMix64,
}

/// Long after the host's clock began, as in life.
const START: Nanos = 1_000 * SECOND;

pub fn run(scenario: &Scenario) -> Run {
    let share = Memory::new();
    let settings =
        Settings { algorithm: scenario.algorithm, max_keys: 0, measure: false, levels: scenario.critical > 0.0 };
    let open = |_| ConcurrencyLimits::new(settings, &share, "sim", "inflight").unwrap();
    let workers = (0..scenario.workers).map(open).collect();
    let mut sim = Sim {
        scenario: scenario.clone(),
        now: START,
        share: share.clone(),
        random: SplitMix64::new(scenario.seed),
        workers,
        events: BinaryHeap::new(),
        sequence: 0,
        requests: Vec::new(),
        flying: Vec::new(),
        waiting: VecDeque::new(),
        busy: 0,
        slots: 10,
        streams: VecDeque::new(),
        service: 20 * MS,
        rate: 0.0,
        rates: 0,
        clients: 0,
        bursts: (0, SECOND),
        burst: 0,
        workers_stand: vec![0; scenario.workers],
        upstream_stands: 0,
        clients_stand: 0,
        noise: SplitMix64::new(scenario.seed.wrapping_mul(7_919)),
    };
    for (at, noise) in scenario.noise.iter().enumerate() {
        sim.at(START + noise.from, Event::Stall(at));
    }
    for (at, (time, _)) in scenario.changes.iter().enumerate() {
        sim.at(START + time, Event::Change(at));
    }
    for worker in 0..scenario.workers {
        sim.at(START + worker as u64 * MS, Event::Tick(worker));
    }
    sim.run()
}

impl Sim {
    fn at(&mut self, time: Nanos, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.uniform() < share
    }

    fn uniform(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> Nanos {
        (-mean * (1.0 - self.uniform()).ln()) as Nanos
    }

    fn run(mut self) -> Run {
        let end = START + self.scenario.duration;
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            let over = time >= end;
            self.now = time;
            let stands = self.stands(&event);
            if stands > time {
                self.at(stands, event);
                continue;
            }
            match event {
                Event::Finish(id) => self.finish(id),
                Event::Hear(id) => self.hear(id),
                Event::Leave(id) => self.settle(id, Fate::Cancelled, Ended::Left),
                Event::Fail(id) => self.settle(id, Fate::Failed, Ended::Failure),
                // The load ends, what is in flight does not.
                _ if over => {}
                Event::Change(at) => self.change(at),
                Event::Stall(at) => self.stall(at),
                Event::GoOn => self.serve(),
                Event::Enter(id) => self.enter(id),
                Event::Arrive(rates) if rates == self.rates && self.rate > 0.0 => {
                    self.ask(None);
                    self.next_arrival();
                }
                Event::Ask(client) if client < self.clients => self.ask(Some(client)),
                Event::Burst(burst) if burst == self.burst => {
                    for _ in 0..self.bursts.0 {
                        self.ask(None);
                    }
                    self.at(self.now + self.bursts.1, Event::Burst(burst));
                }
                Event::Tick(worker) => {
                    self.workers[worker].tick(&self.share, self.now, &mut self.random);
                    self.at(self.now + 100 * MS, Event::Tick(worker));
                }
                Event::Arrive(_) | Event::Ask(_) | Event::Burst(_) => {}
            }
        }
        let inflight_at_end = self.workers[0].inflight(&self.share);
        Run { requests: self.requests, inflight_at_end }
    }

    /// Until when whoever has to do with this stands still.
    fn stands(&self, event: &Event) -> Nanos {
        match event {
            Event::Enter(id) => self.workers_stand[self.flying[*id].worker].max(self.clients_stand),
            Event::Hear(id) | Event::Leave(id) | Event::Fail(id) => self.workers_stand[self.flying[*id].worker],
            Event::Tick(worker) => self.workers_stand[*worker],
            Event::Finish(_) => self.upstream_stands,
            _ => 0,
        }
    }

    fn stall(&mut self, at: usize) {
        let Noise { whom, until, every, lasting: (least, most), .. } = self.scenario.noise[at].clone();
        let mut draw = |below: u64| self.noise.next_u64() % below.max(1);
        let end = (self.now + least + draw(most - least)).min(START + until);
        let who = whom[draw(whom.len() as u64) as usize];
        let worker = draw(self.workers_stand.len() as u64) as usize;
        // Exponential, from a uniform in (0, 1].
        let uniform = (draw(1 << 53) + 1) as f64 / (1u64 << 53) as f64;
        let next = end + (-(every as f64) * uniform.ln()) as Nanos;
        match who {
            Whom::Workers => self.workers_stand[worker] = end.max(self.workers_stand[worker]),
            Whom::Upstream => {
                self.upstream_stands = end.max(self.upstream_stands);
                self.at(end, Event::GoOn);
            }
            Whom::Clients => self.clients_stand = end.max(self.clients_stand),
        }
        if next < START + until {
            self.at(next, Event::Stall(at));
        }
    }

    fn change(&mut self, at: usize) {
        match self.scenario.changes[at].1 {
            Change::Rate(rate) => {
                self.rate = rate;
                self.rates += 1;
                self.next_arrival();
            }
            Change::Clients(clients) => {
                let before = std::mem::replace(&mut self.clients, clients);
                for client in before..clients {
                    self.at(self.now, Event::Ask(client));
                }
            }
            Change::Bursts(size, every) => {
                self.bursts = (size, every);
                self.burst += 1;
                self.at(self.now, Event::Burst(self.burst));
            }
            Change::Slots(slots) => {
                self.slots = slots;
                self.serve();
            }
            Change::Service(service) => self.service = service,
            Change::Backlog(requests) => {
                for _ in 0..requests {
                    self.waiting.push_back(None);
                }
                self.serve();
            }
            Change::Streams(streams) => self.stream(streams),
        }
    }

    fn stream(&mut self, streams: usize) {
        let worker = &mut self.workers[0];
        while self.streams.len() < streams {
            match worker.acquire(&self.share, SlotId::ONLY, Share::ALL, self.now, &mut self.random) {
                Some(place) => self.streams.push_back((place, self.now)),
                None => break,
            }
        }
        while self.streams.len() > streams
            && let Some((place, since)) = self.streams.pop_front()
        {
            worker.release(&self.share, place, Ended::Success, self.now - since, self.now, &mut self.random);
        }
    }

    fn next_arrival(&mut self) {
        if self.rate > 0.0 {
            let gap = self.exponential(1e9 / self.rate);
            self.at(self.now + gap, Event::Arrive(self.rates));
        }
    }

    fn ask(&mut self, client: Option<u32>) {
        let critical = self.chance(self.scenario.critical);
        let worker = self.random.next_u64() as usize % self.workers.len();
        let id = self.requests.len();
        self.requests.push(Request { at: self.now - START, critical, fate: None });
        self.flying.push(Flying { place: None, since: self.now, worker, client });
        let stands = self.stands(&Event::Enter(id));
        if stands > self.now {
            self.at(stands, Event::Enter(id));
        } else {
            self.enter(id);
        }
    }

    fn enter(&mut self, id: usize) {
        let Flying { worker, client, .. } = self.flying[id];
        let level = if self.requests[id].critical { Share::ALL } else { self.scenario.bulk_share };
        let place = self.workers[worker].acquire(&self.share, SlotId::ONLY, level, self.now, &mut self.random);
        self.flying[id].since = self.now;
        let admitted = place.is_some();
        self.flying[id].place = place;
        if !admitted {
            self.requests[id].fate = Some(Fate::Rejected);
            if let Some(client) = client {
                self.at(self.now + 20 * MS, Event::Ask(client));
            }
        } else if self.chance(self.scenario.failing) {
            self.at(self.now + MS / 2, Event::Fail(id));
        } else {
            if self.chance(self.scenario.cancelled) {
                let after = self.exponential(10e6);
                self.at(self.now + after, Event::Leave(id));
            }
            if self.scenario.patience > 0 {
                self.at(self.now + self.scenario.patience, Event::Leave(id));
            }
            self.waiting.push_back(Some(id));
            self.serve();
        }
    }

    fn serve(&mut self) {
        while self.busy < self.slots && self.upstream_stands <= self.now {
            let Some(id) = self.waiting.pop_front() else { return };
            if id.is_some_and(|id| self.requests[id].fate.is_some()) && self.scenario.patience == 0 {
                continue;
            }
            self.busy += 1;
            let mean = self.service as f64;
            let takes = match self.scenario.scatter {
                Scatter::None => self.service,
                Scatter::Exponential => self.exponential(mean),
                Scatter::Bimodal => (if self.chance(0.1) { mean * 3.8 } else { mean * 0.69 }) as Nanos,
            };
            let end = (self.now + takes).next_multiple_of(self.scenario.quantum.max(1));
            self.at(end, Event::Finish(id));
        }
    }

    fn finish(&mut self, id: Option<usize>) {
        self.busy -= 1;
        if let Some(id) = id {
            let hears = Event::Hear(id);
            let stands = self.stands(&hears);
            if stands > self.now {
                self.at(stands, hears);
            } else {
                self.hear(id);
            }
        }
        self.serve();
    }

    /// The worker hears of the answer.
    fn hear(&mut self, id: usize) {
        let took = self.now - START - self.requests[id].at;
        self.settle(id, Fate::Answered(took), Ended::Success);
    }

    fn settle(&mut self, id: usize, fate: Fate, ended: Ended) {
        let Some(place) = self.flying[id].place.take() else { return };
        let took = self.now - self.flying[id].since;
        self.requests[id].fate = Some(fate);
        let worker = self.flying[id].worker;
        self.workers[worker].release(&self.share, place, ended, took, self.now, &mut self.random);
        if let Some(client) = self.flying[id].client {
            self.at(self.now, Event::Ask(client));
        }
    }
}

impl Run {
    fn between(&self, from: Nanos, to: Nanos) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(move |request| (from..to).contains(&request.at))
    }

    /// Requests a second, of those that came in this time, answered within 250 ms.
    pub fn goodput(&self, from: Nanos, to: Nanos) -> f64 {
        let good = self.between(from, to).filter(|request| is_good(request)).count();
        good as f64 * 1e9 / (to - from) as f64
    }

    /// Of the critical requests of this time, the share answered within 250 ms.
    pub fn critical_goodput(&self, from: Nanos, to: Nanos) -> f64 {
        let critical: Vec<_> = self.between(from, to).filter(|request| request.critical).collect();
        critical.iter().filter(|request| is_good(request)).count() as f64 / critical.len() as f64
    }

    /// A quantile of the latency of those answered, in milliseconds.
    pub fn latency(&self, from: Nanos, to: Nanos, quantile: f64) -> f64 {
        let answered = |request: &Request| match request.fate {
            Some(Fate::Answered(took)) => Some(took),
            _ => None,
        };
        let mut all: Vec<_> = self.between(from, to).filter_map(answered).collect();
        all.sort_unstable();
        let at = ((all.len() as f64 * quantile) as usize).min(all.len().saturating_sub(1));
        all.get(at).map_or(0.0, |took| *took as f64 / 1e6)
    }

    /// Requests rejected in this time.
    pub fn rejected(&self, from: Nanos, to: Nanos) -> usize {
        self.between(from, to).filter(|request| request.fate == Some(Fate::Rejected)).count()
    }

    /// Requests that came in this time.
    pub fn asked(&self, from: Nanos, to: Nanos) -> usize {
        self.between(from, to).count()
    }
}

fn is_good(request: &Request) -> bool {
    matches!(request.fate, Some(Fate::Answered(took)) if took <= 250 * MS)
}
