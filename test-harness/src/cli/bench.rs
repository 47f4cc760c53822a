//! The benchmark, in the terminal and as a page.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;
use tidegate_harness::bench::{self, Options};

use super::parse;

/// Measure what Tidegate adds to a request, next to Envoy's own filters, to a Lua filter and to filters that do nothing.
///
/// The exit code is 0 also where a budget is not kept: how far it is missed is part of the result.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Bursts per variant
    #[arg(long, default_value_t = 150)]
    rounds: usize,
    /// Requests per burst
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// No more rounds are begun after so long: the whole run then ends within ten minutes
    #[arg(long, value_name = "DURATION", default_value = "6m", value_parser = parse::duration)]
    at_most: Duration,
    /// A load at this fixed rate; may be repeated
    #[arg(long, default_values = ["1000", "5000"], value_parser = parse::rate)]
    rate: Vec<f64>,
    /// How long each of those lasts
    #[arg(long, default_value = "10s", value_parser = parse::duration)]
    duration: Duration,
    /// Another build of Tidegate to measure beside dist/tidegate.wasm, to see what a change brings
    #[arg(long)]
    against: Option<PathBuf>,
    /// In place of all that: what is added with more workers, policies, keys and headers, and memory
    #[arg(long, conflicts_with = "soak")]
    scale: bool,
    /// In place of all that: requests at full speed for so long, to see whether any memory grows
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    soak: Option<Duration>,
    /// The seed of the order of bursts and of the clients' keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where bench.html and bench.json, scale.json, or soak.json go
    #[arg(long, default_value = "report")]
    output: PathBuf,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { rounds, requests, at_most, rate, duration, against, scale, soak, seed, output } = arguments;
    std::fs::create_dir_all(&output).with_context(|| format!("cannot create {}", output.display()))?;
    let write = |name: &str, value: &Value| {
        std::fs::write(output.join(name), serde_json::to_vec_pretty(value)?)
            .with_context(|| format!("cannot write {name}"))
    };
    let told = |progress| eprintln!("{progress}");
    if let Some(time) = soak {
        let soak = bench::soak(time, seed, told).await?;
        print!("{}", soak.terminal());
        write("soak.json", &soak.json())?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options { rounds, requests, at_most, rates: rate, at_rate: duration, against, seed };
    if scale {
        let scale = bench::scale(&options, told).await?;
        print!("{}", bench::scale_terminal(&scale));
        write("scale.json", &bench::scale_json(&scale))?;
        return Ok(ExitCode::SUCCESS);
    }
    let results = bench::measure(&options, told).await?;
    print!("{}", bench::terminal(&results));
    write("bench.json", &bench::json(&results))?;
    std::fs::write(output.join("bench.html"), bench::html(&results))?;
    println!("\n{}", output.join("bench.html").display());
    Ok(ExitCode::SUCCESS)
}
