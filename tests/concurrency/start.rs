//! From the first request on: an overload that nothing was known before, and clients that come one after another.

use tidegate::control::concurrency::{Algorithm, Bounds};

use super::sim::{Change, MS, Noise, Run, SECOND, Scenario, Whom, run};

const fn adaptive(initial: u32) -> Algorithm {
    Algorithm::Adaptive(Bounds { initial, min: 1, max: 1000 })
}

const ADAPTIVE: Algorithm = adaptive(20);
/// What 10 slots of 20 ms carry.
const CAPACITY: f64 = 500.0;
const RIGHT: u64 = 5 * SECOND;
const END: u64 = 11 * SECOND;

/// 1200 a second before an upstream that has work of others in its queue already. Clients give up after a second.
fn overload(algorithm: Algorithm, backlog: u32) -> Scenario {
    let changes = [(0, Change::Backlog(backlog)), (0, Change::Rate(1200.0))];
    Scenario { patience: SECOND, ..Scenario::new(algorithm, END / SECOND, &changes) }
}

fn share(run: &Run) -> f64 {
    run.goodput(RIGHT, END) / CAPACITY
}

/// Stalls of 100 to 500 ms in the first second, as with a machine on which everything starts at once.
fn stalls(every: u64, seed: u64) -> Vec<Noise> {
    let whom = [vec![Whom::Upstream], vec![Whom::Workers], vec![Whom::Clients]];
    let whom = whom.get(seed as usize % 4).cloned().unwrap_or_else(|| whom.concat());
    vec![Noise { whom, from: 0, until: SECOND, every: every * MS, lasting: (100 * MS, 500 * MS) }]
}

/// What the first answers took was waiting, and was taken for work: windows became long, nobody was answered in them, and the
/// limit stayed where nobody could be for ten seconds or for good.
#[test]
fn a_start_into_an_overload_comes_right_within_five_seconds() {
    for (backlog, every) in [(0, None), (100, None), (400, None), (0, Some(1000)), (0, Some(200)), (300, Some(200))] {
        for seed in 1..=24 {
            for workers in [1, 2, 4] {
                // Half of them with an upstream whose timers are coarse; a third with clients that wait for ever.
                let quantum = if seed % 8 >= 4 { 10 * MS } else { MS };
                let patience = if seed % 3 == 0 { 0 } else { SECOND };
                let noise = every.map_or_else(Vec::new, |every| stalls(every, seed));
                let run = run(&Scenario { workers, seed, quantum, patience, noise, ..overload(ADAPTIVE, backlog) });
                let share = share(&run);
                let what = format!("{backlog} waiting, stalls every {every:?} ms, {workers} workers, seed {seed}");
                assert!(share >= 0.95, "{what}: {share}");
                assert_eq!(run.inflight_at_end, 0, "{what}");
            }
        }
    }
    // The control: with as many in flight as found a place meanwhile nobody is answered in time.
    assert!(share(&run(&overload(Algorithm::Fixed(1000), 0))) < 0.1);
}

/// An upstream that stands still at first, and a start twice as high as what it can then answer within its clients' patience:
/// all it worked on was for clients that had gone. Lower the limit never went.
#[test]
fn a_start_that_is_too_high_is_left_when_nobody_is_answered() {
    let service = Change::Service(40 * MS);
    let (stands, goes_on) = ((0, Change::Slots(0)), (1200 * MS, Change::Slots(2)));
    let changes = [stands, (0, service), (0, Change::Rate(200.0)), goes_on];
    let good = |algorithm, seed| {
        let scenario = Scenario { seed, patience: SECOND, ..Scenario::new(algorithm, 20, &changes) };
        run(&scenario).goodput(10 * SECOND, 20 * SECOND) / 50.0
    };
    for seed in 1..=10 {
        let share = good(adaptive(100), seed);
        assert!(share >= 0.9, "seed {seed}: {share}");
    }
    assert!(good(Algorithm::Fixed(100), 1) < 0.1);
}

/// It is no overload when each client waits for its answer: in flight are never more than there are clients.
#[test]
fn clients_that_come_one_after_another_and_ask_when_they_are_answered_are_never_rejected() {
    let coming = |algorithm, clients: u32, within: u64| {
        let change = |client: u32| (u64::from(client - 1) * within / u64::from(clients), Change::Clients(client));
        Scenario::new(algorithm, 12, &(1..=clients).map(change).collect::<Vec<_>>())
    };
    for clients in [16, 32, 48, 64] {
        for within in [0, 50 * MS, 200 * MS, SECOND, 5 * SECOND] {
            for seed in 1..=8 {
                for workers in [1, 2, 4] {
                    let quantum = if seed % 2 == 0 { 10 * MS } else { MS };
                    let run = run(&Scenario { workers, seed, quantum, ..coming(ADAPTIVE, clients, within) });
                    let rejected = run.rejected(0, 12 * SECOND);
                    let what = format!("{clients} clients in {} ms, {workers} workers, seed {seed}", within / MS);
                    assert_eq!(rejected, 0, "{what}");
                }
            }
        }
    }
    // The control: three times what is worked on at once is too little for them.
    assert!(run(&coming(Algorithm::Fixed(30), 64, 0)).rejected(0, 12 * SECOND) > 1_000);
}
