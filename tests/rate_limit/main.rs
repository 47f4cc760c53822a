//! The rate limit as its users see it: over several workers, through the public interface, in simulated time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../between/mod.rs"]
mod between;
mod contract;
#[path = "../counting/mod.rs"]
mod counting;
mod interleaved;
mod keys;
#[cfg(not(target_family = "wasm"))]
mod properties;
mod rows;
mod support;
#[cfg(not(target_family = "wasm"))]
mod tenancy;
#[cfg(not(target_family = "wasm"))]
mod threads;
mod vectors;
mod workers;
