//! An open-loop client with a summary.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use rand::RngExt;
use tidegate_harness::client::{Call, Ending, Latencies, Load, Schedule, Tally};

use super::parse;

/// Send requests at a fixed rate, whether or not they are answered, and sum up what became of them.
///
/// Latencies count from the moment each request was meant to leave. The exit code is 1 when some requests got no answer at all.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The proxy, as host:port
    #[arg(long, default_value = "127.0.0.1:10000")]
    address: String,
    /// Requests per second
    #[arg(long, default_value = "100", value_parser = parse::rate)]
    rate: f64,
    /// How long to send
    #[arg(long, default_value = "10s", value_parser = parse::duration)]
    duration: Duration,
    /// The path of every request
    #[arg(long, default_value = "/")]
    path: String,
    /// The method of every request
    #[arg(long, default_value = "GET", value_parser = parse::method)]
    method: String,
    /// A header of every request, such as "x-api-key: gold"; may be repeated
    #[arg(long, value_parser = parse::header)]
    header: Vec<(String, String)>,
    /// Spread the requests over this many clients, told apart by --key-header
    #[arg(long, default_value_t = 0)]
    keys: u32,
    /// The header that carries a client's key
    #[arg(long, default_value = "x-api-key", value_parser = parse::header_name)]
    key_header: String,
    /// Over this many HTTP/2 connections. 0: HTTP/1.1, over as many as are needed
    #[arg(long, default_value_t = 0)]
    http2: usize,
    /// When a request counts as unanswered
    #[arg(long, default_value = "10s", value_parser = parse::duration)]
    timeout: Duration,
    /// The seed of the requests' times and keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let address = resolve(&arguments.address).await?;
    let schedule = Schedule::constant(arguments.rate, arguments.duration).jitter(1.0);
    let mut load = Load::new(address, schedule).seed(arguments.seed).timeout(arguments.timeout);
    if arguments.http2 > 0 {
        load = load.http2(arguments.http2);
    }
    println!("{} requests/s for {:?} to {address}, seed {}", arguments.rate, arguments.duration, arguments.seed);
    let load = load.calls(move |_, random| {
        let mut call = Call::new(&arguments.method, arguments.path.clone());
        for (name, value) in &arguments.header {
            call = call.header(name, value);
        }
        if arguments.keys > 0 {
            call = call.header(&arguments.key_header, format!("key-{}", random.random_range(0..arguments.keys)));
        }
        call
    });
    let (mut tally, mut latencies) = (Tally::default(), BTreeMap::<&str, Latencies>::new());
    let mut first_error = None;
    let start = Instant::now();
    load.run_into(|outcome| {
        tally.count(&outcome.ending);
        let kind = match outcome.ending {
            Ending::Answered(200..=299) => "good answers",
            Ending::Answered(_) => "other answers",
            Ending::Rejected { .. } | Ending::Local(_) => "rejections",
            Ending::Cancelled(_) => return,
            Ending::Errored(error) => {
                first_error.get_or_insert(error);
                return;
            }
        };
        latencies.entry(kind).or_default().record(outcome.latency);
    })
    .await;
    println!("{tally}");
    for (kind, latencies) in &latencies {
        println!("{kind}: {latencies}");
    }
    let good = latencies.get("good answers").map_or(0, Latencies::count);
    println!("goodput: {:.1}/s", good as f64 / start.elapsed().as_secs_f64());
    match first_error {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => {
            eprintln!("the first error: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn resolve(address: &str) -> Result<SocketAddr> {
    let mut all = tokio::net::lookup_host(address).await.with_context(|| format!("not a host and port: {address}"))?;
    all.next().with_context(|| format!("{address} has no address"))
}
