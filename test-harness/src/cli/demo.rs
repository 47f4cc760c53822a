//! The demonstration.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use tidegate_harness::envoy::locate;
use tidegate_harness::{demo, report};

use super::stop;

/// Play four acts without Tidegate and with it, and draw what happened.
///
/// Everything runs on loopback, on ports the kernel chooses, for a little more than a minute. The exit code is 1 when the
/// run did not show what an act promises.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The seed of the requests' times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the page goes. Default: report/demo.html in the repository
    #[arg(long)]
    output: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode> {
    tokio::select! {
        ended = play(arguments) => ended,
        // Dropping the run ends its Envoys.
        code = stop::asked_to() => code,
    }
}

async fn play(arguments: Arguments) -> Result<ExitCode> {
    let report = demo::play(arguments.seed).await?;
    let output = arguments.output.unwrap_or_else(|| locate::repository().join("report/demo.html"));
    if let Some(folder) = output.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    std::fs::write(&output, report::page(&report)).with_context(|| format!("cannot write {}", output.display()))?;
    println!("\n{}", report::table(&report.acts));
    for act in &report.acts {
        println!("{}\n{}\n", act.title, report::wrap(&act.claim, demo::WIDTH, "  "));
    }
    println!("Charts: {}", output.display());
    if report.missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nThis run did not show what it should:");
    report.missing.iter().for_each(|one| eprintln!("- {one}"));
    Ok(ExitCode::FAILURE)
}
