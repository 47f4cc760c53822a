//! Workers that act between any two steps of another worker's request: what must hold in every interleaving.

use std::cell::{Cell as Slot, RefCell};
use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate::control::circuit_breaker::{
    CircuitBreakers, Outcome, Permit, Settings, SlotId, State, Transition, Window,
};
use tidegate::control::{Nanos, Random};
use tidegate::share::Memory;

use super::between::{Between, Call, Shared};
use super::fleet::{FAILURE, KEY, MS, SECOND, SplitMix};

/// A proxy: before each operation on what is shared, other workers may do something whole, and others again in theirs.
struct Proxy {
    share: Memory,
    settings: Settings,
    workers: Vec<RefCell<Worker>>,
    rng: RefCell<SplitMix>,
    now: Slot<Nanos>,
    upstream: Slot<Upstream>,
    transitions: RefCell<Vec<Transition>>,
    /// Probes let through and not cancelled, by the generation of their round.
    probes: RefCell<BTreeMap<u64, i64>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Upstream {
    /// Fails, hangs, recovers; clients leave; VMs die.
    Devious,
    /// Each worker sees two successes, then a failure.
    ThirdFails,
}

struct Worker {
    breakers: CircuitBreakers,
    slot: SlotId,
    permits: Vec<Permit>,
    generation: u64,
    settled: u32,
}

impl Proxy {
    fn new(settings: Settings, workers: usize, seed: u64, upstream: Upstream) -> Self {
        let share = Memory::new();
        let workers = (0..workers).map(|_| RefCell::new(Worker::new(&settings, &share))).collect();
        Self {
            share,
            settings,
            workers,
            rng: RefCell::new(SplitMix(seed)),
            now: Slot::new(100 * SECOND),
            upstream: Slot::new(upstream),
            transitions: RefCell::default(),
            probes: RefCell::default(),
        }
    }

    fn chance(&self, bound: usize) -> usize {
        self.rng.borrow_mut().below(bound)
    }

    /// Some worker that is not in the middle of something does something.
    fn step(&self) {
        let Ok(mut worker) = self.workers[self.chance(self.workers.len())].try_borrow_mut() else { return };
        self.now.set(self.now.get() + self.chance(300) as u64 * MS);
        let devious = self.upstream.get() == Upstream::Devious;
        match self.chance(20) {
            0..10 => self.ask(&mut worker),
            10..16 => self.settle(&mut worker),
            16 => self.hear(&mut worker),
            17 if devious => self.cancel(&mut worker),
            18 if devious => drop(worker.permits.pop()),
            19 if devious && self.chance(4) == 0 => *worker = Worker::new(&self.settings, &self.share),
            _ => {
                worker.breakers.tick(&Shared(self), self.now.get(), &mut Chance(self));
                self.collect(&mut worker);
            }
        }
    }

    fn ask(&self, worker: &mut Worker) {
        let answer = worker.breakers.acquire(&Shared(self), worker.slot, self.now.get(), &mut Chance(self));
        if let Ok(permit) = answer {
            assert!(permit.generation() >= worker.generation, "a generation went back");
            worker.generation = permit.generation();
            if permit.is_probe() {
                *self.probes.borrow_mut().entry(permit.generation()).or_default() += 1;
            }
            worker.permits.push(permit);
        }
        self.collect(worker);
    }

    fn settle(&self, worker: &mut Worker) {
        if worker.permits.is_empty() {
            return;
        }
        let permit = worker.permits.swap_remove(self.chance(worker.permits.len()));
        worker.settled += 1;
        let failed = match self.upstream.get() {
            Upstream::Devious => self.chance(3) == 0,
            Upstream::ThirdFails => worker.settled.is_multiple_of(3),
        };
        let outcome = if failed { FAILURE } else { Outcome::Success };
        let took = if failed { 2 * SECOND } else { 0 };
        worker.breakers.settle(&Shared(self), permit, outcome, took, self.now.get(), &mut Chance(self));
        self.collect(worker);
    }

    fn hear(&self, worker: &mut Worker) {
        if worker.permits.is_empty() {
            return;
        }
        let place = self.chance(worker.permits.len());
        worker.breakers.hear(&Shared(self), &mut worker.permits[place], 0, self.now.get(), &mut Chance(self));
        self.collect(worker);
    }

    fn cancel(&self, worker: &mut Worker) {
        let Some(permit) = worker.permits.pop() else { return };
        if permit.is_probe() {
            *self.probes.borrow_mut().entry(permit.generation()).or_default() -= 1;
        }
        if self.chance(2) == 0 {
            worker.breakers.cancel(&Shared(self), permit, self.now.get(), &mut Chance(self));
        } else {
            worker.breakers.ignore(&Shared(self), permit, self.now.get(), &mut Chance(self));
        }
        self.collect(worker);
    }

    fn collect(&self, worker: &mut Worker) {
        while let Some((_, transition)) = worker.breakers.take_transition() {
            self.transitions.borrow_mut().push(transition);
        }
        assert_eq!(worker.breakers.take_errors(), 0);
    }

    /// Each change was reported by one worker, none was lost, and each left the state that the one before had entered.
    fn check_transitions(&self) {
        let mut all = self.transitions.borrow().clone();
        all.sort_by_key(|transition| transition.generation);
        let mut state = State::Closed;
        for (transition, generation) in all.iter().zip(1..) {
            assert_eq!((transition.generation, transition.from), (generation, state), "{all:?}");
            let legal = matches!(
                (transition.from, transition.to),
                (State::Closed, State::Open)
                    | (State::Open, State::HalfOpen)
                    | (State::HalfOpen, State::Closed | State::Open)
            );
            assert!(legal, "{transition:?}");
            state = transition.to;
        }
        for worker in &self.workers {
            let mut worker = worker.borrow_mut();
            let slot = worker.slot;
            assert_eq!(worker.breakers.state(&self.share, slot), state);
        }
    }

    fn check_probes(&self) {
        for (generation, probes) in self.probes.borrow().iter() {
            assert!(*probes <= i64::from(self.settings.probes), "{probes} in generation {generation}");
        }
    }

    /// The upstream is well and every request in flight is lost: how long until the breaker closes.
    fn time_to_close(&self) -> Nanos {
        let start = self.now.get();
        for worker in &self.workers {
            worker.borrow_mut().permits.clear();
        }
        loop {
            for worker in &self.workers {
                let worker = &mut *worker.borrow_mut();
                if let Ok(permit) = worker.breakers.acquire(&self.share, worker.slot, self.now.get(), &mut Chance(self))
                {
                    worker.breakers.settle(&self.share, permit, Outcome::Success, 0, self.now.get(), &mut Chance(self));
                }
                self.collect(worker);
            }
            let first = &mut *self.workers[0].borrow_mut();
            if first.breakers.state(&self.share, first.slot) == State::Closed {
                return self.now.get() - start;
            }
            self.now.set(self.now.get() + 100 * MS);
            assert!(self.now.get() - start < 3_600 * SECOND, "stuck");
        }
    }
}

impl Worker {
    fn new(settings: &Settings, share: &Memory) -> Self {
        let mut breakers = CircuitBreakers::new(settings.clone(), share, "policy").unwrap();
        let slot = breakers.slot(share, KEY, "upstream");
        Self { breakers, slot, permits: Vec::new(), generation: 0, settled: 0 }
    }
}

/// The proxy's random source, so that one seed decides everything.
struct Chance<'a>(&'a Proxy);

impl Random for Chance<'_> {
    fn next_u64(&mut self) -> u64 {
        self.0.rng.borrow_mut().next_u64()
    }
}

impl Between for Proxy {
    fn memory(&self) -> &Memory {
        &self.share
    }

    fn before(&self, _: Call) {
        if self.chance(3) == 0 {
            self.step();
        }
    }
}

fn windows() -> impl Strategy<Value = Window> {
    prop_oneof![Just(Window::Time(10 * SECOND)), Just(Window::Count(20))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_interleaving_breaks_the_state_machine_lets_too_many_probes_pass_or_hangs(
        seed in any::<u64>(),
        workers in 2_usize..=5,
        probes in 1_u32..=4,
        consecutive_failures in 0_u32..=4,
        window in windows(),
        steps in 1_usize..400,
    ) {
        let settings = Settings {
            window,
            minimum_calls: 5,
            failure_rate_threshold: 4_000,
            consecutive_failures,
            open_duration: SECOND,
            open_duration_max: 4 * SECOND,
            probes,
            probe_timeout: 10 * SECOND,
            ..Settings::default()
        };
        let proxy = Proxy::new(settings, workers, seed, Upstream::Devious);
        for _ in 0..steps {
            proxy.step();
            proxy.check_probes();
        }
        proxy.check_transitions();
        // At worst the lost probes time out, and then the open time passes.
        prop_assert!(proxy.time_to_close() <= 15 * SECOND);
        proxy.check_transitions();
    }

    /// At no moment has more than a third of the counted calls failed or been slow, so whatever a worker reads while
    /// the others add, it must never see more.
    #[test]
    fn no_interleaving_trips_on_a_rate_that_was_never_reached(seed in any::<u64>(), window in prop_oneof![
        Just(Window::Time(1_000_000 * SECOND)), Just(Window::Count(10_000)),
    ]) {
        let settings = Settings {
            window,
            minimum_calls: 3,
            failure_rate_threshold: 3_334,
            slow_call_duration: Some(SECOND),
            slow_call_rate_threshold: 3_334,
            ..Settings::default()
        };
        let proxy = Proxy::new(settings, 5, seed, Upstream::ThirdFails);
        for _ in 0..300 {
            proxy.step();
        }
        prop_assert_eq!(proxy.transitions.borrow().len(), 0);
    }
}

/// Without this the properties above might hold because nothing ever happens in them.
#[test]
fn the_devious_proxy_goes_through_every_change_many_times() {
    let settings = Settings {
        minimum_calls: 5,
        failure_rate_threshold: 4_000,
        open_duration: SECOND,
        open_duration_max: 4 * SECOND,
        probes: 2,
        ..Settings::default()
    };
    let proxy = Proxy::new(settings, 4, 42, Upstream::Devious);
    println!("seed 42");
    for _ in 0..5_000 {
        proxy.step();
    }
    let all = proxy.transitions.borrow();
    for to in [State::Closed, State::Open, State::HalfOpen] {
        assert!(all.iter().filter(|transition| transition.to == to).count() > 20, "{to:?}");
    }
}
