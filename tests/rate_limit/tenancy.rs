//! Any order of updates, requests and ticks: no limit that is in use ever goes on without a budget, or with two.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use tidegate::control::Nanos;
use tidegate::control::rate_limit::{Algorithm, KeyHash, RateLimiter};
use tidegate::share::{GRACE, Memory, ROWS, SharedState};

use super::between::{Between, Call, Shared};
use super::support::*;

const BURST: u64 = 3;
const WORKERS: usize = 3;
const OWNERS: u64 = 5;
/// Rows that the owners compete for; the others are in use throughout.
const FREE: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Act {
    /// A worker is configured with the settings of an owner.
    Open,
    /// It is done with them.
    Close,
    Ask,
    /// So often all timers go off, a little less far apart than a row is kept for whom has not said that it uses it.
    Pass(usize),
}

#[derive(Debug, Clone, Copy)]
struct Op {
    worker: usize,
    owner: u64,
    act: Act,
    /// Between the load and the store of the step before.
    within: bool,
}

/// One worker's hold on the limit of one owner, and how many it has admitted by itself.
struct Hold {
    limiter: RateLimiter,
    alone: bool,
    admitted_alone: u64,
}

struct Proxy {
    memory: Memory,
    now: StdCell<Nanos>,
    script: RefCell<VecDeque<Op>>,
    holds: BTreeMap<(usize, u64), RefCell<Option<Hold>>>,
    /// What all workers that hold an owner's row together have admitted since the first of them has.
    shared: RefCell<BTreeMap<u64, u64>>,
    others: Vec<RefCell<RateLimiter>>,
}

fn open(share: &dyn SharedState, owner: u64, now: Nanos) -> RateLimiter {
    let settings = settings(Algorithm::TokenBucket, quota(1, 1_000 * HOUR, BURST), 1);
    RateLimiter::reusing(&settings, share, "limit", owner, now).unwrap()
}

impl Proxy {
    fn new() -> Self {
        let memory = Memory::new();
        let others = (0..ROWS - FREE).map(|other| RefCell::new(open(&memory, 1_000 + other as u64, 0))).collect();
        let all = (0..WORKERS).flat_map(|worker| (0..OWNERS).map(move |owner| (worker, owner)));
        let holds = all.map(|hold| (hold, RefCell::new(None))).collect();
        let shared = RefCell::default();
        Self { memory, now: StdCell::new(0), script: RefCell::default(), holds, shared, others }
    }

    fn run(&self, script: Vec<Op>) {
        self.script.borrow_mut().extend(script);
        while let Some(op) = self.next(|_| true) {
            self.step(op);
        }
    }

    fn next(&self, wanted: impl Fn(&Op) -> bool) -> Option<Op> {
        let mut script = self.script.borrow_mut();
        if wanted(script.front()?) { script.pop_front() } else { None }
    }

    fn step(&self, Op { worker, owner, act, .. }: Op) {
        if let Act::Pass(times) = act {
            (0..times).for_each(|_| self.tick());
            return;
        }
        let mut hold = self.holds[&(worker, owner)].borrow_mut();
        match (act, &mut *hold) {
            (Act::Open, None) => {
                let mut new =
                    Hold { limiter: open(&Shared(self), owner, self.now.get()), alone: false, admitted_alone: 0 };
                self.look(owner, &mut new);
                *hold = Some(new);
            }
            (Act::Close, Some(old)) => {
                old.limiter.release(&Shared(self), self.now.get());
                *hold = None;
                drop(hold);
                self.forget(owner);
            }
            (Act::Ask, Some(held)) => {
                let charged = held.limiter.charge(&Shared(self), KeyHash::NONE, 0, 1, self.now.get());
                self.look(owner, held);
                if let Ok(charged) = charged {
                    assert!(!charged.failed(), "admitted without a budget");
                    let mut shared = self.shared.borrow_mut();
                    let sum = if held.alone { &mut held.admitted_alone } else { shared.entry(owner).or_default() };
                    *sum += 1;
                    assert!(*sum <= BURST, "{sum} of {BURST} admitted");
                }
            }
            _ => {}
        }
    }

    fn tick(&self) {
        let now = self.now.get() + GRACE - 1;
        self.now.set(now);
        self.others.iter().for_each(|other| other.borrow_mut().keep(&Shared(self), now));
        self.holds.iter().for_each(|((_, owner), hold)| {
            if let Some(hold) = &mut *hold.borrow_mut() {
                hold.limiter.keep(&Shared(self), now);
                self.look(*owner, hold);
            }
        });
    }

    /// Whether a hold has lost or found a row.
    fn look(&self, owner: u64, hold: &mut Hold) {
        if let Some(alone) = hold.limiter.take_news() {
            hold.alone = alone;
            hold.admitted_alone = 0;
            self.forget(owner);
        }
    }

    /// Where nobody holds a row of the owner any more, the next begins with what it finds.
    fn forget(&self, owner: u64) {
        let holding = |hold: &RefCell<Option<Hold>>| match hold.try_borrow() {
            Ok(hold) => hold.as_ref().is_some_and(|hold| !hold.alone),
            // Busy, and so there.
            Err(_) => true,
        };
        if !self.holds.iter().any(|((_, other), hold)| *other == owner && holding(hold)) {
            self.shared.borrow_mut().remove(&owner);
        }
    }

    fn is_idle(&self, op: &Op) -> bool {
        !matches!(op.act, Act::Pass(_)) && self.holds[&(op.worker, op.owner)].try_borrow_mut().is_ok()
    }
}

impl Between for Proxy {
    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn before(&self, call: Call) {
        while call == Call::Store
            && let Some(op) = self.next(|op| op.within && self.is_idle(op))
        {
            self.step(op);
        }
    }
}

fn scripts() -> impl Strategy<Value = Vec<Op>> {
    let act = prop_oneof![
        4 => Just(Act::Open),
        3 => Just(Act::Close),
        8 => Just(Act::Ask),
        4 => (1..20usize).prop_map(Act::Pass),
    ];
    let op = (0..WORKERS, 0..OWNERS, act, any::<bool>()).prop_map(|(worker, owner, act, within)| Op {
        worker,
        owner,
        act,
        within,
    });
    prop::collection::vec(op, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn in_any_order_of_updates_and_requests_a_limit_has_one_budget_or_one_for_each_worker(script in scripts()) {
        Proxy::new().run(script);
    }
}
