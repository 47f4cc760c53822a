//! Tidegate in a real Envoy, from one end to the other.
//!
//! Every scenario runs with one worker and with four: what holds over all of a proxy's workers must hold with either. Each has
//! a control run beside it, without the filter or with another setting, that must come out differently.

mod support;

mod access_logs;
mod breaker_settings;
mod breakers;
mod chains;
mod concurrency;
mod configuration;
mod endings;
mod grpc;
mod keys;
mod matching;
mod modes;
mod quotas;
mod rate_limits;
mod request_limits;
mod robustness;
mod stat_names;

/// Makes two tests of each scenario.
macro_rules! with_one_and_four_workers {
    ($($scenario:ident),* $(,)?) => { $(
        mod $scenario {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn with_one_worker() {
                super::$scenario(1).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn with_four_workers() {
                super::$scenario(4).await;
            }
        }
    )* };
}
use with_one_and_four_workers;
