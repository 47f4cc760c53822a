//! Rate limits in a real Envoy, to the letter of what `docs/rate-limiting.md` promises.
//!
//! What holds over all workers is shown with one, two, four and eight of them. Each scenario has a control beside it, another
//! setting or Envoy's own `local_ratelimit`, that must come out differently. Figures are printed: `--nocapture` shows them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

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
    ($($scenario:ident),* $(,)?) => { $(
        mod $scenario {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn with_1_worker() {
                super::$scenario(1).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn with_2_workers() {
                super::$scenario(2).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn with_4_workers() {
                super::$scenario(4).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn with_8_workers() {
                super::$scenario(8).await;
            }
        }
    )* };
}
use with_1_2_4_and_8_workers;
