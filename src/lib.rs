//! Tidegate: circuit breaking, rate limiting and load shedding for a proxy, as one proxy-wasm module.

pub mod config;
pub mod control;
pub mod matching;
pub mod share;
