//! What Tidegate adds with more workers, policies, keys and headers, what workers wait for each other, and what memory a key
//! and a policy take.

use anyhow::Result;

use super::memory::{self, Memory};
use super::modules::Modules;
use super::results::Added;
use super::run::Bench;
use super::timed::Timed;
use super::variants::{self, More};
use super::{Options, method};

/// All of it.
#[derive(Debug)]
pub struct Scale {
    /// Names and values: versions, seed, machine.
    pub method: Vec<(String, String)>,
    /// Time.
    pub growth: Vec<Growth>,
    /// Memory.
    pub memory: Vec<Memory>,
    /// The seed.
    pub seed: u64,
}

/// How one thing grows.
#[derive(Debug)]
pub struct Growth {
    /// What is the same for all its rows.
    pub title: String,
    /// What each adds; the first is the control.
    pub added: Vec<Added>,
    /// With several workers, what the page that all of them want costs each, as the bench build tells.
    pub contended: Option<Contended>,
}

/// Workers that want the same page.
#[derive(Debug)]
pub struct Contended {
    /// So many had a part.
    pub workers: usize,
    /// A request of the limit without a key.
    pub timed: Timed,
}

const WORKERS: [u32; 3] = [1, 2, 4];
/// Headers beside the usual ones, and how long their values are.
const HEADERS: [(usize, usize); 5] = [(0, 0), (16, 24), (48, 24), (16, 256), (16, 1024)];
/// Bursts of the bench build.
const BURSTS: usize = 11;

/// Measures all of it, each in an Envoy of its own.
///
/// # Errors
/// Tidegate or Envoy is missing, Envoy does not start, or a request was not answered with 200.
pub async fn measure(options: &Options, told: impl Fn(String) + Send + Sync) -> Result<Scale> {
    let (modules, seed) = (Modules::find()?, options.seed);
    let mut growth = Vec::new();
    for workers in WORKERS {
        let title = format!("{workers} worker{}", if workers == 1 { "" } else { "s" });
        told(title.clone());
        let timed = variants::timed_rate(&modules);
        let mut bench = Bench::start(variants::by_workers()?, vec![timed.listener()], workers, seed).await?;
        let added = bench.added(options, |_| {})?;
        let found = bench.timed(&timed, BURSTS, options.requests).await?;
        let contended = Contended { workers: bench.envoy().busy_workers(timed.title).await?, timed: found };
        growth.push(Growth { title, added, contended: Some(contended) });
    }
    let mut runs = vec![("Policies and keys, 1 worker".to_owned(), variants::by_size()?)];
    for (count, bytes) in HEADERS {
        let more = match count {
            0 => String::new(),
            _ => format!(", {count} of them with values of {bytes} bytes"),
        };
        let title = format!("{} headers{more}, 1 worker", variants::HEADERS + count);
        runs.push((title, variants::by_headers(More { count, bytes })?));
    }
    for (title, variants) in runs {
        told(title.clone());
        let mut bench = Bench::start(variants, Vec::new(), 1, seed).await?;
        growth.push(Growth { title, added: bench.added(options, |_| {})?, contended: None });
    }
    let memory = memory::measure(seed, &told).await?;
    Ok(Scale { method: method::of_run(seed, Some(options))?, growth, memory, seed })
}
