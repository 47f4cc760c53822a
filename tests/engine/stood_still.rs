//! Requests that are held while the process stands still: their times pass, and they are not to go on all at once. A worker
//! that is merely slow lets them go.

use std::collections::HashMap;

use tidegate::engine::held::{Held, STOOD, Waiting};

use super::workers::{Admitted, Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MS: u64 = 1_000_000;

/// Workers whose timers go off when somebody is due, or later.
struct Proxy {
    workers: Workers,
    lines: Vec<Line>,
    asked: u32,
    /// When requests went on, the first of them at once.
    gone: Vec<u64>,
    /// How requests that had been held were rejected, and what their clients were told to wait.
    rejected: Vec<(String, String)>,
}

/// Who waits at a worker.
#[derive(Default)]
struct Line {
    waiting: Waiting,
    held: HashMap<u32, (Held, Admitted)>,
}

impl Proxy {
    fn new(workers: usize, configuration: &str) -> Self {
        let lines = (0..workers).map(|_| Line::default()).collect();
        Self { workers: Workers::new(workers, configuration), lines, asked: 0, gone: Vec::new(), rejected: Vec::new() }
    }

    /// A request. Whether it was rejected.
    fn ask(&mut self, worker: usize, headers: &[(&str, &str)]) -> bool {
        self.asked += 1;
        self.workers.may_wait = self.lines[worker].waiting.has_room();
        let answer = self.workers.ask(worker, headers);
        let rejected = answer.is_err();
        if let Ok(request) = answer {
            self.place(worker, self.asked, request);
        }
        rejected
    }

    /// So many requests, over all workers in turn.
    fn volley(&mut self, count: usize) {
        for turn in 0..count {
            assert!(!self.ask(turn % self.lines.len(), &[]), "held at most");
        }
    }

    fn place(&mut self, worker: usize, stream: u32, request: Admitted) {
        match request.until {
            Some(until) => {
                let line = &mut self.lines[worker];
                line.waiting.add(Held::Until(until), stream);
                line.held.insert(stream, (Held::Until(until), request));
            }
            None => {
                self.gone.push(self.workers.now);
                self.workers.answer(request, &Answer::status("200"));
            }
        }
    }

    /// A worker's timer goes off: as in the host.
    fn turn(&mut self, worker: usize) {
        let now = self.workers.now;
        self.lines[worker].waiting.unwound();
        self.lines[worker].waiting.turn_begins(now);
        while self.lines[worker].waiting.may_go_on() {
            let line = &mut self.lines[worker];
            let Some(stream) = line.waiting.due(now) else { break };
            line.waiting.goes_on();
            let (held, mut request) = line.held.remove(&stream).expect("only those that wait are due");
            line.waiting.remove(held, stream);
            if line.waiting.has_missed(held) {
                request.permit.miss();
            }
            self.workers.may_wait = line.waiting.has_room();
            match self.workers.resume(request) {
                Ok(request) => {
                    if request.until.is_some() {
                        line.waiting.stays();
                    }
                    self.place(worker, stream, request);
                }
                Err((reply, line)) => {
                    let told = |(name, value): (_, String)| (name == "retry-after").then_some(value);
                    self.rejected.push((line, reply.headers.into_iter().find_map(told).expect("it is known")));
                }
            }
        }
        self.lines[worker].waiting.turn_ends(now);
    }

    /// When the first of those who wait is due, and at which worker.
    fn first_due(&self) -> Option<(u64, usize)> {
        let first = |line: &Line| line.held.values().filter_map(|(_, request)| request.until).min();
        let due = self.lines.iter().zip(0..).filter_map(|(line, worker)| Some((first(line)?, worker)));
        due.min()
    }

    /// Lets everybody who waits go on as they can, all timers being on time: when, in milliseconds from now.
    fn gone_on(&mut self) -> Vec<u64> {
        let from = self.workers.now;
        self.gone.clear();
        while let Some((due, worker)) = self.first_due() {
            self.workers.now = self.workers.now.max(due);
            self.turn(worker);
        }
        self.gone.iter().map(|at| (at - from) / MS).collect()
    }

    /// How many pass now, without waiting.
    fn passing(&mut self) -> usize {
        self.workers.may_wait = false;
        (0..).take_while(|_| self.workers.ask(0, &[]).is_ok()).count()
    }
}

fn limit(settings: &str) -> String {
    format!(r#"{{"policies": [{{"name": "p", "rate_limits": [{{"name": "r", {settings}}}]}}]}}"#)
}

#[test]
fn those_whose_time_passed_while_the_process_stood_still_are_spaced_anew() {
    let mut proxy = Proxy::new(4, &limit(r#""rate": "10/s", "burst": 2, "pace": {"max_wait": "1s"}"#));
    proxy.volley(12);
    proxy.workers.advance(5 * SECOND);
    // The bucket has refilled to its burst and no further.
    assert_eq!(proxy.gone_on(), [0, 0, 100, 200, 300, 400, 500, 600, 700, 800]);
    assert_eq!(proxy.workers.stat("tidegate_requests_total.policy.p.decision.admitted"), 12);
    assert_eq!(proxy.workers.stat("tidegate_queue_length.policy.p"), 0);
}

#[test]
fn those_whose_time_is_yet_to_come_keep_it_and_the_others_go_behind_them() {
    let mut proxy = Proxy::new(2, &limit(r#""rate": "10/s", "burst": 1, "pace": {"max_wait": "1s"}"#));
    proxy.volley(11);
    proxy.workers.advance(750 * MS);
    // Six times have passed; that of 700 has not, before the next one's has come; those of 800 to 1000 ms stand.
    assert_eq!(proxy.gone_on(), [0, 50, 150, 250, 350, 450, 550, 650, 750, 850]);
}

#[test]
fn who_is_late_as_a_slow_worker_is_goes_on_with_the_time_that_was_given() {
    assert_eq!(STOOD, 500 * MS, "as the docs say");
    let paced = |rate: &str| limit(&format!(r#""rate": "{rate}", "burst": 1, "pace": {{"max_wait": "10s"}}"#));
    // Six are due, from 100 to 600 ms; a nanosecond later five go behind those of 700 and 800.
    for (late, expected) in [(STOOD, [0, 0, 0, 0, 0, 0, 100, 200]), (STOOD + 1, [0, 99, 199, 299, 399, 499, 599, 699])]
    {
        let mut proxy = Proxy::new(1, &paced("10/s"));
        proxy.volley(9);
        proxy.workers.advance(100 * MS + late);
        assert_eq!(proxy.gone_on(), expected, "{late}");
    }
    // Where the next one's time comes only after a second, nobody else's is taken by one who is half of that late.
    let mut proxy = Proxy::new(1, &paced("1/s"));
    proxy.volley(4);
    proxy.workers.advance(1600 * MS);
    assert_eq!(proxy.gone_on(), [0, 400, 1400]);
}

#[test]
fn those_for_whom_there_is_no_time_any_more_are_rejected_and_told_how_long_to_wait() {
    let mut proxy = Proxy::new(1, &limit(r#""rate": "30/m", "burst": 1, "pace": {"max_wait": "4s"}"#));
    proxy.volley(3);
    proxy.workers.advance(10 * SECOND);
    // Others were here first when it ran again.
    proxy.volley(3);
    assert_eq!(proxy.gone_on(), [2000, 4000]);
    let told = ("rate_limited;policy=p;limit=r".to_owned(), "6".to_owned());
    assert_eq!(proxy.rejected, [told.clone(), told], "they took nothing from each other, nor from those behind");
    assert_eq!(proxy.workers.stat("tidegate_queue_length.policy.p"), 0);
}

#[test]
fn a_window_that_goes_on_still_holds_what_was_charged_in_it() {
    for (algorithm, anew) in [("fixed_window", [0, 0, 1000, 1000]), ("sliding_window", [0, 0, 1000, 1500])] {
        let config = |period| {
            limit(&format!(r#""algorithm": "{algorithm}", "rate": "2/{period}", "pace": {{"max_wait": "1m"}}"#))
        };
        // Held until the next minute, and late within it.
        let mut proxy = Proxy::new(2, &config("m"));
        proxy.workers.now = 3645 * SECOND;
        proxy.volley(4);
        proxy.workers.now = 3695 * SECOND;
        assert_eq!(proxy.gone_on(), [0, 0], "{algorithm}");
        // Held until seconds that have passed.
        let mut proxy = Proxy::new(2, &config("s"));
        proxy.workers.now = 3600 * SECOND;
        proxy.volley(6);
        proxy.workers.now = 3610 * SECOND;
        assert_eq!(proxy.gone_on(), anew, "{algorithm}");
    }
}

#[test]
fn a_missed_time_costs_nothing_beside_the_new_one() {
    // Ten are held in a window in which, after the pause, there is room for all of them.
    let mut proxy =
        Proxy::new(1, &limit(r#""algorithm": "sliding_window", "rate": "10/s", "pace": {"max_wait": "3s"}"#));
    proxy.workers.now = 3600 * SECOND;
    proxy.volley(20);
    proxy.workers.now = 3602 * SECOND + 110 * MS;
    assert_eq!(proxy.gone_on(), [0; 10]);
    // Ten are held by two limits, and rejected by the second after the pause. The first has what it would have, had they left.
    let config = r#"{"policies": [
        {"name": "p", "rate_limits": [{"name": "r", "rate": "10/s", "burst": 100, "pace": {"max_wait": "2s"}}]},
        {"name": "q", "match": {"headers": [{"name": "q", "present": true}]},
         "rate_limits": [{"name": "b", "rate": "10/s", "burst": 1, "pace": {"max_wait": "1s"}}]}]}"#;
    let mut left = Vec::new();
    for misses in [true, false] {
        let mut proxy = Proxy::new(1, config);
        proxy.volley(100);
        (0..10).for_each(|_| assert!(!proxy.ask(0, &[("q", "1")])));
        proxy.workers.advance(3 * SECOND);
        // The second's line is full of others.
        let others: Vec<_> = (0..12).map_while(|_| proxy.workers.ask(0, &[("q", "1")]).ok()).collect();
        assert_eq!(others.len(), 11);
        if misses {
            proxy.turn(0);
            assert_eq!(proxy.rejected.len(), 9, "{:?}", proxy.rejected);
        } else {
            proxy.lines[0].held.drain().for_each(|(_, (_, gone))| {
                proxy.workers.answer(gone, &Answer::none(1 << 14));
            });
        }
        left.push(proxy.passing());
    }
    // One of the ten is held again.
    assert_eq!(left, [18, 19]);
}

#[test]
fn only_the_limits_that_hold_are_charged_again() {
    let mut proxy = Proxy::new(
        1,
        r#"{"policies": [{"name": "p", "rate_limits": [
            {"name": "r", "rate": "10/s", "burst": 1, "pace": {"max_wait": "1s"}},
            {"name": "all", "rate": "12/h"}]}]}"#,
    );
    proxy.volley(11);
    proxy.workers.advance(5 * SECOND);
    assert_eq!(proxy.gone_on().len(), 10);
    proxy.workers.advance(SECOND);
    assert_eq!(proxy.passing(), 1, "eleven of the hour's twelve were used, each once");
}

#[test]
fn of_several_limits_that_reject_after_a_pause_the_one_with_the_longest_wait_speaks() {
    let mut proxy = Proxy::new(
        1,
        r#"{"policies": [{"name": "p", "rate_limits": [
            {"name": "short", "rate": "10/s", "burst": 1, "key": [{"header": "s"}], "pace": {"max_wait": "200ms"}},
            {"name": "long", "rate": "30/m", "burst": 1, "key": [{"header": "l"}], "pace": {"max_wait": "2s"}}]}]}"#,
    );
    let both = [("s", "1"), ("l", "1")];
    proxy.ask(0, &both);
    // Holds both: the second's next time is two seconds away.
    assert!(!proxy.ask(0, &both));
    proxy.workers.advance(6 * SECOND);
    (0..3).for_each(|_| assert!(proxy.workers.ask(0, &[("s", "1")]).is_ok()));
    (0..2).for_each(|_| assert!(proxy.workers.ask(0, &[("l", "1")]).is_ok()));
    proxy.turn(0);
    assert_eq!(proxy.rejected, [("rate_limited;policy=p;limit=long".to_owned(), "4".to_owned())]);
}

#[test]
fn who_was_to_be_held_by_chance_is_held_again() {
    let mut proxy = Proxy::new(
        1,
        r#"{"policies": [{"name": "p", "enforce_percent": 50, "rate_limits": [
            {"name": "r", "rate": "100/s", "burst": 1, "pace": {"max_wait": "10s"}}]}]}"#,
    );
    (0..1000).for_each(|_| assert!(!proxy.ask(0, &[])));
    let held = 1000 - proxy.gone.len();
    assert!((400..600).contains(&held), "{held}");
    proxy.workers.advance(60 * SECOND);
    let gone = proxy.gone_on();
    assert_eq!(gone, (0..held as u64).map(|number| number * 10).collect::<Vec<_>>());
}

#[test]
fn one_that_cannot_be_read_again_is_spaced_like_the_others() {
    let mut proxy = Workers::new(1, &limit(r#""rate": "10/s", "burst": 1, "pace": {"max_wait": "1s"}"#));
    let mut held: Vec<_> = (0..4).map(|_| proxy.ask(0, &[]).unwrap()).collect();
    assert_eq!(held.remove(0).until, None);
    proxy.advance(5 * SECOND);
    let now = proxy.now;
    let again = held.into_iter().map(|mut request| {
        request.permit.miss();
        proxy.resume_unread(request).unwrap().until
    });
    assert_eq!(again.collect::<Vec<_>>(), [None, Some(now + 100 * MS), Some(now + 200 * MS)]);
}

#[test]
fn who_misses_two_times_goes_on() {
    let mut proxy = Proxy::new(1, &limit(r#""rate": "10/s", "burst": 1, "pace": {"max_wait": "1s"}"#));
    proxy.volley(6);
    for expected in [1, 4] {
        proxy.workers.advance(2 * SECOND);
        proxy.gone.clear();
        proxy.turn(0);
        assert_eq!(proxy.gone.len(), expected);
    }
}

/// What went on in each second at one worker whose timer goes off every so many milliseconds, under constant load, with a
/// stop of the process after three seconds.
fn goodput(settings: &str, clients: usize, offered: u64, turn: u64, stop: u64) -> Vec<usize> {
    let mut proxy = Proxy::new(1, &limit(settings));
    let names: Vec<String> = (0..clients).map(|client| client.to_string()).collect();
    let (start, mut sent) = (proxy.workers.now, 0);
    let mut seconds = Vec::new();
    for second in 1..=9 {
        while proxy.workers.now < start + second * SECOND {
            if second == 4 && proxy.workers.now < start + 3 * SECOND + stop * MS {
                proxy.workers.now = start + 3 * SECOND + stop * MS;
            }
            while sent * SECOND <= offered * (proxy.workers.now - start) {
                proxy.ask(0, &[("x-client", &names[sent as usize % clients])]);
                sent += 1;
            }
            proxy.turn(0);
            proxy.workers.advance(turn * MS);
        }
        seconds.push(proxy.gone.len());
        proxy.gone.clear();
    }
    seconds
}

/// It used to let nobody through any more: whoever was late lost the time, and was late again.
#[test]
fn a_worker_that_cannot_keep_up_lets_as_many_go_on_as_it_can() {
    let paced = |rate: u64, more: &str, wait: &str| {
        format!(r#""rate": "{rate}/s", "burst": 1, {more} "pace": {{"max_wait": "{wait}"}}"#)
    };
    let keyed = r#""key": [{"header": "x-client"}],"#;
    // 64 at a time every 20 ms are 3200 a second.
    for (settings, clients, offered, turn, stop, least) in [
        (paced(5000, "", "1s"), 1, 8000, 20, 0, 3100),
        (paced(20, keyed, "1s"), 200, 8000, 20, 0, 3100),
        (paced(3000, "", "1s"), 1, 4000, 20, 400, 2900),
        (paced(3000, "", "200ms"), 1, 4000, 20, 400, 2900),
        (paced(3000, "", "1s"), 1, 4000, 20, 600, 2900),
        (paced(3000, "", "1s"), 1, 4000, 4, 600, 2900),
        (paced(100, "", "1s"), 1, 200, 250, 0, 95),
        (paced(1000, "", "10s"), 1, 1000, 130, 0, 450),
    ] {
        let seconds = goodput(&settings, clients, offered, turn, stop);
        println!("{settings}, {offered}/s offered, turns of {turn} ms, a stop of {stop} ms: {seconds:?}");
        // Those that a stop has made late take their turns in the second after it.
        assert!(seconds.iter().skip(5).all(|gone| *gone >= least), "{seconds:?}");
    }
}

#[cfg(not(target_family = "wasm"))]
mod any {
    use super::{MS, Proxy, SECOND, STOOD, limit};
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes when, and however often the process stands still: what goes on within any time is no more than the
        /// bucket holds for it, and for as long as a worker may be late; and hardly anybody who was held is rejected for it.
        #[test]
        fn what_goes_on_stays_within_the_bucket_and_comes_to_as_much(
            (rate, burst) in (1u64..200, 1u64..20),
            arrivals in prop::collection::vec((0u64..2000, 0usize..3), 1..150),
            stop in (0u64..3000, 1u64..3000),
        ) {
            let config =
                limit(&format!(r#""rate": "{rate}/s", "burst": {burst}, "pace": {{"max_wait": "1s"}}"#));
            let mut proxy = Proxy::new(3, &config);
            let start = proxy.workers.now;
            // Nothing runs in a stop: what comes or is due then, does so at its end.
            let stopped = start + stop.0 * MS..start + (stop.0 + stop.1) * MS;
            let runs_at = |at: u64| if stopped.contains(&at) { stopped.end } else { at };
            let mut arrivals: Vec<_> = arrivals.iter().map(|(at, worker)| (runs_at(start + at * MS), *worker)).collect();
            arrivals.sort_unstable();
            arrivals.reverse();
            let mut rejected = 0;
            loop {
                let due = proxy.first_due().map(|(due, worker)| (runs_at(due.max(proxy.workers.now)), worker));
                match (due, arrivals.last().copied()) {
                    (None, None) => break,
                    (Some((due, worker)), comes) if comes.is_none_or(|(at, _)| due <= at) => {
                        proxy.workers.now = due;
                        proxy.turn(worker);
                    }
                    (_, comes) => {
                        let (at, worker) = comes.unwrap();
                        arrivals.pop();
                        proxy.workers.now = proxy.workers.now.max(at);
                        rejected += usize::from(proxy.ask(worker, &[]));
                    }
                }
            }
            prop_assert_eq!(proxy.gone.len() + proxy.rejected.len() + rejected, proxy.asked as usize);
            // The last in line had been given a time to the nanosecond.
            prop_assert!(proxy.rejected.len() <= 1, "{:?}", proxy.rejected);
            let late = STOOD.max(SECOND.div_ceil(rate));
            for (first, from) in proxy.gone.iter().enumerate() {
                for (last, to) in proxy.gone.iter().enumerate().skip(first) {
                    // A nanosecond more: each time is rounded to whole ones.
                    let most = burst + (to - from + late + 1) * rate / SECOND;
                    prop_assert!((last - first + 1) as u64 <= most, "{} within {} ns", last - first + 1, to - from);
                }
            }
        }
    }
}
