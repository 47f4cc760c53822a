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

    /// Nanoseconds on a processor so far, of all together. Exact while a thread sleeps; else up to the scheduler's last
    /// look at it.
    ///
    /// # Errors
    /// A thread is gone, or the kernel does not account for threads.
    pub fn nanos(&self) -> Result<u64> {
        self.schedstats.iter().map(|path| nanos(path)).sum()
    }
}

fn nanos(schedstat: &str) -> Result<u64> {
    let text = fs::read_to_string(schedstat).context("the kernel has no per-thread accounting")?;
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    first.parse().with_context(|| format!("not an account of a thread: {text:?}"))
}
