//! The modules Tidegate is held against, as `make bench` builds them.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::envoy::locate::repository;

/// Where they are.
#[derive(Debug)]
pub struct Modules {
    /// Does nothing, on the stock SDK.
    pub stock: PathBuf,
    /// Does nothing, with as few callbacks as Tidegate has.
    pub minimal: PathBuf,
    /// Times calls to the host.
    pub probe: PathBuf,
    /// Tidegate's bench build, which times what it does.
    pub timed: PathBuf,
}

impl Modules {
    /// Finds them in `dist/bench`.
    ///
    /// # Errors
    /// One is not there.
    pub fn find() -> Result<Self> {
        let find = |name: &str| {
            let path = repository().join(format!("dist/bench/{name}.wasm"));
            if !path.is_file() {
                bail!("no module at {}: build it with: ./scripts/build-bench-filters.sh", path.display());
            }
            Ok(path)
        };
        Ok(Self { stock: find("stock")?, minimal: find("minimal")?, probe: find("probe")?, timed: find("timed")? })
    }
}
