//! One run: Envoy with a listener per variant, bursts in random order, load at fixed rates, calls to the host.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Options;
use super::client::{Client, Upstream};
use super::cpu::{self, Cores, Watched};
use super::results::{Added, AtRate, HostCall};
use super::statistics::Spread;
use super::variants::{self, Variant, write_request};
use crate::client::Latencies;
use crate::envoy::{Cluster, Envoy, Listener};

/// Connections of a burst, and how long their messages gather: the worker is woken for dozens at a time, so that what is
/// measured is the work and not the waking.
const CONNECTIONS: usize = 64;
const GATHER: Duration = Duration::from_micros(500);
/// Connections for load at a fixed rate: as many as can be busy before latency is worth nothing.
const OPEN_CONNECTIONS: usize = 64;
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
    pub async fn start(variants: Vec<Variant>, probe: Option<Listener>, workers: u32, seed: u64) -> Result<Self> {
        // Several workers need all the cores there are.
        let cores = if workers == 1 { Cores::find()? } else { None };
        let upstream = Upstream::start()?;
        let builder = Envoy::builder().cluster(Cluster::new("backend", upstream.address()?)).log_level("warn");
        let builder = builder.concurrency(workers);
        let listeners = variants.iter().map(Variant::listener).chain(probe);
        let envoy = listeners.fold(builder, |builder, listener| builder.listener(listener)).start().await?;
        let process = envoy.process_id()?;
        if let Some(cores) = cores {
            cpu::pin_process(process, cores.proxy)?;
        }
        let worker = Watched::workers(process, workers)?;
        Ok(Self { envoy, workers: worker, variants, cores, upstream, random: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// Runs what measures on the clients' core.
    fn aside<T: Send>(&mut self, act: impl FnOnce(&mut Self) -> Result<T> + Send) -> Result<T> {
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
    /// round's burst without a filter. `told` hears of every round.
    ///
    /// # Errors
    /// A request was not answered with 200.
    pub fn added(&mut self, options: &Options, told: impl Fn(usize) + Sync) -> Result<Vec<Added>> {
        self.aside(|bench| {
            let connect = |variant: &Variant| Client::connect(bench.envoy.address(variant.title), CONNECTIONS);
            let mut clients = bench.variants.iter().map(connect).collect::<Result<Vec<_>>>()?;
            let mut order: Vec<_> = (0..clients.len()).collect();
            let mut added: Vec<_> = bench
                .variants
                .iter()
                .map(|variant| Added { title: variant.title, base: Vec::new(), rounds: Vec::new() })
                .collect();
            // The first round warms up.
            for round in 0..=options.rounds {
                order.shuffle(&mut bench.random);
                let mut micros = vec![0.0; clients.len()];
                for &at in &order {
                    micros[at] = bench.burst(at, &mut clients[at], options.requests)?;
                }
                if round > 0 {
                    for (added, &cost) in added.iter_mut().zip(&micros) {
                        added.base.push(micros[0]);
                        added.rounds.push(cost - micros[0]);
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
            let mut client = Client::connect(bench.envoy.address(bench.variants[variant].title), CONNECTIONS)?;
            let (start, mut sent) = (Instant::now(), 0);
            while start.elapsed() < time {
                bench.burst(variant, &mut client, AT_ONCE)?;
                sent += AT_ONCE as u64;
            }
            Ok(sent)
        })
    }

    /// The Envoy under load.
    pub fn envoy(&self) -> &Envoy {
        &self.envoy
    }

    /// Microseconds of the workers' time per request.
    fn burst(&mut self, variant: usize, client: &mut Client, requests: usize) -> Result<f64> {
        let Variant { keys, title, headers, .. } = self.variants[variant];
        let before = self.workers.nanos()?;
        let random = &mut self.random;
        let write = |into: &mut Vec<u8>| write_request(into, random.random_range(0..keys), headers);
        client
            .run(&mut self.upstream, requests, GATHER, |_| Duration::ZERO, write, |_| {})
            .with_context(|| title.to_owned())?;
        Ok((self.workers.nanos()? - before) as f64 / requests as f64 / 1_000.0)
    }

    /// Some variants under load that does not wait for answers.
    ///
    /// # Errors
    /// A request was not answered with 200.
    pub fn at_rates(
        &mut self,
        titles: &[&str],
        options: &Options,
        told: impl Fn(&str, f64) + Sync,
    ) -> Result<Vec<AtRate>> {
        self.aside(|bench| {
            let mut found = Vec::new();
            for &rate in &options.rates {
                for at in 0..bench.variants.len() {
                    let (title, keys) = (bench.variants[at].title, bench.variants[at].keys);
                    if !titles.contains(&title) {
                        continue;
                    }
                    told(title, rate);
                    let requests = (rate * options.at_rate.as_secs_f64()) as usize;
                    let mut client = Client::connect(bench.envoy.address(title), OPEN_CONNECTIONS)?;
                    let due = |n: usize| Duration::from_secs_f64(n as f64 / rate);
                    let mut latencies = Latencies::default();
                    let random = &mut bench.random;
                    let write = |into: &mut Vec<u8>| write_request(into, random.random_range(0..keys), 0);
                    let (start, before) = (Instant::now(), bench.workers.nanos()?);
                    client
                        .run(&mut bench.upstream, requests, Duration::ZERO, due, write, |latency| {
                            latencies.record(latency)
                        })
                        .with_context(|| format!("{title} at {rate}/s"))?;
                    let seconds = start.elapsed().as_secs_f64();
                    let busy = (bench.workers.nanos()? - before) as f64 / seconds / 1e7;
                    found.push(AtRate { title, rate, throughput: requests as f64 / seconds, busy, latencies });
                }
            }
            Ok(found)
        })
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
        Ok(all.into_iter().map(|(name, nanos)| HostCall { name, nanos: Spread::of(&nanos) }).collect())
    }
}

/// The listener of the module that times calls to the host.
pub fn probe(title: &str, module: &std::path::Path) -> Listener {
    let filter = crate::envoy::Tidegate::with_module(module.to_owned()).name(title).vm_id(title);
    Listener::new(title).filter(filter)
}

/// The variants that are put under load at fixed rates.
pub const AT_RATES: [&str; 4] =
    [variants::title::NONE, variants::title::STOCK, variants::title::NATIVE, variants::title::ALL];
