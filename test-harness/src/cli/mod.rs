//! The command line.

mod bench;
mod demo;
mod limits;
mod load;
mod parse;
mod run;
mod stop;
mod upstream;
mod validate;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// A demonstration, an Envoy to try Tidegate in, a check of configurations, a sample upstream and an open-loop client.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Demo(demo::Arguments),
    Limits(limits::Arguments),
    Upstream(upstream::Arguments),
    Load(load::Arguments),
    Run(run::Arguments),
    Validate(validate::Arguments),
}

impl Cli {
    /// Runs the command; it fails, rather than errs, when the proxy did not answer some requests.
    pub(crate) async fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Bench(arguments) => bench::run(arguments).await,
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Limits(arguments) => limits::run(arguments).await,
            Command::Upstream(arguments) => upstream::run(arguments).await,
            Command::Load(arguments) => load::run(arguments).await,
            Command::Run(arguments) => run::run(arguments).await,
            Command::Validate(arguments) => validate::run(&arguments),
        }
    }
}
