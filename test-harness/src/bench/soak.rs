//! A long run at full speed, to see whether anything grows.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::run::Bench;
use super::{method, output, variants};

/// How things stood at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since the start.
    pub at: Duration,
    /// Answered so far.
    pub requests: u64,
    /// Memory of the largest of the plugin's VMs, as it tells.
    pub vm_bytes: u64,
    /// Memory of Envoy's process.
    pub resident_bytes: u64,
}

/// A soak.
#[derive(Debug)]
pub struct Soak {
    /// Names and values: versions, seed, machine.
    pub method: Vec<(String, String)>,
    /// Worker threads.
    pub workers: u32,
    /// In the order of time.
    pub samples: Vec<Sample>,
}

const WORKERS: u32 = 2;
/// So many looks at it.
const SAMPLES: u32 = 20;
/// The part of the time in which everything may still grow to its size.
const WARM: f64 = 0.1;

/// Sends requests of a million clients for so long, as fast as they are answered.
///
/// # Errors
/// Tidegate or Envoy is missing, Envoy does not start, or a request was not answered with 200.
pub async fn soak(time: Duration, seed: u64, told: impl Fn(String)) -> Result<Soak> {
    let mut bench = Bench::start(variants::soak()?, Vec::new(), WORKERS, seed).await?;
    let start = Instant::now();
    let (mut requests, mut samples) = (0, Vec::new());
    while start.elapsed() < time {
        requests += bench.send_for(0, time / SAMPLES)?;
        let vm_bytes = bench.vm_bytes().await?;
        let sample =
            Sample { at: start.elapsed(), requests, vm_bytes, resident_bytes: bench.envoy().resident_bytes()? };
        told(format!("{:.0} s: {requests} requests", sample.at.as_secs_f64()));
        samples.push(sample);
    }
    Ok(Soak { method: method::of_run(seed, None)?, workers: WORKERS, samples })
}

impl Soak {
    /// By how much the VM and the process grew once warm, in bytes.
    pub fn growth(&self) -> Option<(i64, i64)> {
        let last = self.samples.last()?;
        let warm = self.samples.iter().find(|sample| sample.at.as_secs_f64() >= WARM * last.at.as_secs_f64())?;
        let more = |now: u64, then: u64| now.cast_signed().saturating_sub(then.cast_signed());
        Some((more(last.vm_bytes, warm.vm_bytes), more(last.resident_bytes, warm.resident_bytes)))
    }

    /// Requests per second over all of it.
    pub fn speed(&self) -> f64 {
        self.samples.last().map_or(0.0, |last| last.requests as f64 / last.at.as_secs_f64())
    }

    /// For the terminal.
    pub fn terminal(&self) -> String {
        let mut out = format!("\nA soak at full speed, {} workers\n", self.workers);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {:>7}  {:>12}  {:>12}  {:>12}", "after", "requests", "one VM", "the process");
        for Sample { at, requests, vm_bytes, resident_bytes } in &self.samples {
            let (vm, process) = (vm_bytes / 1024, resident_bytes / 1024);
            let _ = writeln!(out, "  {:>5.0} s  {requests:>12}  {vm:>8} KiB  {process:>8} KiB", at.as_secs_f64());
        }
        if let Some((vm, process)) = self.growth() {
            let flat = if vm > 0 { "not flat" } else { "flat" };
            let _ = writeln!(
                out,
                "{flat}: once warm the largest VM grew by {vm} bytes, and the process by {} KiB, over {:.0} requests/s.",
                process / 1024,
                self.speed()
            );
        }
        for (name, value) in &self.method {
            let _ = writeln!(out, "{name}: {value}");
        }
        out
    }

    /// For other tools.
    pub fn json(&self) -> Value {
        let samples = self.samples.iter().map(|sample| {
            json!({
                "seconds": sample.at.as_secs_f64(), "requests": sample.requests,
                "vm_bytes": sample.vm_bytes, "resident_bytes": sample.resident_bytes
            })
        });
        let growth = self.growth().map(|(vm, process)| json!({"vm_bytes": vm, "resident_bytes": process}));
        json!({
            "method": output::method(&self.method), "requests_per_second": self.speed(), "workers": self.workers,
             "samples": samples.collect::<Vec<_>>(), "growth_once_warm": growth
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_counts_from_when_a_tenth_of_the_time_is_over() {
        let sample = |second: u64, vm_bytes| Sample {
            at: Duration::from_secs(second),
            requests: second,
            vm_bytes,
            resident_bytes: 1_000 + second,
        };
        let soak = |last| Soak {
            method: Vec::new(),
            workers: 1,
            samples: vec![sample(1, 5), sample(10, 7), sample(50, 7), sample(100, last)],
        };
        assert_eq!(soak(7).growth(), Some((0, 90)));
        assert_eq!(soak(9).growth(), Some((2, 90)));
        assert_eq!(Soak { method: Vec::new(), workers: 1, samples: Vec::new() }.growth(), None);
    }
}
