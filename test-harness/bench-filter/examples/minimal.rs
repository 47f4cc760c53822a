//! A filter that does nothing, with the callbacks Tidegate has and no others.
#![cfg(target_os = "wasi")]
#![expect(unsafe_code, reason = "exported names are unsafe attributes")]

/// Makes the module ready.
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {}

/// Says which ABI this is.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// Nothing is ever asked of the host that would need memory.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(_size: usize) -> *mut u8 {
    std::ptr::null_mut()
}

/// A context begins.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(_context: u32, _parent: u32) {}

/// A stream's request headers are there: to the next filter.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(_stream: u32, _count: u32, _ends: u32) -> u32 {
    0
}

/// A part of a stream's request body is there: to the next filter.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_body(_stream: u32, _bytes: usize, _ends: u32) -> u32 {
    0
}

/// A stream's response headers are there: to the next filter.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_headers(_stream: u32, _count: u32, _ends: u32) -> u32 {
    0
}

/// A stream's response trailers are there: to the next filter.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_trailers(_stream: u32, _count: u32) -> u32 {
    0
}

/// A context is gone.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(_context: u32) {}
