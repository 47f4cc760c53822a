//! The controls, one file or folder each. A control knows nothing of the others, of JSON, of HTTP or of the host:
//! time, randomness and shared state are arguments.

pub mod circuit_breaker;
pub mod concurrency;
mod counted;
mod directory;
pub mod queue;
pub mod rate_limit;
pub mod throttle;
mod turns;
pub mod waiting;
mod workers;

pub use counted::Beat;
pub use workers::Workers;

/// Nanoseconds on a monotonic clock whose origin is the host's.
pub type Nanos = u64;

/// A source of random numbers.
pub trait Random {
    /// The next 64 uniformly random bits.
    fn next_u64(&mut self) -> u64;
}
