//! Concurrency limits through their public interface, over simulated upstreams.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print their tables"
)]

mod compare;
mod drops;
mod limits;
mod noise;
mod sim;
mod start;
mod streams;
