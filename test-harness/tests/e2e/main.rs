//! Tidegate in a real Envoy, from one end to the other.
//!
//! Every scenario runs with one worker and with four: what holds over all of a proxy's workers must hold with either. Each has
//! a control run beside it, without the filter or with another setting, that must come out differently.

#[macro_use]
mod with_workers;
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
    ($($scenarios:tt)*) => { with_workers!([1, 4]: $($scenarios)*); };
}
use with_one_and_four_workers;
