//! A real Envoy as a child process.
//!
//! Every Envoy has its own temporary folder, loopback ports the kernel chooses and no shared-memory region, but for one that a
//! test restarts, so any number of them run side by side. Dropping the handle kills the process; dropping it in a panicking test also prints the end of its
//! log.

mod bootstrap;
mod builder;
mod filter;
pub mod locate;
mod runner;
mod stats_tags;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

pub use bootstrap::{Cluster, Listener, Route};
pub use builder::Builder;
pub use filter::{HttpFilter, Tidegate};
pub use runner::Runner;
pub use stats_tags::stats_tags;

use crate::client;
use crate::stats::Stats;
use crate::wait::wait_until;

/// How long Envoy may take for anything it is asked, on a machine that is busy building.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// What Envoy wrote, in its folder.
const LOG: &str = "envoy.log";
/// How Envoy's log begins to say why it did not take new listeners.
const REFUSAL: &str = "Filesystem config update ";
/// What is shown of the log when something goes wrong.
const TAIL_LINES: usize = 60;

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    process: runner::Process,
    folder: TempDir,
    admin: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
    first_cluster: Option<String>,
    workers: u32,
    /// How often the listeners were delivered by file; none when they are static.
    deliveries: Option<u32>,
}

/// Envoy ended, or never became ready.
pub struct StartError {
    /// What happened.
    pub reason: String,
    /// How the process ended, when it did.
    pub exit: Option<String>,
    /// Everything it logged.
    pub log: String,
}

impl Envoy {
    /// Describes an Envoy to be started.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where the only listener listens.
    ///
    /// # Panics
    /// There is not exactly one.
    pub fn listener(&self) -> SocketAddr {
        assert_eq!(self.listeners.len(), 1, "listeners: {:?}", self.listeners);
        self.listeners.values().copied().next().unwrap_or(self.admin)
    }

    /// Where this listener listens.
    ///
    /// # Panics
    /// There is none of this name.
    pub fn address(&self, listener: &str) -> SocketAddr {
        *self.listeners.get(listener).unwrap_or_else(|| panic!("no listener {listener} in {:?}", self.listeners))
    }

    /// How many worker threads it has.
    pub fn workers(&self) -> u32 {
        self.workers
    }

    /// Where the admin interface listens.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The process's id.
    ///
    /// # Errors
    /// The container Envoy runs in is gone.
    pub fn process_id(&self) -> Result<i32> {
        self.process.id()
    }

    /// How much of the process is in memory, in bytes.
    ///
    /// # Errors
    /// The process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in the status")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn exited(&mut self) -> Result<Option<String>> {
        self.process.exited()
    }

    /// Stops all of Envoy's threads where they are (`SIGSTOP`), and returns once they stand still.
    ///
    /// # Errors
    /// The process is gone.
    pub async fn pause(&self) -> Result<()> {
        self.process.signal(Signal::STOP)?;
        // The threads stop one by one, as they get to run.
        wait_until(DEADLINE, async || self.process.standstill()).await
    }

    /// Lets a paused Envoy run on (`SIGCONT`).
    ///
    /// # Errors
    /// The process is gone.
    pub fn unpause(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// The file Envoy's standard output and error go to; it is deleted with this handle.
    pub fn log_file(&self) -> std::path::PathBuf {
        self.folder.path().join(LOG)
    }

    /// Everything Envoy has logged, as far as it has been written: in a container it comes through the engine, and an
    /// answer may be here before the line that Envoy wrote first.
    pub fn log(&self) -> String {
        read_log(&self.folder)
    }

    /// The log, once a text stands in it so many times.
    ///
    /// # Errors
    /// It stood there less often within `deadline`.
    pub async fn wait_for_log(&self, text: &str, times: usize, deadline: Duration) -> Result<String> {
        wait_until(deadline, async || {
            let log = self.log();
            match log.matches(text).count() {
                found if found >= times => Ok(log),
                found => Err(format!("'{text}' stands {found} of {times} times in the log:\n{log}")),
            }
        })
        .await
    }

    /// The access log of a listener that has a format, once it has so many lines.
    ///
    /// # Errors
    /// It had fewer within `deadline`.
    pub async fn wait_for_access_log(&self, listener: &str, lines: usize, deadline: Duration) -> Result<Vec<String>> {
        let file = Listener::access_log_file(listener, self.folder.path());
        wait_until(deadline, async || {
            // Reopening writes out what Envoy would otherwise keep for up to ten seconds.
            self.admin_post("/reopen_logs").await.map_err(|error| format!("{error:#}"))?;
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let found: Vec<_> = text.lines().map(str::to_owned).collect();
            if found.len() >= lines { Ok(found) } else { Err(format!("{} of {lines} lines: {text}", found.len())) }
        })
        .await
    }

    /// What the admin interface answers to `GET path`.
    ///
    /// # Errors
    /// It does not answer, or not with 200.
    pub async fn admin_get(&self, path: &str) -> Result<String> {
        self.ask("GET", path).await
    }

    /// What the admin interface answers to `POST path`.
    ///
    /// # Errors
    /// It does not answer, or not with 200.
    pub async fn admin_post(&self, path: &str) -> Result<String> {
        self.ask("POST", path).await
    }

    async fn ask(&self, method: &str, path: &str) -> Result<String> {
        let response = client::send(self.admin, client::Call::new(method, path)).await;
        let response = response.with_context(|| format!("admin {method} {path}"))?;
        let text = response.text();
        if response.status != 200 {
            bail!("admin {method} {path} answered {}: {text}", response.status);
        }
        Ok(text)
    }

    /// All stats as scraped now.
    ///
    /// # Errors
    /// The admin interface does not answer, or not in the Prometheus format.
    pub async fn stats(&self) -> Result<Stats> {
        Stats::parse(&self.admin_get("/stats/prometheus").await?)
    }

    /// How many workers have had connections at this listener.
    ///
    /// # Errors
    /// The admin interface does not answer, or the listener has no such stats.
    pub async fn busy_workers(&self, listener: &str) -> Result<usize> {
        Ok(self.connections(listener).await?.into_iter().filter(|number| *number > 0).count())
    }

    /// How many connections each worker has had at this listener.
    ///
    /// # Errors
    /// The admin interface does not answer, or the listener has no such stats.
    pub async fn connections(&self, listener: &str) -> Result<Vec<u64>> {
        // By their own names: whether a listener's name becomes a label depends on what it looks like.
        let text = self.admin_get(&format!("/stats?filter=listener.{listener}.worker_")).await?;
        let connections = text.lines().filter_map(|line| line.split_once(".downstream_cx_total: "));
        let connections = connections.map(|(_, number)| number.trim().parse()).collect::<Result<Vec<_>, _>>()?;
        if connections.is_empty() {
            bail!("no stats of workers at listener {listener}: {text}");
        }
        Ok(connections)
    }

    /// Waits until the stats fulfil a condition: `condition` gives a value, or what is still missing.
    ///
    /// # Errors
    /// They did not within `deadline`; the message holds what was missing last.
    pub async fn wait_for_stats<T>(
        &self,
        deadline: Duration,
        condition: impl Fn(&Stats) -> Result<T, String>,
    ) -> Result<T> {
        wait_until(deadline, async || {
            let stats = self.stats().await.map_err(|error| format!("{error:#}"))?;
            condition(&stats)
        })
        .await
    }

    /// Delivers new listeners to an Envoy that watches for them, and waits until it has taken them. An Envoy in a container
    /// sees only the modules it was started with.
    ///
    /// # Errors
    /// Envoy refused them (the last good ones stay), or was not started with [`Builder::dynamic_listeners`].
    pub async fn update_listeners(&mut self, listeners: &[Listener]) -> Result<()> {
        let version = self.deliveries.context("the listeners are static: start with dynamic_listeners()")? + 1;
        let before = self.deliveries_seen().await?;
        let refusals = self.log().matches(REFUSAL).count();
        builder::deliver(listeners, self.first_cluster.as_deref(), self.folder.path(), version)?;
        self.deliveries = Some(version);
        let (taken, _) = wait_until(DEADLINE, async || {
            let now = self.deliveries_seen().await.map_err(|error| format!("{error:#}"))?;
            if now == before { Err("Envoy has not looked at the new listeners".to_owned()) } else { Ok(now) }
        })
        .await?;
        if taken == before.0 {
            let log = self.wait_for_log(REFUSAL, refusals + 1, DEADLINE).await?;
            bail!("Envoy refused the listeners:\n{}", tail(&log, TAIL_LINES));
        }
        self.listeners = self.ready_listeners(listeners).await?;
        Ok(())
    }

    /// How many deliveries Envoy took, and how many it could not read or refused.
    async fn deliveries_seen(&self) -> Result<(u64, u64)> {
        let stats: Value =
            serde_json::from_str(&self.admin_get("/stats?format=json&filter=listener_manager.lds").await?)?;
        let count = |name: &str| {
            let name = format!("listener_manager.lds.update_{name}");
            let mut all = stats["stats"].as_array().into_iter().flatten();
            all.find(|stat| stat["name"] == name).and_then(|stat| stat["value"].as_u64()).unwrap_or(0)
        };
        Ok((count("success"), count("failure") + count("rejected")))
    }

    /// The addresses of all listeners, once each of `expected` listens and none is warming up or waiting to be replaced.
    async fn ready_listeners(&self, expected: &[Listener]) -> Result<BTreeMap<String, SocketAddr>> {
        wait_until(DEADLINE, async || {
            let found = self.listening().await.map_err(|error| format!("{error:#}"))?;
            match expected.iter().find(|listener| !found.contains_key(&listener.name)) {
                Some(missing) => Err(format!("listener {} is not there", missing.name)),
                None => Ok(found),
            }
        })
        .await
    }

    async fn listening(&self) -> Result<BTreeMap<String, SocketAddr>> {
        let stats = self.admin_get("/stats?filter=listener_manager.total_listeners_warming").await?;
        if !stats.trim().ends_with(": 0") {
            bail!("listeners are warming up: {}", stats.trim());
        }
        let answer: Value = serde_json::from_str(&self.admin_get("/listeners?format=json").await?)?;
        let statuses = answer["listener_statuses"].as_array().into_iter().flatten();
        statuses
            .map(|status| {
                let name = status["name"].as_str().context("a listener without a name")?;
                let at = &status["local_address"]["socket_address"];
                let ip = at["address"].as_str().context("a listener without an address")?.parse()?;
                let port = at["port_value"].as_u64().and_then(|port| u16::try_from(port).ok());
                Ok((name.to_owned(), SocketAddr::new(ip, port.context("a listener without a port")?)))
            })
            .collect()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of Envoy's log ---\n{}\n---", tail(&self.log(), TAIL_LINES));
        }
    }
}

/// What Envoy wrote. It goes through its standard error: a log file of its own would be written out only every few seconds.
fn read_log(folder: &TempDir) -> String {
    let bytes = std::fs::read(folder.path().join(LOG)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last `lines` lines of `text`.
fn tail(text: &str, lines: usize) -> String {
    let skipped = text.lines().count().saturating_sub(lines);
    text.lines().skip(skipped).collect::<Vec<_>>().join("\n")
}

// === impl StartError ===

impl std::error::Error for StartError {}

/// As it is displayed: that is what a test that expected Envoy to start prints.
impl std::fmt::Debug for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.reason)?;
        if let Some(exit) = &self.exit {
            write!(f, " ({exit})")?;
        }
        write!(f, "\n{}", tail(&self.log, TAIL_LINES))
    }
}

impl StartError {
    fn new(error: &anyhow::Error, exit: Option<String>, folder: &TempDir) -> Self {
        let log = read_log(folder);
        let mut reason = format!("{error:#}");
        if log.contains("Failed to create Wasm VM") || log.contains("envoy.extensions.filters.http.wasm.v3.Wasm'") {
            reason.push_str("; this Envoy has no V8 runtime for wasm: use an official release");
        }
        Self { reason, exit, log }
    }

    /// A failure before there was a process.
    fn early(error: &anyhow::Error) -> Self {
        Self { reason: format!("{error:#}"), exit: None, log: String::new() }
    }
}

/// The admin address Envoy has written down, once it has.
fn written_address(folder: &TempDir) -> Result<SocketAddr> {
    let text = std::fs::read_to_string(folder.path().join("admin"))?;
    text.trim().parse().map_err(|_| anyhow!("not an address: {text:?}"))
}
