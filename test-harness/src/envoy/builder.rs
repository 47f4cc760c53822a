//! Starts what a bootstrap describes, and waits until it is ready.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::bootstrap::{self, Cluster, Listener, Source};
use super::{DEADLINE, Envoy, HttpFilter, Runner, StartError, locate, written_address};
use crate::client;
use crate::wait::wait_until;

/// Where Envoy writes what its successors find it by.
const BASE_ID: &str = "base-id";

/// An Envoy to be started.
#[derive(Debug)]
pub struct Builder {
    clusters: Vec<Cluster>,
    listeners: Vec<Listener>,
    concurrency: u32,
    log_level: String,
    dynamic: bool,
    drain: Duration,
    arguments: Vec<String>,
    restart: Vec<String>,
    raw: Value,
    files: Vec<PathBuf>,
    runner: Option<Runner>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            clusters: Vec::new(),
            listeners: Vec::new(),
            concurrency: 1,
            log_level: "info".into(),
            dynamic: false,
            drain: Duration::from_secs(1),
            arguments: Vec::new(),
            restart: vec!["--disable-hot-restart".into()],
            raw: Value::Object(Map::new()),
            files: Vec::new(),
            runner: None,
        }
    }
}

impl Builder {
    /// Adds a cluster; the first is where requests go that no route of their own.
    #[must_use]
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.clusters.push(cluster);
        self
    }

    /// Adds a listener.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// The number of worker threads; 1 unless set.
    #[must_use]
    pub fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Envoy's log level; `info` unless set.
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// Delivers the listeners in a file that Envoy watches, so that [`Envoy::update_listeners`] can replace them.
    #[must_use]
    pub fn dynamic_listeners(mut self) -> Self {
        self.dynamic = true;
        self
    }

    /// How long replaced listeners keep their connections, in whole seconds; 1 s unless set.
    #[must_use]
    pub fn drain_time(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }

    /// Another may take over from it, see [`Builder::succeeds`]; not in a container, which shares no memory with others.
    #[must_use]
    pub fn restartable(mut self) -> Self {
        self.restart = vec!["--use-dynamic-base-id".into()];
        self
    }

    /// Takes over from `old`, which is told to end so long after this one is ready, by a hot restart.
    ///
    /// # Errors
    /// `old` is not [`Builder::restartable`].
    pub fn succeeds(mut self, old: &Envoy, shutdown: Duration) -> Result<Self> {
        let base = std::fs::read_to_string(old.folder.path().join(BASE_ID)).context("it is not restartable")?;
        let shutdown = shutdown.as_secs().to_string();
        let arguments = ["--restart-epoch", "1", "--base-id", base.trim(), "--parent-shutdown-time-s", &shutdown];
        self.restart = arguments.map(str::to_owned).into();
        Ok(self)
    }

    /// A further command line argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Fields of `envoy.config.bootstrap.v3.Bootstrap`, laid over what is rendered.
    #[must_use]
    pub fn raw(mut self, fields: &Value) -> Self {
        bootstrap::merge(&mut self.raw, fields);
        self
    }

    /// A file that [`Builder::raw`] names: an Envoy in a container must be given it.
    #[must_use]
    pub fn reads(mut self, file: PathBuf) -> Self {
        self.files.push(file);
        self
    }

    /// What runs Envoy, instead of what [`locate::envoy`] finds.
    #[must_use]
    pub fn runner(mut self, runner: Runner) -> Self {
        self.runner = Some(runner);
        self
    }

    /// Starts Envoy and waits until it accepts connections on every listener.
    ///
    /// # Errors
    /// There is no Envoy, it ended, or it was not ready in time; with its log.
    pub async fn start(self) -> Result<Envoy, StartError> {
        let folder = tempfile::Builder::new().prefix("tidegate-harness-").tempdir();
        let folder = folder.map_err(|error| StartError::early(&error.into()))?;
        let process = self.spawn(&folder).map_err(|error| StartError::early(&error))?;
        let mut envoy = Envoy {
            process,
            folder,
            admin: ([127, 0, 0, 1], 0).into(),
            listeners: std::collections::BTreeMap::new(),
            first_cluster: self.clusters.first().map(|cluster| cluster.name.clone()),
            workers: self.concurrency,
            deliveries: self.dynamic.then_some(1),
        };
        if let Err(error) = envoy.become_ready(&self.listeners).await {
            let exit = envoy.process.exited().ok().flatten();
            return Err(StartError::new(&error, exit, &envoy.folder));
        }
        Ok(envoy)
    }

    fn spawn(&self, folder: &TempDir) -> Result<super::runner::Process> {
        let runner = match &self.runner {
            Some(runner) => runner.clone(),
            None => locate::envoy()?,
        };
        let path = folder.path();
        let discovery = path.join("listeners").join("listeners.json");
        let source = if self.dynamic { Source::File(&discovery) } else { Source::Static(&self.listeners) };
        if self.dynamic {
            std::fs::create_dir(path.join("listeners"))?;
            let first = self.clusters.first().map(|cluster| cluster.name.as_str());
            deliver(&self.listeners, first, path, 1)?;
        }
        let bootstrap = bootstrap::bootstrap(&self.clusters, source, path, &self.raw);
        std::fs::write(path.join("bootstrap.json"), serde_json::to_vec_pretty(&bootstrap)?)?;
        runner.spawn(path, &self.modules(), &self.command_line(path), &path.join(super::LOG))
    }

    fn command_line(&self, folder: &Path) -> Vec<String> {
        let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let mut line: Vec<String> = [
            "--config-path",
            &file("bootstrap.json"),
            "--admin-address-path",
            &file("admin"),
            "--log-level",
            &self.log_level,
            "--concurrency",
            &self.concurrency.to_string(),
            "--drain-time-s",
            &self.drain.as_secs().to_string(),
            "--drain-strategy",
            "immediate",
            "--base-id-path",
            &file(BASE_ID),
        ]
        .map(str::to_owned)
        .into();
        line.extend(self.restart.iter().chain(&self.arguments).cloned());
        line
    }

    /// The wasm files the listeners load, and the files named besides.
    fn modules(&self) -> Vec<PathBuf> {
        let mut modules: Vec<_> = self
            .listeners
            .iter()
            .flat_map(|listener| &listener.filters)
            .filter_map(|filter| match filter {
                HttpFilter::Wasm(tidegate) => Some(tidegate.module.clone()),
                HttpFilter::Raw(_) => None,
            })
            .chain(self.files.iter().cloned())
            .collect();
        modules.sort();
        modules.dedup();
        modules
    }
}

impl Envoy {
    async fn become_ready(&mut self, listeners: &[Listener]) -> Result<()> {
        let mut exit = None;
        let admin = wait_until(DEADLINE, async || {
            exit = self.process.exited().map_err(|error| error.to_string())?;
            if exit.is_some() {
                return Ok(None);
            }
            let admin =
                written_address(&self.folder).map_err(|_| "Envoy has not written its admin address".to_owned())?;
            let ready = client::get(admin, "/ready").await.map_err(|error| format!("{error:#}"))?;
            if ready.status == 200 { Ok(Some(admin)) } else { Err(format!("not ready: {}", ready.text())) }
        })
        .await?;
        self.admin = admin.ok_or_else(|| anyhow!("Envoy ended while starting"))?;
        self.listeners = self.ready_listeners(listeners).await?;
        Ok(())
    }
}

/// Puts the listeners where Envoy watches for them. The rename is what it sees: it never reads half a file.
pub(super) fn deliver(listeners: &[Listener], first_cluster: Option<&str>, folder: &Path, version: u32) -> Result<()> {
    let discovery = bootstrap::discovery(listeners, first_cluster, folder, version);
    let new = folder.join("listeners.new");
    std::fs::write(&new, serde_json::to_vec_pretty(&discovery)?)?;
    std::fs::rename(&new, folder.join("listeners").join("listeners.json"))?;
    Ok(())
}
