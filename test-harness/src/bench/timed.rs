//! What a request costs inside the plugin, callback by callback and call by call, as Tidegate's bench build tells.
//!
//! That build times every callback and every call to the host with the host's clock, inside the VM, and tells sums as
//! counters. Here differences over a burst are taken, and what the timing itself cost is taken off: `nothing` is what it
//! measures where nothing is done between two looks at the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::client::Client;
use super::run::{Bench, CONNECTIONS};
use super::statistics::Spread;
use super::variants::Variant;
use crate::wait::wait_until;

/// A callback or a call to the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// As the ABI calls it.
    pub name: String,
    /// How often, per request.
    pub times: Spread,
    /// Nanoseconds each: of a callback, from its beginning to its end, with the calls it makes.
    pub nanos: Spread,
    /// Of a callback, nanoseconds each that the plugin's own code takes; none of a call to the host.
    pub own: Option<Spread>,
    /// How many of a thousand were refused or found nothing.
    pub refused: Spread,
    /// How many of a thousand took so long that the thread must have been interrupted: they are in no time.
    pub interrupted: Spread,
}

/// What the bench build tells of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timed {
    /// Callbacks of a stream, the dearest first.
    pub callbacks: Vec<Part>,
    /// Calls to the host, those first that cost a request most.
    pub calls: Vec<Part>,
    /// Calls that returned bytes, per request: the host asked for room so often.
    pub returning_bytes: Spread,
    /// Allocations inside the VM, per request.
    pub allocations: Spread,
}

/// What is told of one name since the VMs started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    calls: f64,
    /// Those of them that were not interrupted; sums of nanoseconds, and the calls of a callback, are of these.
    timed: f64,
    nanos: f64,
    refused: f64,
    host_calls: f64,
    host_nanos: f64,
}

type Told = BTreeMap<String, Sums>;

const PREFIX: &str = "wasmcustom.tidegate_bench.";
/// The last callback of a stream, of which the bench build tells last.
const LAST: &str = "proxy_on_delete";
const ROOM: &str = "proxy_on_memory_allocate";
const ALLOCATIONS: &str = "allocations";
const NOTHING: &str = "nothing";
/// The plugin tells twice a second.
const PATIENCE: Duration = Duration::from_secs(20);

fn told(text: &str) -> Result<Told> {
    let mut all = Told::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(PREFIX)) {
        let (name, value) = line.split_once(": ").context("not a stat")?;
        let (name, field) = name.split_once('.').context("a stat without a field")?;
        let value: f64 = value.parse().with_context(|| format!("not a number: {line}"))?;
        let sums = all.entry(name.to_owned()).or_default();
        match field {
            "calls" => sums.calls = value,
            "timed" => sums.timed = value,
            "nanos" => sums.nanos = value,
            "refused" => sums.refused = value,
            "host_calls" => sums.host_calls = value,
            "host_nanos" => sums.host_nanos = value,
            _ => {}
        }
    }
    Ok(all)
}

impl Sums {
    fn since(self, before: Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            timed: self.timed - before.timed,
            nanos: self.nanos - before.nanos,
            refused: self.refused - before.refused,
            host_calls: self.host_calls - before.host_calls,
            host_nanos: self.host_nanos - before.host_nanos,
        }
    }
}

/// What is told between two moments.
fn between(before: &Told, after: &Told) -> Told {
    let since =
        |(name, sums): (&String, &Sums)| (name.clone(), sums.since(before.get(name).copied().unwrap_or_default()));
    after.iter().map(since).collect()
}

/// From what each burst of `requests` told.
fn parts(bursts: &[Told], requests: usize) -> Timed {
    let requests = requests as f64;
    let of = |name: &str, figure: &dyn Fn(&Told, Sums) -> f64| {
        let values = bursts.iter().filter_map(|told| Some(figure(told, *told.get(name)?)));
        Spread::of(&values.filter(|value| value.is_finite()).collect::<Vec<_>>())
    };
    // What a look at the clock before and one after measure of nothing, and what all of it takes.
    let nothing = |told: &Told| {
        let nothing = told.get(NOTHING).copied().unwrap_or_default();
        if nothing.timed > 0.0 {
            (nothing.nanos / nothing.timed, nothing.host_nanos / nothing.calls)
        } else {
            (0.0, 0.0)
        }
    };
    let all = |told: &Told, sums: Sums| {
        let (measured, whole) = nothing(told);
        sums.nanos - sums.timed * measured - sums.host_calls * whole
    };
    let own = |told: &Told, sums: Sums| {
        let (measured, _) = nothing(told);
        all(told, sums) - (sums.host_nanos - sums.host_calls * measured)
    };
    let times = |_: &Told, sums: Sums| sums.calls / requests;
    let part = |name: &str, callback: bool| Part {
        name: name.to_owned(),
        times: of(name, &times),
        nanos: of(name, &|told, sums| all(told, sums) / sums.timed),
        own: callback.then(|| of(name, &|told, sums| own(told, sums) / sums.timed)),
        refused: of(name, &|_, sums| 1_000.0 * sums.refused / sums.calls),
        interrupted: of(name, &|_, sums| 1_000.0 * (sums.calls - sums.timed) / sums.calls),
    };
    let names: Vec<_> = bursts.first().map(|told| told.keys().cloned().collect()).unwrap_or_default();
    let is_callback = |name: &str| name.starts_with("proxy_on_") && name != ROOM;
    let is_call = |name: &str| !name.starts_with("proxy_on_") && ![NOTHING, ALLOCATIONS].contains(&name);
    let sorted = |wanted: &dyn Fn(&str) -> bool, callback| {
        let mut parts: Vec<_> = names.iter().filter(|name| wanted(name)).map(|name| part(name, callback)).collect();
        parts.retain(|part| part.times.median > 0.0);
        parts.sort_by(|a, b| (b.times.median * b.nanos.median).total_cmp(&(a.times.median * a.nanos.median)));
        parts
    };
    Timed {
        callbacks: sorted(&is_callback, true),
        calls: sorted(&is_call, false),
        returning_bytes: of(ROOM, &times),
        allocations: of(ALLOCATIONS, &times),
    }
}

impl Bench {
    /// What a request to this variant, which must be of the bench build, costs inside the plugin: so many bursts.
    ///
    /// # Errors
    /// A request was not answered with 200, or the plugin is not the bench build.
    pub async fn timed(&mut self, variant: &Variant, bursts: usize, requests: usize) -> Result<Timed> {
        let address = self.envoy().address(variant.title);
        let mut client = self.aside(|_| Client::connect(address, CONNECTIONS))?;
        let mut found = Vec::new();
        // The first warms up.
        for burst in 0..=bursts {
            let before = self.told().await?;
            let ended = |told: &Told| told.get(LAST).map_or(0.0, |sums| sums.calls);
            let expected = ended(&before) + requests as f64;
            self.aside(|bench| bench.burst(variant, &mut client, requests))?;
            let after = wait_until(PATIENCE, async || {
                let told = self.told().await.map_err(|error| format!("{error:#}"))?;
                let now = ended(&told);
                if now < expected { Err(format!("told of {now} streams of {expected}")) } else { Ok(told) }
            })
            .await?;
            ensure!(ended(&after) <= expected, "others than the burst's streams have ended");
            if burst > 0 {
                found.push(between(&before, &after));
            }
        }
        Ok(parts(&found, requests))
    }

    async fn told(&self) -> Result<Told> {
        told(&self.envoy().admin_get(&format!("/stats?filter={PREFIX}")).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(calls: f64, nanos: f64, host_calls: f64, host_nanos: f64) -> Sums {
        Sums { calls, timed: calls, nanos, refused: 0.0, host_calls, host_nanos }
    }

    fn exactly(value: f64) -> Spread {
        Spread { lower: value, median: value, upper: value }
    }

    #[test]
    fn stats_become_sums_by_name_and_others_are_left() {
        let text = "wasmcustom.tidegate_bench.proxy_get_property.calls: 12\n\
                    wasmcustom.tidegate_bench.proxy_get_property.nanos: 5000\n\
                    wasmcustom.tidegate_bench.proxy_get_property.refused: 2\n\
                    wasmcustom.tidegate_errors_total: 7\n";
        let expected = Sums { calls: 12.0, nanos: 5_000.0, refused: 2.0, ..Sums::default() };
        assert_eq!(told(text).unwrap(), Told::from([("proxy_get_property".to_owned(), expected)]));
        assert!(told("wasmcustom.tidegate_bench.x.calls: many").is_err());
    }

    #[test]
    fn what_timing_costs_is_taken_off_callbacks_and_calls() {
        // Timing measures 40 ns of nothing and takes 100 ns itself. Ten requests: each callback makes two calls of 500 ns,
        // and 1000 ns of its own.
        let call = 500.0 + 40.0;
        let callback = 1_000.0 + 2.0 * (500.0 + 100.0) + 40.0;
        let burst = Told::from([
            (NOTHING.to_owned(), sums(100.0, 4_000.0, 0.0, 10_000.0)),
            (LAST.to_owned(), sums(10.0, 10.0 * callback, 20.0, 20.0 * call)),
            ("proxy_get_property".to_owned(), sums(20.0, 20.0 * call, 0.0, 0.0)),
            (ROOM.to_owned(), sums(30.0, 0.0, 0.0, 0.0)),
        ]);
        let found = parts(&[burst.clone(), burst], 10);
        let [callback] = &found.callbacks[..] else { panic!("{found:?}") };
        assert_eq!(
            (callback.times, callback.nanos, callback.own),
            (exactly(1.0), exactly(2_000.0), Some(exactly(1_000.0)))
        );
        let [call] = &found.calls[..] else { panic!("{found:?}") };
        assert_eq!((call.times, call.nanos, call.own), (exactly(2.0), exactly(500.0), None));
        assert_eq!(found.returning_bytes, exactly(3.0));
    }

    #[test]
    fn what_was_interrupted_is_counted_and_not_timed() {
        let burst = Told::from([("x".to_owned(), Sums { timed: 9.0, ..sums(10.0, 900.0, 0.0, 0.0) })]);
        let found = parts(&[burst], 10);
        let [call] = &found.calls[..] else { panic!("{found:?}") };
        assert_eq!((call.times, call.nanos, call.interrupted), (exactly(1.0), exactly(100.0), exactly(100.0)));
    }

    #[test]
    fn a_burst_is_what_was_told_since_the_one_before() {
        let told = |calls| Told::from([("x".to_owned(), sums(calls, 10.0 * calls, 0.0, 0.0))]);
        assert_eq!(between(&told(3.0), &told(8.0)), told(5.0));
        assert_eq!(between(&Told::new(), &told(8.0)), told(8.0));
    }
}
