//! Tidegate, whole and unchanged, with one callback more than it ships: a request's trailers trap. So tests can make a
//! worker's VM die in the middle of its work, and what is shipped has no way to.
#![cfg(target_os = "wasi")]

use tidegate as _;

/// A stream's request trailers are there: the VM dies.
// SAFETY: the name is the ABI's; Tidegate does not export it, and the linker would refuse a second.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_trailers(_stream: u32, _count: u32) -> u32 {
    core::arch::wasm32::unreachable()
}
