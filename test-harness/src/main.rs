//! `tidegate-harness`: a demonstration, an Envoy to try Tidegate in, a check of configurations, and an upstream and load for a
//! proxy you run yourself.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::Cli::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
