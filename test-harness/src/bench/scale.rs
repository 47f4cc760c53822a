//! What Tidegate adds with more workers, policies, keys and headers.

use anyhow::Result;

use super::results::Added;
use super::run::Bench;
use super::{Options, variants};

/// How one thing grows.
#[derive(Debug)]
pub struct Growth {
    /// What is the same for all its rows.
    pub title: String,
    /// What each adds; the first is the control.
    pub added: Vec<Added>,
}

const WORKERS: [u32; 3] = [1, 2, 4];
/// Headers beside the usual ones.
const HEADERS: [usize; 3] = [0, 16, 48];

/// Measures all of it, each in an Envoy of its own.
///
/// # Errors
/// Tidegate or Envoy is missing, Envoy does not start, or a request was not answered with 200.
pub async fn measure(options: &Options, told: impl Fn(String) + Send + Sync) -> Result<Vec<Growth>> {
    let mut runs = Vec::new();
    for workers in WORKERS {
        runs.push((
            format!("{workers} worker{}", if workers == 1 { "" } else { "s" }),
            workers,
            variants::by_workers()?,
        ));
    }
    runs.push(("Policies and keys, 1 worker".to_owned(), 1, variants::by_size()?));
    for headers in HEADERS {
        runs.push((format!("{} headers, 1 worker", variants::HEADERS + headers), 1, variants::by_headers(headers)?));
    }
    let mut found = Vec::new();
    for (title, workers, variants) in runs {
        told(title.clone());
        let mut bench = Bench::start(variants, None, workers, options.seed).await?;
        found.push(Growth { title, added: bench.added(options, |_| {})? });
    }
    Ok(found)
}
