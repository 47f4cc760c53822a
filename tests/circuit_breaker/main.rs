//! Circuit breakers through their public interface, over one and several workers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print their seeds"
)]

#[cfg(not(target_family = "wasm"))]
#[path = "../between/mod.rs"]
mod between;
#[path = "../counting/mod.rs"]
mod counting;
mod fleet;
#[cfg(not(target_family = "wasm"))]
mod interleaving;
mod lives;
#[cfg(not(target_family = "wasm"))]
mod model;
mod open_time;
mod probes;
mod sharing;
mod silence;
#[cfg(not(target_family = "wasm"))]
mod threads;
mod trips;
