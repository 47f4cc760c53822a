//! How a run was made: versions, machine, seed, settings.

use std::process::Command;

use anyhow::Result;

use super::Options;
use crate::envoy::locate;

/// What every kind of run tells of itself.
///
/// # Errors
/// Tidegate or Envoy is missing.
pub fn of_run(seed: u64, options: Option<&Options>) -> Result<Vec<(String, String)>> {
    let bytes = std::fs::metadata(locate::tidegate_wasm()?)?.len();
    let mut rows = vec![
        ("Tidegate", format!("{}, {}, {bytes} bytes", env!("CARGO_PKG_VERSION"), commit())),
        ("Envoy", locate::envoy()?.version()?),
        ("Machine", crate::report::machine()),
        ("Kernel", kernel()),
        ("Seed", seed.to_string()),
    ];
    if let Some(Options { rounds, requests, at_most, .. }) = options {
        let most = at_most.as_secs();
        rows.push(("Asked for", format!("{rounds} rounds of {requests} requests per variant, in at most {most} s")));
    }
    Ok(rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The commit of this repository, and whether anything has been changed since.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(locate::repository()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "no commit known".into() };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => format!("commit {commit}"),
        _ => format!("commit {commit} with changes"),
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or("unknown".into(), |text| text.trim().to_owned())
}
