//! The engine on several simulated workers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print their seeds"
)]

mod bodies;
mod breakers;
mod contended;
#[path = "../counting/mod.rs"]
mod counting;
mod decisions;
mod gauges;
mod given_back;
mod held;
mod host_calls;
#[cfg(not(target_family = "wasm"))]
mod load_shedding;
mod overrides;
mod own_memory;
#[cfg(not(target_family = "wasm"))]
mod properties;
mod queues;
mod rate_limits;
mod rate_updates;
#[path = "../requests/mod.rs"]
mod requests;
mod stood_still;
mod throttles;
mod told;
mod updates;
#[path = "../workers/mod.rs"]
mod workers;
