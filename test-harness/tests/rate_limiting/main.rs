//! Rate limits in a real Envoy, to the letter of what `docs/rate-limiting.md` promises.
//!
//! What holds over all workers is shown with one, two, four and eight of them. Each scenario has a control beside it, another
//! setting or Envoy's own `local_ratelimit`, that must come out differently. Figures are printed: `--nocapture` shows them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[macro_use]
#[path = "../e2e/with_workers.rs"]
mod with_workers;
mod exact;
mod keys;
mod pace;
mod refunds;
mod reload;
mod responses;
mod support;
mod vectors;

/// Makes four tests of each scenario.
macro_rules! with_1_2_4_and_8_workers {
    ($($scenarios:tt)*) => { with_workers!([1, 2, 4, 8]: $($scenarios)*); };
}
use with_1_2_4_and_8_workers;
