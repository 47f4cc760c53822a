//! How Envoy is run: as a local process, or as a container that shares the host's network.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// What runs Envoy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runner {
    /// This binary.
    Local(PathBuf),
    /// This container image, whose entry point is Envoy.
    Docker(String),
}

/// A running Envoy, killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// The container's name, when there is one: signals to the `docker` client would not reach Envoy.
    container: Option<String>,
}

static CONTAINERS: AtomicU32 = AtomicU32::new(0);

// === impl Runner ===

impl Runner {
    /// The command without Envoy's own arguments. A container sees `folder` writable and each of `files` read-only, at the
    /// same paths as here; it runs as the caller, so that the folder stays ours to delete.
    fn command(&self, folder: &Path, files: &[PathBuf]) -> Result<(Command, Option<String>)> {
        let image = match self {
            Self::Local(path) => return Ok((Command::new(path), None)),
            Self::Docker(image) => image,
        };
        let name = format!("tidegate-harness-{}-{}", std::process::id(), CONTAINERS.fetch_add(1, Ordering::Relaxed));
        let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--network", "host", "--name", &name, "--user", &format!("{user}:{group}")]);
        command.arg("--volume").arg(volume(folder, "")?);
        for file in files {
            command.arg("--volume").arg(volume(file, ":ro")?);
        }
        command.arg(image);
        Ok((command, Some(name)))
    }

    /// Starts Envoy with its output going to `output`.
    pub(super) fn spawn(&self, folder: &Path, files: &[PathBuf], args: &[String], output: &Path) -> Result<Process> {
        let (mut command, container) = self.command(folder, files)?;
        let log = std::fs::File::create(output).with_context(|| format!("cannot write {}", output.display()))?;
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Process { child, container })
    }

    /// Envoy's `--version` line.
    ///
    /// # Errors
    /// Envoy cannot be run.
    pub fn version(&self) -> Result<String> {
        let nowhere = tempfile::tempdir()?;
        let (mut command, _) = self.command(nowhere.path(), &[])?;
        let output = command.arg("--version").output().context("cannot run Envoy")?;
        if !output.status.success() {
            bail!("`envoy --version` failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.split("version:").last().unwrap_or_default().trim().to_owned())
    }
}

fn volume(path: &Path, mode: &str) -> Result<String> {
    let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("{path}:{path}{mode}"))
}

// === impl Process ===

impl Process {
    /// The id of Envoy itself, whoever started it.
    pub(super) fn id(&self) -> Result<i32> {
        let Some(name) = &self.container else { return Ok(i32::try_from(self.child.id())?) };
        let output = Command::new("docker").args(["inspect", "--format", "{{.State.Pid}}", name]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().with_context(|| format!("no container {name}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// How Envoy ended, if it has.
    pub(super) fn exited(&mut self) -> Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| status.to_string()))
    }

    /// Sends a signal to Envoy itself.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(self.id()?).context("Envoy does not run")?;
        kill_process(id, signal).context("cannot signal Envoy")
    }

    /// Nothing, once every thread is stopped.
    pub(super) fn standstill(&self) -> Result<(), String> {
        let threads = self.id().map_err(|error| error.to_string())?;
        for thread in std::fs::read_dir(format!("/proc/{threads}/task")).map_err(|error| error.to_string())?.flatten() {
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            // A thread that has ended meanwhile has no status.
            if !status.is_empty() && !status.contains("\nState:\tT") {
                return Err(format!("thread {} of Envoy runs", thread.file_name().display()));
            }
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(name) = &self.container {
            // The container may have ended by itself; then there is nothing to kill.
            let _ = Command::new("docker").args(["kill", name]).output();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
