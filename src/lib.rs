//! Tidegate: circuit breaking, rate limiting and load shedding for a proxy, as one proxy-wasm module.
//!
//! # Map
//!
//! Arrows run one way: `host -> engine -> {control, matching, config}`, `matching -> config` (for the types of a match),
//! `control -> share` (for its trait).
//!
//! - [`config`]: JSON in, a validated configuration out.
//! - [`matching`]: a request seen as borrowed slices; which policies apply to it, which key it counts under.
//! - [`control`]: one file or folder per control. They know neither each other nor HTTP nor the host.
//! - [`share`]: what the workers of a proxy share, and its twin in memory.
//! - [`engine`]: one request's life: decide, hold a permit, settle it.
//! - `host`: the entry points and the raw host calls. The only place that names proxy-wasm, built for WASI only.

pub mod config;
pub mod control;
pub mod engine;
#[cfg(target_os = "wasi")]
mod host;
pub mod matching;
pub mod share;
