//! Which core runs what, and how long a thread has run.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of a run: one for the proxy, another for clients and upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    /// The proxy's.
    pub proxy: usize,
    /// Everybody else's.
    pub rest: usize,
}

impl Cores {
    /// The first two we may use; none when there is only one.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn find() -> Result<Option<Self>> {
        let ours = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| ours.is_set(core));
        Ok(cores.next().zip(cores.next()).map(|(proxy, rest)| Self { proxy, rest }))
    }
}

/// Keeps this thread, and those it starts from now on, on one core.
///
/// # Errors
/// The system refuses.
pub fn pin_here(core: usize) -> Result<()> {
    pin(None, core)
}

/// Keeps all threads of a process on one core.
///
/// # Errors
/// The process is gone, or the system refuses.
pub fn pin_process(process: i32, core: usize) -> Result<()> {
    for thread in threads(process)? {
        pin(Pid::from_raw(thread), core)?;
    }
    Ok(())
}

fn pin(thread: Option<Pid>, core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(thread, &cores).context("cannot pin a thread to a core")
}

fn threads(process: i32) -> Result<Vec<i32>> {
    let folder = fs::read_dir(format!("/proc/{process}/task")).context("the process is gone")?;
    Ok(folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Threads whose time is looked at.
#[derive(Debug)]
pub struct Watched {
    schedstats: Vec<String>,
}

impl Watched {
    /// The proxy's workers.
    ///
    /// # Errors
    /// There are not so many.
    pub fn workers(process: i32, workers: u32) -> Result<Self> {
        let named = |thread: &i32| {
            let name = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm")).unwrap_or_default();
            name.trim().starts_with("wrk:worker_")
        };
        let threads = threads(process)?.into_iter().filter(named);
        let schedstats: Vec<_> = threads.map(|thread| format!("/proc/{process}/task/{thread}/schedstat")).collect();
        ensure!(u32::try_from(schedstats.len()) == Ok(workers), "Envoy has {} worker threads", schedstats.len());
        Ok(Self { schedstats })
    }

    /// What the kernel has noted so far, of all together. Exact while a thread sleeps; else up to the scheduler's last look
    /// at it.
    ///
    /// # Errors
    /// A thread is gone, or the kernel does not account for threads.
    pub fn account(&self) -> Result<Account> {
        let mut sum = Account::default();
        for path in &self.schedstats {
            let text = fs::read_to_string(path).context("the kernel has no per-thread accounting")?;
            let account = account(&text).with_context(|| format!("not an account of a thread: {text:?}"))?;
            sum = Account { ran: sum.ran + account.ran, waited: sum.waited + account.waited };
        }
        Ok(sum)
    }
}

/// What threads have had of the processors, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Time on a processor.
    pub ran: u64,
    /// Time ready to run while others had it.
    pub waited: u64,
}

fn account(schedstat: &str) -> Option<Account> {
    let mut numbers = schedstat.split_ascii_whitespace().map(str::parse);
    Some(Account { ran: numbers.next()?.ok()?, waited: numbers.next()?.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedstat_tells_time_run_and_time_waited() {
        assert_eq!(account("120 34 5\n"), Some(Account { ran: 120, waited: 34 }));
        assert_eq!(account("120"), None);
        assert_eq!(account(""), None);
    }
}
