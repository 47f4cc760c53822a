//! One run: Envoy with a listener per variant, bursts in random order, load at fixed rates, calls to the host.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Options;
use super::client::{Client, Upstream};
use super::cpu::{self, Cores, Watched};
use super::results::{Added, AtRate, Cost, HostCall};
use super::statistics::Spread;
use super::variants::{self, More, Variant, write_request};
use crate::client::Latencies;
use crate::envoy::{Cluster, Envoy, Listener};

/// Connections of a burst, and how long their messages gather: the worker is woken for dozens at a time, so that what is
/// measured is the work and not the waking.
pub(super) const CONNECTIONS: usize = 64;
const GATHER: Duration = Duration::from_micros(500);
/// In so many turns comes the load at a fixed rate, so that what the machine does meanwhile falls on all variants.
const TURNS: u32 = 5;
/// How often the host calls are timed.
const PROBES: usize = 21;

/// An Envoy being measured.
pub struct Bench {
    envoy: Envoy,
    workers: Watched,
    variants: Vec<Variant>,
    cores: Option<Cores>,
    upstream: Upstream,
    random: ChaCha8Rng,
}

impl Bench {
    /// Starts Envoy and upstream, each on a core of its own where there are two.
    ///
    /// # Errors
    /// A module or Envoy is missing, or Envoy does not start.
    pub async fn start(variants: Vec<Variant>, others: Vec<Listener>, workers: u32, seed: u64) -> Result<Self> {
        // Several workers need all the cores there are.
        let cores = if workers == 1 { Cores::find()? } else { None };
        let upstream = Upstream::start()?;
        let builder = Envoy::builder().cluster(Cluster::new("backend", upstream.address()?)).log_level("warn");
        let builder = builder.concurrency(workers);
        // The kernel would give a worker more connections than another, or none.
        let balanced = |listener: Listener| if workers == 1 { listener } else { listener.balanced() };
        let listeners = variants.iter().map(Variant::listener).chain(others).map(balanced);
        let envoy = listeners.fold(builder, |builder, listener| builder.listener(listener)).start().await?;
        let process = envoy.process_id()?;
        if let Some(cores) = cores {
            cpu::pin_process(process, cores.proxy)?;
        }
        let worker = Watched::workers(process, workers)?;
        Ok(Self { envoy, workers: worker, variants, cores, upstream, random: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// Runs what measures on the clients' core.
    pub(super) fn aside<T: Send>(&mut self, act: impl FnOnce(&mut Self) -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                if let Some(cores) = self.cores {
                    cpu::pin_here(cores.rest)?;
                    // The kernel may otherwise put off a wake-up by 50 us to save power.
                    rustix::thread::set_current_timer_slack(Some(std::num::NonZero::<u64>::MIN))?;
                }
                act(self)
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What each variant adds: in every round each gets one burst, in a new random order, and is held against the same
    /// round's burst without a filter. `told` hears of every round. There are fewer rounds where they would take too long.
    ///
    /// # Errors
    /// A request was not answered with 200.
    pub fn added(&mut self, options: &Options, told: impl Fn(usize) + Sync) -> Result<Vec<Added>> {
        self.aside(|bench| {
            let connect = |variant: &Variant| Client::connect(bench.envoy.address(variant.title), CONNECTIONS);
            let mut clients = bench.variants.iter().map(connect).collect::<Result<Vec<_>>>()?;
            let mut order: Vec<_> = (0..clients.len()).collect();
            let mut added: Vec<_> =
                bench.variants.iter().map(|variant| Added { title: variant.title, ..Added::default() }).collect();
            let variants = bench.variants.clone();
            let start = Instant::now();
            // The first round warms up.
            for round in 0..=options.rounds {
                if round > 1 && start.elapsed() > options.at_most {
                    break;
                }
                order.shuffle(&mut bench.random);
                let mut costs = vec![Cost::default(); clients.len()];
                for &at in &order {
                    costs[at] = bench.burst(&variants[at], &mut clients[at], options.requests)?;
                }
                if round > 0 {
                    for (added, cost) in added.iter_mut().zip(&costs) {
                        added.base.push(costs[0].ran);
                        added.rounds.push(cost.ran - costs[0].ran);
                        added.waited.push(cost.waited);
                        added.speed.push(cost.speed);
                    }
                }
                told(round);
            }
            Ok(added)
        })
    }

    /// Sends to one variant for so long, as fast as it answers; how many requests that were.
    ///
    /// # Errors
    /// A request was not answered with 200.
    pub fn send_for(&mut self, variant: usize, time: Duration) -> Result<u64> {
        const AT_ONCE: usize = 1_000;
        self.aside(|bench| {
            let variant = bench.variants[variant].clone();
            let mut client = Client::connect(bench.envoy.address(variant.title), CONNECTIONS)?;
            let (start, mut sent) = (Instant::now(), 0);
            while start.elapsed() < time {
                bench.burst(&variant, &mut client, AT_ONCE)?;
                sent += AT_ONCE as u64;
            }
            Ok(sent)
        })
    }

    /// Sends so many requests to one variant, from one of its clients after the other.
    ///
    /// # Errors
    /// A request was not answered with 200.
    pub fn send_in_turn(&mut self, variant: usize, requests: usize) -> Result<()> {
        self.aside(|bench| {
            let Variant { title, keys, more, .. } = bench.variants[variant];
            let mut client = Client::connect(bench.envoy.address(title), CONNECTIONS)?;
            let mut key = 0;
            let write = |into: &mut Vec<u8>| {
                write_request(into, key, more);
                key = (key + 1) % keys;
            };
            client.run(&mut bench.upstream, requests, GATHER, |_| Duration::ZERO, write, |_| {})
        })
    }

    /// The Envoy under load.
    pub fn envoy(&self) -> &Envoy {
        &self.envoy
    }

    /// Memory of the largest of the plugin's VMs, as it tells.
    ///
    /// # Errors
    /// It does not tell.
    pub async fn vm_bytes(&self) -> Result<u64> {
        let stats = self.envoy.stats().await?;
        Ok(stats.stat("tidegate_vm_memory_bytes", &[]).context("Tidegate does not tell its memory")? as u64)
    }

    /// A burst of requests to a variant, as fast as they are answered.
    pub(super) fn burst(&mut self, variant: &Variant, client: &mut Client, requests: usize) -> Result<Cost> {
        let &Variant { keys, title, more, .. } = variant;
        let (start, before) = (Instant::now(), self.workers.account()?);
        let random = &mut self.random;
        let write = |into: &mut Vec<u8>| write_request(into, random.random_range(0..keys), more);
        client
            .run(&mut self.upstream, requests, GATHER, |_| Duration::ZERO, write, |_| {})
            .with_context(|| title.to_owned())?;
        let after = self.workers.account()?;
        let micros = |nanos: u64| nanos as f64 / requests as f64 / 1_000.0;
        Ok(Cost {
            ran: micros(after.ran - before.ran),
            waited: micros(after.waited - before.waited),
            speed: requests as f64 / start.elapsed().as_secs_f64(),
        })
    }

    /// Some variants under load that does not wait for answers, at each rate in turns and in an order drawn anew in each
    /// turn. Before each a burst opens its connections.
    ///
    /// # Errors
    /// A request was not answered with 200.
    pub fn at_rates(
        &mut self,
        titles: &[&str],
        options: &Options,
        told: impl Fn(f64, u32) + Sync,
    ) -> Result<Vec<AtRate>> {
        self.aside(|bench| {
            let mut variants: Vec<_> =
                bench.variants.iter().filter(|variant| titles.contains(&variant.title)).cloned().collect();
            let mut all = Vec::new();
            for &rate in &options.rates {
                let mut found: Vec<_> = variants.iter().map(|variant| AtRate::new(variant.title, rate)).collect();
                for turn in 1..=TURNS {
                    told(rate, turn);
                    variants.shuffle(&mut bench.random);
                    for variant in &variants {
                        if let Some(into) = found.iter_mut().find(|found| found.title == variant.title) {
                            bench.at_rate(variant, options.at_rate / TURNS, into)?;
                        }
                    }
                }
                all.extend(found);
            }
            Ok(all)
        })
    }

    fn at_rate(&mut self, variant: &Variant, time: Duration, into: &mut AtRate) -> Result<()> {
        let (title, keys, rate) = (variant.title, variant.keys, into.rate);
        let mut client = Client::connect(self.envoy.address(title), CONNECTIONS)?;
        self.burst(variant, &mut client, 2 * CONNECTIONS)?;
        let requests = (rate * time.as_secs_f64()) as usize;
        let due = |n: usize| Duration::from_secs_f64(n as f64 / rate);
        let mut latencies = Latencies::default();
        let random = &mut self.random;
        let write = |into: &mut Vec<u8>| write_request(into, random.random_range(0..keys), More::default());
        let (start, before) = (Instant::now(), self.workers.account()?);
        client
            .run(&mut self.upstream, requests, Duration::ZERO, due, write, |latency| {
                latencies.record(latency);
                into.latencies.record(latency);
            })
            .with_context(|| format!("{title} at {rate}/s"))?;
        let seconds = start.elapsed().as_secs_f64();
        into.throughput.push(requests as f64 / seconds);
        into.busy.push((self.workers.account()?.ran - before.ran) as f64 / seconds / 1e7);
        into.turns.push(latencies);
        Ok(())
    }

    /// What calls to the host cost inside the VM, as the probe's listener tells.
    ///
    /// # Errors
    /// It does not answer, or the host refused a call.
    pub async fn host_calls(&self, probe: &str) -> Result<Vec<HostCall>> {
        let mut all: Vec<(String, Vec<f64>)> = Vec::new();
        for _ in 0..PROBES {
            let mut call = crate::client::Call::get("/v1/orders/42?page=2");
            for (name, value) in [("user-agent", "bench/1.0"), ("accept", "*/*"), ("x-api-key", "key-0000042")] {
                call = call.header(name, value);
            }
            let response = crate::client::send(self.envoy.address(probe), call).await?;
            for (row, line) in response.text().lines().enumerate() {
                let (name, nanos) = line.split_once('\t').context("the probe's answer has other lines")?;
                let Ok(nanos) = nanos.parse() else { bail!("the host refused to {name}: {nanos}") };
                if all.len() <= row {
                    all.push((name.to_owned(), Vec::new()));
                }
                all[row].1.push(nanos);
            }
        }
        if let Some(crossing) = crossing(&all) {
            all.push(("into the VM and back: 16 bytes less 0".to_owned(), crossing));
        }
        Ok(all.into_iter().map(|(name, nanos)| HostCall { name, nanos: Spread::of(&nanos) }).collect())
    }
}

/// What a crossing into the VM takes: reading shared data that is there and empty needs none, reading 16 bytes one.
fn crossing(all: &[(String, Vec<f64>)]) -> Option<Vec<f64>> {
    let read = |bytes: &str| all.iter().find(|(name, _)| name == &format!("read shared data, {bytes} bytes"));
    let ((_, some), (_, none)) = read("16").zip(read("0"))?;
    Some(some.iter().zip(none).map(|(some, none)| some - none).collect())
}

/// The listener of the module that times calls to the host.
pub fn probe(title: &str, module: &std::path::Path) -> Listener {
    let filter = crate::envoy::Tidegate::with_module(module.to_owned()).name(title).vm_id(title);
    Listener::new(title).filter(filter)
}

/// The variants that are put under load at fixed rates.
pub const AT_RATES: [&str; 5] = [
    variants::title::NONE,
    variants::title::STOCK,
    variants::title::NATIVE,
    variants::title::UNMATCHED,
    variants::title::ALL,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crossing_is_what_reading_bytes_takes_more_than_reading_none() {
        let row = |bytes: u32, nanos: &[f64]| (format!("read shared data, {bytes} bytes"), nanos.to_vec());
        let all = [row(0, &[90.0, 100.0]), row(16, &[490.0, 530.0]), row(1040, &[600.0, 600.0])];
        assert_eq!(crossing(&all), Some(vec![400.0, 430.0]));
        assert_eq!(crossing(&all[..1]), None);
    }
}
