//! Finds the Envoy to run and the wasm module to load, and says plainly what is missing.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::runner::Runner;

/// The line that installs what the harness needs.
const INSTALL: &str = "make setup";

/// The repository's root: the folder above this crate.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The Envoy to run: the image in `TIDEGATE_ENVOY_IMAGE`, or else the binary in `ENVOY_BIN`, the one under `.tools/envoy`, or
/// the one on `PATH`.
///
/// # Errors
/// None is found. The message holds the line that installs it.
pub fn envoy() -> Result<Runner> {
    if let Some(image) = env::var_os("TIDEGATE_ENVOY_IMAGE").filter(|v| !v.is_empty()) {
        return Ok(Runner::Docker(image.into_string().ok().context("TIDEGATE_ENVOY_IMAGE is not UTF-8")?));
    }
    if let Some(path) = env::var_os("ENVOY_BIN").filter(|v| !v.is_empty()).map(PathBuf::from) {
        if path.is_file() {
            return Ok(Runner::Local(path));
        }
        bail!("ENVOY_BIN names {}, which is not a file", path.display());
    }
    if let Some(path) = installed(&repository().join(".tools/envoy")).or_else(on_path) {
        return Ok(Runner::Local(path));
    }
    bail!("no Envoy: neither ENVOY_BIN nor .tools/envoy nor PATH has one. Install it with: {INSTALL}")
}

/// The Tidegate module: `TIDEGATE_WASM`, or else `dist/tidegate.wasm`.
///
/// # Errors
/// There is no such file. The message holds the line that builds it.
pub fn tidegate_wasm() -> Result<PathBuf> {
    let path = match env::var_os("TIDEGATE_WASM").filter(|v| !v.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => repository().join("dist/tidegate.wasm"),
    };
    if !path.is_file() {
        bail!("no Tidegate module at {}: set TIDEGATE_WASM, or build it with: make build", path.display());
    }
    path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))
}

/// The binary inside an installed virtual environment, past its Python launcher: signals must reach Envoy itself.
fn installed(tools: &Path) -> Option<PathBuf> {
    let inside = tools.join("lib").read_dir().into_iter().flatten().flatten();
    inside
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .chain([tools.join("bin/envoy")])
        .find(|path| path.is_file())
}

fn on_path() -> Option<PathBuf> {
    env::split_paths(env::var_os("PATH").as_deref().unwrap_or(OsStr::new("")))
        .map(|folder| folder.join("envoy"))
        .find(|path| path.is_file())
}
