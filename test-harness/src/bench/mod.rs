//! What Tidegate costs, next to Envoy's own filters and to filters that do nothing.
//!
//! One Envoy with one worker has a listener for each variant. The worker has a core of its own; the clients and the
//! upstream, both as cheap as can be, share another. The measure is the worker's time on its processor, from the kernel's
//! account of that thread, so that waiting, the network and the clients do not count. Requests go through to an upstream
//! over kept connections, as in life: circuit breakers judge real answers, and what is added is added to a whole request.
//!
//! Each round sends one burst to every variant, in an order drawn anew, and every burst is held against the same round's burst
//! without a filter: what the machine does meanwhile falls on all alike. Medians and quartiles are of these differences.
//!
//! Where the time goes inside the plugin is told by a build of it that times its callbacks and calls (feature `bench`), at a
//! listener of its own: what that timing costs is in no other figure.

mod budgets;
mod client;
mod cpu;
mod memory;
mod method;
mod modules;
mod output;
mod output_scale;
mod page;
mod results;
mod run;
mod scale;
mod soak;
mod statistics;
mod timed;
mod variants;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::modules::Modules;
use self::run::Bench;
use self::statistics::Spread;

pub use self::output::{json, terminal};
pub use self::output_scale::{json as scale_json, terminal as scale_terminal};
pub use self::page::html;
pub use self::results::Results;
pub use self::scale::{Scale, measure as scale};
pub use self::soak::{Sample, Soak, soak};

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bursts per variant.
    pub rounds: usize,
    /// Requests per burst.
    pub requests: usize,
    /// No more rounds are begun after so long.
    pub at_most: Duration,
    /// Requests per second of the loads at fixed rates.
    pub rates: Vec<f64>,
    /// How long each of those lasts.
    pub at_rate: Duration,
    /// Another build of Tidegate, measured beside this one.
    pub against: Option<PathBuf>,
    /// Of the order of bursts and the clients' keys.
    pub seed: u64,
}

/// Measures everything; `told` hears how far it is.
///
/// # Errors
/// A module or Envoy is missing, Envoy does not start, or a request was not answered with 200.
pub async fn measure(options: &Options, told: impl Fn(String) + Send + Sync) -> Result<Results> {
    const PROBE: &str = "probe";
    const TIMED_BURSTS: usize = 21;
    let start = Instant::now();
    let modules = Modules::find()?;
    let variants = variants::all(&modules, options.against.as_deref())?;
    told(format!("starting Envoy with {} listeners, seed {}", variants.len(), options.seed));
    let timed = variants::timed(&modules);
    let others = vec![run::probe(PROBE, &modules.probe), timed.listener()];
    let mut bench = Bench::start(variants, others, 1, options.seed).await?;
    // A round that does not count, after which no VM has a reason to grow.
    bench.added(&Options { rounds: 0, ..options.clone() }, |_| {})?;
    let warm = bench.vm_bytes().await?;
    let added = bench.added(options, |round| {
        if round % 10 == 0 {
            told(format!("bursts: round {round} of {}", options.rounds));
        }
    })?;
    let at_rates =
        bench.at_rates(&run::AT_RATES, options, |rate, turn| told(format!("{rate} requests/s: turn {turn}")))?;
    let vm_bytes = (warm, bench.vm_bytes().await?);
    told("inside the plugin".into());
    let timed = bench.timed(&timed, TIMED_BURSTS, options.requests).await?;
    told("calls to the host".into());
    let host_calls = bench.host_calls(PROBE).await?;
    let budgets = budgets::all(&added, &timed, vm_bytes, options.seed);
    let base = Spread::of(&added.first().map(|added| added.base.clone()).unwrap_or_default());
    let mut results = Results {
        method: method::of_run(options.seed, Some(options))?,
        base,
        added,
        at_rates,
        timed,
        host_calls,
        budgets,
        seed: options.seed,
        took: start.elapsed(),
    };
    let rounds = results.added.first().map_or(0, |added| added.rounds.len());
    let more = [
        ("Rounds measured", rounds.to_string()),
        ("Without a filter", format!("{:.1} us a request ({:.1} to {:.1})", base.median, base.lower, base.upper)),
        ("Took", format!("{:.0} s", results.took.as_secs_f64())),
    ];
    results.method.extend(more.map(|(name, value)| (name.to_owned(), value)));
    Ok(results)
}
