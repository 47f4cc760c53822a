//! Runs a real Envoy with Tidegate in it, between a devious upstream and open-loop clients, and judges what happened.
//!
//! - [`envoy`] starts Envoy as a child process, on ports of its own.
//! - [`upstream`] is a server whose every answer a test scripts, and which remembers what it saw.
//! - [`client`] sends single requests, raw bytes, or load that does not slow down when the proxy does.
//! - [`stats`] reads what Envoy counts.
//! - [`ledger`] holds what clients, upstream and stats say against each other.
//! - [`demo`] plays a few acts without Tidegate and with it; [`report`] draws them.

mod body;
pub mod client;
pub mod demo;
pub mod envoy;
mod gate;
pub mod ledger;
pub mod report;
pub mod stats;
pub mod upstream;
mod wait;

pub use body::Step;
pub use gate::Gate;
pub use wait::wait_until;
