//! The same tests as WebAssembly, in Node: what holds on this machine's processor holds in the module's.
//!
//! In each of these files `#[test]` means `#[wasm_bindgen_test]` here. Properties and threads stay native: they need an
//! operating system.
#![cfg(target_family = "wasm")]

#[path = "circuit_breaker/main.rs"]
mod circuit_breaker;
#[path = "config/main.rs"]
mod config;
#[path = "engine/main.rs"]
mod engine;
#[path = "matching.rs"]
mod matching;
#[path = "rate_limit/main.rs"]
mod rate_limit;
