//! Workers on one shared state, one of whom can be made to act between another's load and store.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::VecDeque;

use tidegate::control::Nanos;
use tidegate::control::rate_limit::{Charged, RateLimiter, Settings};
use tidegate::share::Memory;

use super::between::{Between, Call, Shared};
use super::support::key;

/// What a worker does.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Charge {
        cost: u64,
    },
    Reserve {
        cost: u64,
        max_wait: Nanos,
    },
    /// Refunds the worker's n-th charge that still stands, counted round.
    Refund {
        nth: usize,
    },
}

/// One step of a schedule.
#[derive(Debug, Clone, Copy)]
pub struct Op {
    pub worker: usize,
    pub key: u64,
    pub act: Act,
    /// How much time passes before.
    pub after: Nanos,
    /// Whether it comes between the load and the store of the step before, if its worker is not busy.
    pub within: bool,
}

/// A request that was let through and has not been refunded.
#[derive(Debug)]
pub struct Admitted {
    pub key: u64,
    pub at: Nanos,
    pub cost: u64,
    /// Whether it had to wait.
    pub paced: bool,
    charged: Charged,
}

/// What became of a charge that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub key: u64,
    pub cost: u64,
    /// The worker's clock.
    pub now: Nanos,
    pub admitted: bool,
}

/// Workers that share one state and act by a schedule.
pub struct Workers {
    memory: Memory,
    limiters: Vec<RefCell<RateLimiter>>,
    clock: StdCell<Nanos>,
    script: RefCell<VecDeque<Op>>,
    admitted: RefCell<Vec<Vec<Admitted>>>,
    /// In the order in which they came to their end.
    pub asked: RefCell<Vec<Asked>>,
    pub refused: StdCell<u64>,
    pub conflicts: StdCell<u32>,
}

impl Workers {
    pub fn new(count: usize, settings: &Settings, start: Nanos) -> Self {
        let memory = Memory::new();
        let limiters =
            (0..count).map(|_| RefCell::new(RateLimiter::new(settings, &memory, "limit").unwrap())).collect();
        Self {
            memory,
            limiters,
            clock: StdCell::new(start),
            script: RefCell::default(),
            admitted: RefCell::new((0..count).map(|_| Vec::new()).collect()),
            asked: RefCell::default(),
            refused: StdCell::new(0),
            conflicts: StdCell::new(0),
        }
    }

    /// Runs a schedule and returns what stands in the end, in the order of admission.
    pub fn run(&self, script: impl IntoIterator<Item = Op>) -> Vec<Admitted> {
        self.script.borrow_mut().extend(script);
        while let Some(op) = self.next(|_| true) {
            self.step(op);
        }
        let mut admitted: Vec<_> = self.admitted.borrow_mut().iter_mut().flat_map(std::mem::take).collect();
        admitted.sort_by_key(|request| request.at);
        admitted
    }

    fn next(&self, wanted: impl Fn(&Op) -> bool) -> Option<Op> {
        let mut script = self.script.borrow_mut();
        if wanted(script.front()?) { script.pop_front() } else { None }
    }

    fn step(&self, op: Op) {
        let now = self.clock.get().saturating_add(op.after);
        self.clock.set(now);
        let mut limiter = self.limiters[op.worker].borrow_mut();
        let (cost, max_wait) = match op.act {
            Act::Charge { cost } => (cost, 0),
            Act::Reserve { cost, max_wait } => (cost, max_wait),
            Act::Refund { nth } => {
                let mut all = self.admitted.borrow_mut();
                let own = &mut all[op.worker];
                if !own.is_empty() {
                    let request = own.remove(nth % own.len());
                    drop(all);
                    assert!(limiter.refund(&Shared(self), request.charged, now).is_ok());
                }
                return;
            }
        };
        let reserved = limiter.reserve(&Shared(self), key(op.key), 0, cost, max_wait, now);
        self.asked.borrow_mut().push(Asked { key: op.key, cost, now, admitted: reserved.is_ok() });
        match reserved {
            Ok((charged, admit_at)) => {
                assert!(!charged.failed() && charged.at >= admit_at);
                self.conflicts.set(self.conflicts.get() + charged.conflicts);
                let request = Admitted { key: op.key, at: charged.at, cost, paced: admit_at > now, charged };
                self.admitted.borrow_mut()[op.worker].push(request);
            }
            Err(refused) => {
                assert!(!refused.contended);
                self.refused.set(self.refused.get() + 1);
            }
        }
    }
}

impl Between for Workers {
    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn before(&self, call: Call) {
        let idle = |op: &Op| op.within && self.limiters[op.worker].try_borrow_mut().is_ok();
        while call == Call::Store
            && let Some(op) = self.next(idle)
        {
            self.step(op);
        }
    }
}
