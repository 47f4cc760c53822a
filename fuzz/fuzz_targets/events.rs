//! Whatever happens at whichever worker, and in whatever order: nothing panics, limits hold, and all that was held comes
//! back, of workers that died too.
#![no_main]

#[path = "../../tests/counting/mod.rs"]
mod counting;
#[path = "../../tests/requests/mod.rs"]
mod requests;
#[allow(dead_code, reason = "what tests look at beside this")]
#[path = "../../tests/workers/mod.rs"]
mod workers;

use workers::{Admitted, Answer, SECOND, Workers};

const WORKERS: usize = 3;
/// The fixed limit of both configurations.
const LIMIT: usize = 4;
const MAX_LENGTH: i64 = 3;
const INFLIGHT: &str = "tidegate_inflight.policy.all";
const LENGTH: &str = "tidegate_queue_length.policy.all";

/// All controls at once; what the second changes makes some state begin anew and keeps the rest.
const CONFIGURATIONS: [&str; 2] = [
    r#"{"policies": [
        {"name": "each", "rate_limits": [
            {"name": "each", "rate": "2/s", "burst": 3, "max_keys": 4, "key": [{"header": "x-client"}],
             "charge_response": {"header": "x-cost"}},
            {"name": "paced", "rate": "20/s", "burst": 2, "pace": {"max_wait": "300ms"}}]},
        {"name": "all", "rate_limits": [{"name": "all", "rate": "40/s", "algorithm": "sliding_window"}],
         "circuit_breaker": {"minimum_calls": 5, "open_duration": "1s", "half_open": {"probes": 2, "timeout": "3s"},
                             "window": {"type": "count", "calls": 8}, "recovery": {"ramp": "2s"}},
         "load_shedding": {"limit": {"algorithm": "fixed", "limit": 4}, "queue": {"max_length": 3, "max_wait": "2s"},
             "priority": {"levels": [{"name": "high", "match": {"headers": [{"name": "x-client", "exact": "a"}]}},
                                     {"name": "low", "share": 50}], "default": "low"}}}]}"#,
    r#"{"policies": [
        {"name": "each", "rate_limits": [
            {"name": "each", "rate": "3/s", "burst": 3, "max_keys": 4, "key": [{"header": "x-client"}]}]},
        {"name": "all", "circuit_breaker": {"minimum_calls": 3, "consecutive_failures": 2, "open_duration": "1s"},
         "load_shedding": {"limit": {"algorithm": "fixed", "limit": 4}, "queue": {"max_length": 3, "max_wait": "1s"},
             "priority": {"levels": [{"name": "high", "match": {"headers": [{"name": "x-client", "exact": "a"}]}},
                                     {"name": "low", "share": 50}], "default": "low"}}}]}"#,
];

/// A proxy and its requests.
struct Scene {
    proxy: Workers,
    configuration: usize,
    flying: Vec<Admitted>,
    waiting: Vec<Admitted>,
    held: Vec<Admitted>,
}

impl Scene {
    fn sort(&mut self, asked: Result<Admitted, impl Sized>) {
        match asked {
            Ok(admitted) if admitted.queued => self.waiting.push(admitted),
            Ok(admitted) if admitted.until.is_some() => self.held.push(admitted),
            Ok(admitted) => self.flying.push(admitted),
            Err(_) => {}
        }
    }

    fn end(&mut self, which: usize, how: u8) {
        let answer = match how % 8 {
            0..3 => Answer::status("200").header("x-cost", "4"),
            3 | 4 => Answer::status("503").header("retry-after", "2"),
            5 => Answer::status("200").trailer("grpc-status", "14"),
            6 => Answer::none(1 << 4),
            _ => Answer::none(1 << 14),
        };
        if !self.flying.is_empty() {
            let admitted = self.flying.swap_remove(which % self.flying.len());
            self.proxy.answer(admitted, &answer);
        }
    }

    /// A client leaves before its request went on.
    fn leave(&mut self, which: usize) {
        let all = if self.waiting.is_empty() { &mut self.held } else { &mut self.waiting };
        if !all.is_empty() {
            let gone = all.swap_remove(which % all.len());
            self.proxy.answer(gone, &Answer::none(1 << 14));
        }
    }

    fn go_on(&mut self, worker: usize) {
        for (_, woken) in self.proxy.wake(worker, &mut self.waiting) {
            self.sort(woken);
        }
        let now = self.proxy.now;
        while let Some(due) = self.held.iter().position(|held| held.until.is_some_and(|until| until <= now)) {
            let held = self.held.swap_remove(due);
            let resumed = self.proxy.resume(held);
            self.sort(resumed);
        }
    }

    fn event(&mut self, kind: u8, which: usize, how: u8) {
        let worker = which % WORKERS;
        match kind % 16 {
            0..6 => {
                let client = ["a", "b", "c", "d", "e", "f", "g", "h"][usize::from(how % 8)];
                let asked = self.proxy.ask(worker, &[("x-client", client)]);
                self.sort(asked);
            }
            6..10 => self.end(which, how),
            10 => self.leave(which),
            11 => self.proxy.advance(u64::from(how) * SECOND / 200),
            12 => self.proxy.tick(),
            13 | 14 => self.go_on(worker),
            _ if how < 16 => {
                let configuration = CONFIGURATIONS[self.configuration];
                self.proxy.kill(worker, configuration);
                for all in [&mut self.flying, &mut self.waiting, &mut self.held] {
                    all.retain(|request| request.worker != worker);
                }
            }
            _ if how < 32 => {
                self.configuration = usize::from(how % 2);
                self.proxy.reconfigure(CONFIGURATIONS[self.configuration]);
            }
            _ => {}
        }
        assert!(self.flying.len() <= LIMIT, "{} in flight", self.flying.len());
        if self.proxy.stat(LENGTH) > MAX_LENGTH {
            // Who was displaced is still there until its worker turns it away; then one that is due may displace another.
            (0..2 * WORKERS).for_each(|turn| self.go_on(turn % WORKERS));
        }
        assert!(self.proxy.stat(LENGTH) <= MAX_LENGTH, "{} wait", self.proxy.stat(LENGTH));
    }

    fn come_to_rest(mut self) {
        while !self.flying.is_empty() {
            self.end(0, 0);
        }
        while !(self.waiting.is_empty() && self.held.is_empty()) {
            self.leave(0);
        }
        // Long enough for the dead to be found.
        for _ in 0..20 {
            self.proxy.advance(SECOND / 2);
            self.proxy.tick();
        }
        assert_eq!((self.proxy.stat(INFLIGHT), self.proxy.stat(LENGTH)), (0, 0), "in flight, waiting");
        assert_eq!(self.proxy.errors(), 0, "errors");
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut scene = Scene {
        proxy: Workers::new(WORKERS, CONFIGURATIONS[0]),
        configuration: 0,
        flying: Vec::new(),
        waiting: Vec::new(),
        held: Vec::new(),
    };
    let mut updates = 0;
    for event in bytes.chunks_exact(3) {
        let &[kind, which, how] = event else { return };
        // Engines that were replaced stay, to serve what they admitted: a few will do.
        if kind % 16 == 15 {
            updates += 1;
        }
        if kind % 16 != 15 || updates < 8 {
            scene.event(kind, usize::from(which), how);
        }
    }
    scene.come_to_rest();
});
