//! Checks a configuration without a proxy.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use tidegate::config;
use tidegate::engine::stats::{Kind, MetricId, Metrics, Registry};
use tidegate::engine::{Engine, Env, SplitMix64};
use tidegate::share::Memory;

/// Check a Tidegate configuration, as the plugin does when it is loaded.
///
/// Prints every error with its place, and exits with 1 when there is one.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The configuration, in JSON; - reads standard input
    file: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let file = &arguments.file;
    let bytes = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
        bytes
    } else {
        std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?
    };
    match check(&bytes) {
        Ok(policies) => {
            println!("{}: valid, policies: {policies}", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            eprintln!("{errors}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// How many policies there are, once they have been made ready as by a worker's VM. Here a limit takes more memory than there,
/// so that what has room here has room there.
fn check(bytes: &[u8]) -> Result<usize, String> {
    let config = config::read(bytes).map_err(|errors| errors.to_string())?;
    let (share, own, stats) = (Memory::lazy(), Memory::lazy(), Registry::default());
    let mut env = Env {
        now: 1,
        share: &share,
        own: &own,
        random: &mut SplitMix64::new(1),
        metrics: &Nowhere,
        stats: &stats,
        may_wait: true,
        hash_key: (1, 2),
    };
    Engine::new(&config, &[], "validate", &mut env).map(|_| config.policies.len())
}

/// Stats that nobody reads.
struct Nowhere;

impl Metrics for Nowhere {
    fn define(&self, _: Kind, _: &str) -> Option<MetricId> {
        None
    }

    fn add(&self, _: MetricId, _: i64) {}

    fn record(&self, _: MetricId, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a document leaves to the engine was not looked at: it was called valid, and the plugin refused it.
    #[test]
    fn what_the_plugin_refuses_is_not_valid() {
        let bulkheads = |policies: usize| {
            let policy = |n: usize| {
                format!(
                    r#"{{"name": "p{n}", "load_shedding": {{"key": [{{"header": "x"}}], "max_keys": 65536, "queue": {{}}}}}}"#
                )
            };
            format!(r#"{{"policies": [{}]}}"#, (0..policies).map(policy).collect::<Vec<_>>().join(","))
        };
        assert_eq!(check(bulkheads(2).as_bytes()), Ok(2));
        let refused = check(bulkheads(8).as_bytes()).unwrap_err();
        assert!(refused.contains("load shedding: with its") && refused.contains("the most is 402653184"), "{refused}");
        let misspelt = check(br#"{"policys": []}"#).unwrap_err();
        assert!(misspelt.contains("policys"), "{misspelt}");
    }
}
