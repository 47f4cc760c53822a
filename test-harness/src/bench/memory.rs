//! What a policy and a key take of memory: two Envoys get the same requests, one with few and one with many of them.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::run::Bench;
use super::variants::{beside, key, of_policies};

/// What one kind of thing takes.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Of what.
    pub what: &'static str,
    /// With few of them.
    pub few: Stood,
    /// With many.
    pub many: Stood,
}

/// How memory stood after the requests.
#[derive(Debug, Clone, Copy)]
pub struct Stood {
    /// So many of them.
    pub count: u32,
    /// One worker's VM.
    pub vm_bytes: u64,
    /// Envoy's process with all its VMs: one worker's, and that of its main thread, which serves nobody.
    pub process_bytes: u64,
}

impl Memory {
    /// What each one takes of a VM, and of the process.
    pub fn each(&self) -> (f64, f64) {
        let more = f64::from(self.many.count.saturating_sub(self.few.count).max(1));
        let each = |few: u64, many: u64| (many as f64 - few as f64) / more;
        (each(self.few.vm_bytes, self.many.vm_bytes), each(self.few.process_bytes, self.many.process_bytes))
    }
}

/// The plugin tells its memory twice a second, in what it counts as time.
const TELLS: Duration = Duration::from_millis(1_500);

struct Case {
    what: &'static str,
    /// How many there are: few, and many.
    counts: [u32; 2],
    /// The policies with so many of them.
    policies: fn(u32) -> Value,
    /// Clients with so many of them.
    clients: fn(u32) -> u32,
    /// Requests, of one client after the other.
    requests: usize,
}

impl Case {
    /// Keys, each seen.
    fn of_keys(what: &'static str, counts: [u32; 2], policies: fn(u32) -> Value) -> Self {
        Self { what, counts, policies, clients: |count| count, requests: 20_000 }
    }
}

fn cases() -> [Case; 4] {
    [
        Case {
            what: "a policy with a rate limit",
            counts: [1, 1_000],
            policies: |count| beside(count.saturating_sub(1) as usize, &key()),
            clients: |_| 100,
            requests: 20_000,
        },
        Case::of_keys(
            "a key of a rate limit, seen or not (max_keys)",
            [1_000, 1_000_000],
            |count| json!([{"name": "all", "rate_limits": [{"name": "clients", "rate": "100000/s", "key": key(), "max_keys": count}]}]),
        ),
        Case::of_keys(
            "a key of a circuit breaker, seen",
            [100, 4_096],
            |count| json!([{"name": "all", "circuit_breaker": {"key": key(), "max_keys": count}}]),
        ),
        Case::of_keys(
            "a key of an adaptive concurrency limit, seen",
            [100, 5_000],
            |count| json!([{"name": "all", "load_shedding": {"key": key(), "max_keys": count}}]),
        ),
    ]
}

/// Measures all of them.
///
/// # Errors
/// Tidegate or Envoy is missing, Envoy does not start, or a request was not answered with 200.
pub async fn measure(seed: u64, told: &(impl Fn(String) + Sync)) -> Result<Vec<Memory>> {
    let mut found = Vec::new();
    for case in cases() {
        told(format!("Memory: {}", case.what));
        let [few, many] = case.counts;
        let few = stood(&case, few, seed).await?;
        found.push(Memory { what: case.what, few, many: stood(&case, many, seed).await? });
    }
    Ok(found)
}

async fn stood(case: &Case, count: u32, seed: u64) -> Result<Stood> {
    let variant = of_policies(&(case.policies)(count), (case.clients)(count))?;
    let mut bench = Bench::start(vec![variant], Vec::new(), 1, seed).await?;
    bench.send_in_turn(0, case.requests)?;
    bench.send_for(0, TELLS)?;
    let (vm_bytes, process_bytes) = (bench.vm_bytes().await?, bench.envoy().resident_bytes()?);
    Ok(Stood { count, vm_bytes, process_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_takes_is_what_more_of_them_take() {
        let few = Stood { count: 10, vm_bytes: 1_000, process_bytes: 9_000 };
        let many = Stood { count: 110, vm_bytes: 1_000, process_bytes: 10_200 };
        assert_eq!(Memory { what: "x", few, many }.each(), (0.0, 12.0));
    }
}
