//! Workers that share what a proxy's workers share, and one key's breaker on each of them.

use tidegate::control::circuit_breaker::{
    CircuitBreakers, Denied, Outcome, Permit, Settings, SlotId, State, Transition, TripReason, Window,
};
use tidegate::control::{Nanos, Random};
use tidegate::share::Memory;

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MS;
pub const KEY: u64 = 0xfeed;
pub const FAILURE: Outcome = Outcome::Failure { retry_after: None };

/// splitmix64: small, seedable, the same everywhere.
#[derive(Debug, Clone)]
pub struct SplitMix(pub u64);

impl Random for SplitMix {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl SplitMix {
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % bound as u64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// Settings whose every signal is off but the one a test turns on; base open time 1 s, one probe.
pub fn quiet() -> Settings {
    Settings {
        failure_rate_threshold: 0,
        minimum_calls: 1,
        open_duration: SECOND,
        probes: 1,
        probe_timeout: 10 * SECOND,
        ..Settings::default()
    }
}

/// Trips at so many failures in a row.
pub fn consecutive(failures: u32) -> Settings {
    Settings { consecutive_failures: failures, ..quiet() }
}

/// Trips at half of at least so many calls.
pub fn half_of(minimum_calls: u32, window: Window) -> Settings {
    Settings { failure_rate_threshold: 5_000, minimum_calls, window, ..quiet() }
}

pub struct Fleet {
    pub share: Memory,
    pub now: Nanos,
    pub rng: SplitMix,
    pub transitions: Vec<Transition>,
    settings: Settings,
    workers: Vec<(CircuitBreakers, SlotId)>,
}

impl Fleet {
    pub fn new(settings: Settings, workers: usize) -> Self {
        Self::seeded(settings, workers, 1)
    }

    pub fn seeded(settings: Settings, workers: usize, seed: u64) -> Self {
        println!("seed {seed}");
        let mut fleet = Self {
            share: Memory::new(),
            now: 100 * SECOND,
            rng: SplitMix(seed),
            transitions: Vec::new(),
            settings,
            workers: Vec::new(),
        };
        for _ in 0..workers {
            fleet.join();
        }
        fleet
    }

    /// A worker joins, as at the start or when a VM comes back empty. Its number.
    pub fn join(&mut self) -> usize {
        let mut breakers = CircuitBreakers::new(self.settings.clone(), &self.share, "policy").unwrap();
        let slot = breakers.slot(&self.share, KEY, "upstream");
        self.workers.push((breakers, slot));
        self.workers.len() - 1
    }

    pub fn ask(&mut self, worker: usize) -> Result<Permit, Denied> {
        let (breakers, slot) = &mut self.workers[worker];
        let answer = breakers.acquire(&self.share, *slot, self.now, &mut self.rng);
        self.collect(worker);
        answer
    }

    pub fn end(&mut self, worker: usize, permit: Permit, outcome: Outcome) {
        self.end_after(worker, permit, outcome, 0);
    }

    pub fn end_after(&mut self, worker: usize, permit: Permit, outcome: Outcome, took: Nanos) {
        self.workers[worker].0.settle(&self.share, permit, outcome, took, self.now, &mut self.rng);
        self.collect(worker);
    }

    /// The response headers of a request are there, good, and after so long.
    pub fn hear(&mut self, worker: usize, permit: &mut Permit, took: Nanos) {
        self.workers[worker].0.hear(&self.share, permit, took, self.now, &mut self.rng);
        self.collect(worker);
    }

    pub fn cancel(&mut self, worker: usize, permit: Permit) {
        self.workers[worker].0.cancel(&self.share, permit, self.now, &mut self.rng);
        self.collect(worker);
    }

    pub fn ignore(&mut self, worker: usize, permit: Permit) {
        self.workers[worker].0.ignore(&self.share, permit, self.now, &mut self.rng);
        self.collect(worker);
    }

    pub fn tick(&mut self, worker: usize) {
        self.workers[worker].0.tick(&self.share, self.now, &mut self.rng);
        self.collect(worker);
    }

    /// A request that is let through and ends at once. The state after it.
    pub fn call(&mut self, worker: usize, outcome: Outcome) -> State {
        self.call_taking(worker, outcome, 0)
    }

    pub fn call_taking(&mut self, worker: usize, outcome: Outcome, took: Nanos) -> State {
        let permit = self.ask(worker).unwrap();
        self.end_after(worker, permit, outcome, took);
        self.state(worker)
    }

    pub fn state(&mut self, worker: usize) -> State {
        let (breakers, slot) = &mut self.workers[worker];
        breakers.state(&self.share, *slot)
    }

    /// How long the open breaker says it will stay so.
    pub fn wait(&mut self, worker: usize) -> Nanos {
        match self.ask(worker) {
            Err(Denied::Open { retry_in, .. }) => retry_in,
            other => panic!("open was expected, not {other:?}"),
        }
    }

    /// Goes to the moment at which the open breaker lets a request through.
    pub fn wait_out(&mut self, worker: usize) {
        self.now += self.wait(worker);
    }

    pub fn last(&self) -> Transition {
        *self.transitions.last().unwrap()
    }

    pub fn last_reason(&self) -> TripReason {
        self.last().reason
    }

    fn collect(&mut self, worker: usize) {
        let breakers = &mut self.workers[worker].0;
        while let Some((_, transition)) = breakers.take_transition() {
            self.transitions.push(transition);
        }
        assert_eq!(breakers.take_errors(), 0);
    }
}
