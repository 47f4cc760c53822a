//! The demonstration: four acts, each played without Tidegate and then with it, the same requests at the same moments.
//!
//! Every figure comes from the run. An act that did not show what it promises makes the demonstration fail.

mod acts;
mod envoy_yaml;
mod progress;
mod stage;
mod verdict;

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

pub use envoy_yaml::{EnvoyYaml, free_or_any};

use crate::envoy::locate;
use crate::report::{self, Act, Mark, Report};
use acts::{SCRIPTS, Script};
use progress::Progress;
use stage::Stage;
use verdict::{Budget, Verdict};

/// The policy that is shown, below the repository's root.
pub const POLICY: &str = "envoy/policies/demo.json";

/// How wide lines of text are in the terminal.
pub const WIDTH: usize = 100;

/// Plays all acts, with the progress on standard output.
///
/// # Errors
/// Envoy or the module is missing, or Envoy did not start or went away.
pub async fn play(seed: u64) -> Result<Report> {
    let path = locate::repository().join(POLICY);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let policy: Value = serde_json::from_str(&text)?;
    let budget = budget(&text)?;
    println!("Starting two Envoys, one with Tidegate and one without (seed {seed}).");
    let mut stages = (Stage::open(None).await?, Stage::open(Some(&policy)).await?);
    let (mut all, mut missing) = (Vec::new(), Vec::new());
    for (script, number) in SCRIPTS.iter().zip(1..) {
        let story = report::wrap(script.story, WIDTH, "  ");
        println!("\nAct {number} of {}: {}\n{story}", SCRIPTS.len(), script.title);
        let most = script.phases.iter().map(|phase| phase.crowd + phase.greedy).fold(0.0, f64::max);
        let most = most.min(acts::upstream().capacity());
        let seed = seed + number * 100;
        let progress = |run| Progress::new(run, script.seconds(), most);
        let without = stages.0.perform(script, seed, &progress("without")).await?;
        let with = stages.1.perform(script, seed, &progress("with")).await?;
        let Verdict { claim, comparisons, missing: lacks } = verdict::judge(script, &without, &with, budget);
        missing.extend(lacks.into_iter().map(|lack| format!("{}: {lack}", script.title)));
        all.push(Act {
            title: script.title.into(),
            story: script.story.into(),
            seconds: script.seconds(),
            mark: mark(script),
            greedy: script.greedy(),
            shows_breaker: script.key == acts::Key::Failing,
            without,
            with,
            claim,
            comparisons,
        });
    }
    for (stage, run) in [(&stages.0, "without"), (&stages.1, "with")] {
        let checked = stage.check_ledgers().await;
        missing
            .extend(checked.err().map(|error| format!("clients, upstream and stats agree {run} Tidegate: {error:#}")));
    }
    Ok(Report { setting: setting(), acts: all, policy: text, missing, method: method(seed)? })
}

/// One client's budget, read as the plugin reads it.
fn budget(policy: &str) -> Result<Budget> {
    let config = tidegate::config::read(policy.as_bytes()).map_err(|errors| anyhow!("{POLICY}:\n{errors}"))?;
    let limit = config.policies.first().and_then(|policy| policy.rate_limits.first());
    let quota = limit.with_context(|| format!("{POLICY} has no rate limit"))?.quota;
    let per_second = quota.rate.count as f64 / quota.rate.period.as_secs_f64();
    Ok(Budget { per_second, burst: quota.burst as f64 })
}

fn mark(script: &Script) -> Option<Mark> {
    let (from, to) = script.trouble();
    script.trouble.map(|(_, label)| Mark { from, to, label: label.into() })
}

fn setting() -> String {
    format!(
        "An upstream that can serve {:.0} requests a second, behind an Envoy, in four acts.",
        acts::upstream().capacity()
    )
}

/// How it was measured.
fn method(seed: u64) -> Result<Vec<(String, String)>> {
    let model = acts::upstream();
    let milliseconds = |time: Duration| format!("{} ms", time.as_millis());
    let rows = [
        ("Date", httpdate::fmt_http_date(SystemTime::now())),
        ("Tidegate", env!("CARGO_PKG_VERSION").to_owned()),
        ("Envoy", short(&locate::envoy()?.version()?)),
        (
            "Envoy's configuration",
            format!("envoy/envoy.yaml, {} workers; without Tidegate: the filter taken out", stage::WORKERS),
        ),
        ("Machine", report::machine()),
        ("Seed", seed.to_string()),
        (
            "Clients",
            format!(
                "open loop: requests leave when the schedule says (evenly, each moved by chance), whether or not earlier ones were answered; \
             latency counts from that moment; a client gives up after {}; {} clients besides the greedy one",
                report::milliseconds(Some(acts::PATIENCE.as_secs_f64() * 1000.0)),
                acts::CLIENTS
            ),
        ),
        (
            "Upstream",
            format!(
                "{} requests at a time, each for {}, so {:.0} a second; the others wait in a queue without bound",
                model.slots,
                milliseconds(model.service_time),
                model.capacity()
            ),
        ),
        ("Place", "clients, Envoy and upstream share the machine, over loopback".to_owned()),
        (
            "Checked",
            "what clients, upstream and Tidegate's stats say of every request is held against each other".to_owned(),
        ),
    ];
    Ok(rows.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Envoy's version without the commit before it and what follows.
fn short(version: &str) -> String {
    let number =
        version.split('/').find(|part| part.starts_with(|first: char| first.is_ascii_digit()) && part.contains('.'));
    number.unwrap_or(version).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_the_shipped_policys() {
        let text = std::fs::read_to_string(locate::repository().join(POLICY)).unwrap();
        let budget = budget(&text).unwrap();
        assert_eq!((budget.per_second, budget.burst), (40.0, 40.0));
    }

    #[test]
    fn of_envoys_version_the_number_is_shown() {
        assert_eq!(short("9e5580933739775e8bce/1.40.0/Clean/RELEASE/BoringSSL"), "1.40.0");
        assert_eq!(short("unknown"), "unknown");
    }
}
