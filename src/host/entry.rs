//! The functions the host calls.
//!
//! Only those that are needed: the host skips what a module does not export, and each call that crosses into the VM
//! costs some 0.3 us. Unknown contexts are not an error: hosts may log a stream after they have deleted it.

use super::abi::Action;
use super::arena::Callback;
use super::plugin;

// SAFETY, for all below: the names are the ABI's and no other symbol of the module has them.

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// The module is to be made ready, once per VM. Were this not exported, the linker would take the module for a command
/// and run the C library's constructors in every call of the others.
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {
    // SAFETY: made by the linker; takes and returns nothing, and is called once.
    unsafe { __wasm_call_ctors() };
}

/// Says which ABI this is; never called.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// A VM has started.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_vm_start(_root: u32, _configuration_size: usize) -> u32 {
    super::log::init();
    1
}

/// A configuration for a root context; 0 refuses it.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_configure(root: u32, size: usize) -> u32 {
    let callback = Callback::enter();
    u32::from(plugin::with(|plugin| plugin.configure(&callback, root, size)).unwrap_or(false))
}

/// A context begins: a root when it has no parent, else a stream.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    #[cfg(feature = "bench")]
    let _timed = super::bench::callback!("proxy_on_context_create");
    if parent != 0 {
        plugin::with(|plugin| plugin.begin(context, parent));
    }
}

/// Time has passed.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_tick(root: u32) {
    let callback = Callback::enter();
    plugin::with(|plugin| plugin.tick(&callback, root));
    #[cfg(feature = "bench")]
    super::bench::tell();
}

/// A stream's request headers are there.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(stream: u32, _count: u32, end_of_stream: u32) -> u32 {
    #[cfg(feature = "bench")]
    let _timed = super::bench::callback!("proxy_on_request_headers");
    let callback = Callback::enter();
    plugin::with(|plugin| plugin.request_headers(&callback, stream, end_of_stream != 0)).unwrap_or(Action::Continue)
        as u32
}

/// A part of a stream's request body is there, of so many bytes. The host calls for each of them whether a bound is set or
/// not, so there is nothing to this for bodies that nobody counts.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_body(stream: u32, bytes: usize, end_of_stream: u32) -> u32 {
    #[cfg(feature = "bench")]
    let _timed = super::bench::callback!("proxy_on_request_body");
    let callback = Callback::enter();
    let action =
        plugin::with(|plugin| plugin.request_body(stream, bytes, end_of_stream != 0)).unwrap_or(Action::Continue);
    drop(callback);
    action as u32
}

/// A stream's response headers are there.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_headers(stream: u32, _count: u32, end_of_stream: u32) -> u32 {
    #[cfg(feature = "bench")]
    let _timed = super::bench::callback!("proxy_on_response_headers");
    let callback = Callback::enter();
    plugin::with(|plugin| plugin.response_headers(&callback, stream, end_of_stream != 0));
    Action::Continue as u32
}

/// A stream's response trailers are there.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_trailers(stream: u32, _count: u32) -> u32 {
    #[cfg(feature = "bench")]
    let _timed = super::bench::callback!("proxy_on_response_trailers");
    let callback = Callback::enter();
    plugin::with(|plugin| plugin.response_trailers(&callback, stream));
    Action::Continue as u32
}

/// A context is gone. For a stream this is where it is settled: Envoy logs it just before, and its properties can still be
/// read here, so that a callback for the log would tell nothing that this one does not.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(context: u32) {
    #[cfg(feature = "bench")]
    let _timed = super::bench::callback!("proxy_on_delete");
    let callback = Callback::enter();
    plugin::with(|plugin| plugin.close(&callback, context));
}
