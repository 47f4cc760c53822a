//! Circuit breakers through their public interface, over one and several workers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print their seeds"
)]

mod fleet;
#[cfg(not(target_family = "wasm"))]
mod interleaving;
#[cfg(not(target_family = "wasm"))]
mod model;
mod open_time;
mod probes;
mod sharing;
#[cfg(not(target_family = "wasm"))]
mod threads;
mod trips;
