//! Any sequence of events on any worker keeps what the engine promises.

use super::workers::{Admitted, Answer, SECOND, Workers};
use proptest::prelude::*;

const WORKERS: usize = 3;
const CLIENTS: [&str; 3] = ["a", "b", "c"];
const LIMIT: usize = 4;

/// Two limits that must both conform, a breaker that trips, and a concurrency limit that rejects last.
const CONFIGURATION: &str = r#"{"policies": [
    {"name": "each", "rate_limits": [{"name": "each", "rate": "2/s", "burst": 3, "key": [{"header": "x-client"}]}]},
    {"name": "all", "rate_limits": [{"name": "all", "rate": "4/s", "burst": 6}],
     "circuit_breaker": {"minimum_calls": 5, "open_duration": "1s", "half_open": {"probes": 2, "timeout": "3s"}},
     "load_shedding": {"limit": {"algorithm": "fixed", "limit": 4}}}]}"#;

#[derive(Debug, Clone)]
enum Event {
    Ask { worker: usize, client: usize },
    Answer { which: usize, how: How },
    Wait { millis: u64 },
    Tick,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Good,
    Bad,
    Reset,
    ClientLeft,
}

fn event() -> impl Strategy<Value = Event> {
    let how = prop_oneof![5 => Just(How::Good), 3 => Just(How::Bad), 1 => Just(How::Reset), 1 => Just(How::ClientLeft)];
    prop_oneof![
        6 => (0..WORKERS, 0..CLIENTS.len()).prop_map(|(worker, client)| Event::Ask { worker, client }),
        4 => (any::<usize>(), how).prop_map(|(which, how)| Event::Answer { which, how }),
        2 => (1u64..800).prop_map(|millis| Event::Wait { millis }),
        1 => Just(Event::Tick),
    ]
}

fn answer(how: How) -> Answer {
    match how {
        How::Good => Answer::status("200"),
        How::Bad => Answer::status("503"),
        How::Reset => Answer::none(1 << 4),
        How::ClientLeft => Answer::none(1 << 14),
    }
}

/// A token bucket that knows only of admitted requests, in nanotokens: what the limits must look like if rejections cost
/// nothing.
struct Bucket {
    rate: u64,
    capacity: u64,
    level: u64,
    at: u64,
}

impl Bucket {
    fn new(rate: u64, burst: u64, now: u64) -> Self {
        Self { rate, capacity: burst * SECOND, level: burst * SECOND, at: now }
    }

    fn admit(&mut self, now: u64) -> u64 {
        self.level = self.capacity.min(self.level + (now - self.at) * self.rate);
        self.at = now;
        self.level = self.level.checked_sub(SECOND).expect("a request was admitted that the rate has no room for");
        self.level / SECOND
    }
}

struct Flying {
    admitted: Admitted,
    /// What the headers of its response must say is left, per limit.
    left: [u64; 2],
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn rejections_cost_nothing_and_everything_held_comes_back(events in prop::collection::vec(event(), 1..120)) {
        let mut proxy = Workers::new(WORKERS, CONFIGURATION);
        let mut each: Vec<_> = CLIENTS.iter().map(|_| Bucket::new(2, 3, proxy.now)).collect();
        let mut all = Bucket::new(4, 6, proxy.now);
        let mut flying: Vec<Flying> = Vec::new();
        for event in events {
            match event {
                Event::Ask { worker, client } => {
                    if let Ok(admitted) = proxy.ask(worker, &[("x-client", CLIENTS[client])]) {
                        let left = [each[client].admit(proxy.now), all.admit(proxy.now)];
                        flying.push(Flying { admitted, left });
                    }
                }
                Event::Answer { which, how } if !flying.is_empty() => {
                    let Flying { admitted, left } = flying.swap_remove(which % flying.len());
                    for header in proxy.answer(admitted, &answer(how)) {
                        if let Some(list) = header.strip_prefix("ratelimit: ") {
                            let numbers = list.split([';', ',']).filter_map(|part| part.strip_prefix("r="));
                            let said: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
                            prop_assert_eq!(said, left, "{}", header);
                        }
                    }
                }
                Event::Answer { .. } => {}
                Event::Wait { millis } => proxy.advance(millis * 1_000_000),
                Event::Tick => proxy.tick(),
            }
            prop_assert!(flying.len() <= LIMIT);
            prop_assert_eq!(proxy.stat("tidegate_inflight.policy.all"), i64::try_from(flying.len()).unwrap());
        }
        for Flying { admitted, .. } in flying {
            proxy.answer(admitted, &answer(How::ClientLeft));
        }
        prop_assert_eq!(proxy.stat("tidegate_inflight.policy.all"), 0);
        // Nobody is locked out for good: once all is well again, a request goes through.
        for _ in 0..10 {
            proxy.advance(130 * SECOND);
            proxy.tick();
            for worker in 0..WORKERS {
                if let Ok(admitted) = proxy.ask(worker, &[("x-client", "a")]) {
                    proxy.answer(admitted, &answer(How::Good));
                }
            }
        }
        proxy.advance(130 * SECOND);
        prop_assert!(proxy.ask(0, &[("x-client", "a")]).is_ok());
        prop_assert_eq!(proxy.errors(), 0);
    }
}
