//! Every way to find a limit, drawn.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use tidegate_harness::limits;

use super::stop;

/// Play the same overload with every way to find a concurrency limit, and draw what came of it.
///
/// Everything runs on loopback, on ports the kernel chooses, for some two minutes.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The seed of the requests' times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the drawing goes
    #[arg(long, default_value = "report/limits.svg")]
    output: PathBuf,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let runs = tokio::select! {
        runs = limits::play(arguments.seed) => runs?,
        // Dropping the run ends its Envoys.
        code = stop::asked_to() => return code,
    };
    if let Some(folder) = arguments.output.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let output = arguments.output;
    std::fs::write(&output, limits::chart(&runs)).with_context(|| format!("cannot write {}", output.display()))?;
    println!("{}\nChart: {}", limits::table(&runs), output.display());
    Ok(ExitCode::SUCCESS)
}
