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
mod bulkheads;
mod contended;
#[path = "../counting/mod.rs"]
mod counting;
mod deadlines;
mod decisions;
mod failing;
mod gauges;
mod given_back;
mod held;
mod host_calls;
mod limit_updates;
#[cfg(not(target_family = "wasm"))]
mod load_shedding;
mod many_limits;
mod nothing;
mod overrides;
mod own_memory;
mod patience;
#[cfg(not(target_family = "wasm"))]
mod properties;
mod queues;
mod rate_limits;
mod rate_updates;
#[path = "../requests/mod.rs"]
mod requests;
mod several_queues;
mod stood_still;
mod throttles;
mod told;
mod updates;
#[path = "../workers/mod.rs"]
mod workers;
