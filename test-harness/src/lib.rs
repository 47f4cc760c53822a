//! Runs a real Envoy with Tidegate in it, between a devious upstream and open-loop clients, and judges what happened.
//!
//! - [`envoy`] starts Envoy as a child process, on ports of its own.
//! - [`upstream`] is a server whose every answer a test scripts, and which remembers what it saw.
//! - [`client`] sends single requests, raw bytes, or load that does not slow down when the proxy does.
//! - [`stats`] reads what Envoy counts.
//! - [`ledger`] holds what clients, upstream and stats say against each other.
//! - [`demo`] plays a few acts without Tidegate and with it; [`report`] draws them.
//! - [`limits`] holds the ways to find a concurrency limit against each other.
//! - [`mod@bench`] measures what Tidegate costs, next to Envoy's own filters.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use tidegate_harness::client::{Load, Schedule};
//! use tidegate_harness::envoy::{Cluster, Envoy, Listener, Tidegate};
//! use tidegate_harness::ledger::Ledgers;
//! use tidegate_harness::upstream::Upstream;
//!
//! # async fn run() -> anyhow::Result<()> {
//! let limit = serde_json::json!({"name": "all", "rate": "100/s"});
//! let configuration = serde_json::json!({"policies": [{"name": "shop", "rate_limits": [limit]}]});
//! let upstream = Upstream::start().await?;
//! let listener = Listener::new("main").filter(Tidegate::new(&configuration)?);
//! let cluster = Cluster::new("upstream", upstream.address());
//! let envoy = Envoy::builder().concurrency(4).cluster(cluster).listener(listener).start().await?;
//!
//! let before = envoy.stats().await?;
//! let outcomes = Load::new(envoy.listener(), Schedule::constant(300.0, Duration::from_secs(2))).run().await;
//! println!("{}", outcomes.tally());
//!
//! let ledgers = Ledgers::of_clients([&outcomes]).and_upstream(&upstream);
//! ledgers.check_upstream()?;
//! ledgers.check_stats("shop", &envoy.stats().await?.since(&before))?;
//! # Ok(())
//! # }
//! ```

pub mod bench;
mod body;
pub mod client;
pub mod demo;
pub mod envoy;
mod gate;
pub mod ledger;
pub mod limits;
pub mod report;
pub mod stats;
pub mod upstream;
mod wait;

pub use body::Step;
pub use gate::Gate;
pub use wait::wait_until;
