//! Load shedding in a real Envoy: the limit that is found, bounds on bodies, queues, priorities, bulkheads, deadlines, releases
//! and throttles, over 1, 2 and 4 workers.
//!
//! Each scenario has its control beside it: another setting or none, which must come out differently. Figures are printed:
//! `--nocapture` shows them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[macro_use]
#[path = "../e2e/with_workers.rs"]
mod with_workers;
#[path = "../circuit_breaking/dying.rs"]
mod dying;
#[path = "../e2e/support.rs"]
#[allow(dead_code, reason = "shared with the other scenarios, which use all of it")]
mod support;

mod adaptive;
mod bodies;
mod death;
mod drops;
mod ends;
mod places;
mod priority;
mod queue;
mod stalls;
mod throttle;
mod turns;
mod updates;
mod wake;

use serde_json::{Value, json};
use tidegate_harness::envoy::{Listener, Tidegate};

/// The machine: scenarios share it, but for those that measure how fast something is answered.
static MACHINE: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Makes three tests of each scenario. With `alone:` before it nothing else runs beside it.
macro_rules! with_1_2_and_4_workers {
    (alone: $($scenarios:tt)*) => { with_workers!([1, 2, 4], crate::MACHINE.write().await; $($scenarios)*); };
    ($($scenarios:tt)*) => { with_workers!([1, 2, 4], crate::MACHINE.read().await; $($scenarios)*); };
}
use with_1_2_and_4_workers;

/// One policy `p` with this load shedding.
fn shedding(settings: Value) -> Value {
    json!({"policies": [{"name": "p", "load_shedding": settings}]})
}

/// A fixed limit.
fn fixed(limit: u32) -> Value {
    json!({"algorithm": "fixed", "limit": limit})
}

/// Tidegate under this name. Filters of the same name share what their policies have in common, so each has its own.
fn listener(name: &str, config: &Value) -> Listener {
    Listener::new(name).filter(Tidegate::new(config).unwrap().name(name))
}
