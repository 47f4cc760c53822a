//! The proxy-wasm host: entry points, one plugin per VM, streams, raw calls.
//!
//! A VM is single-threaded and there is one per worker of the proxy (and one on its main thread, which serves no
//! traffic). Nothing here may panic: a trap kills the VM and with it every stream it holds.

// The ABI is C: exported symbols and pointers. All of it is in this folder.
#![allow(unsafe_code)]

mod abi;
mod arena;
#[cfg(feature = "bench")]
mod bench;
mod configuration;
mod entry;
mod log;
mod metrics;
mod plugin;
mod share;
mod stream;
mod world;
