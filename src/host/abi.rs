//! The raw proxy-wasm calls: the one file in which the host is spoken to, and where its statuses become our errors.
//!
//! Nothing here panics: an unexpected status is an [`HostError`], an absent answer is `None`. Bytes the host returns lie
//! in the [arena](super::arena) until the outermost callback has returned.

use std::ptr::{null, null_mut};

use super::arena::Callback;

/// Why the host did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostError {
    /// There is no such header, property, key or context (statuses 1 and 2: hosts differ in which they give).
    Absent,
    /// A compare-and-set met another version (status 8).
    Conflict,
    /// The host does not know the call (status 12), forbids it (10), or failed in some other way.
    Failed(u32),
}

/// Whose headers.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum HeaderMapKind {
    /// The request's headers.
    Request = 0,
    /// The response's headers.
    Response = 2,
    /// The response's trailers.
    ResponseTrailers = 3,
}

/// What a metric is.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum MetricKind {
    /// Only grows.
    Counter = 0,
    /// Goes up and down.
    Gauge = 1,
    /// Collects samples.
    Histogram = 2,
}

/// How a callback wants its stream to go on.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Action {
    /// To the next filter.
    Continue = 0,
    /// Not now: a local response has been sent, or the stream is held.
    Pause = 1,
}

const BUFFER_PLUGIN_CONFIGURATION: u32 = 7;
const STREAM_HTTP_REQUEST: u32 = 0;
const CLOCK_MONOTONIC: u32 = 1;

/// Declares the host's calls; the bench build times them.
#[cfg(not(feature = "bench"))]
macro_rules! host_calls {
    ($($calls:tt)*) => { $($calls)* };
}
#[cfg(feature = "bench")]
use super::bench::host_calls;

host_calls! {
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_buffer_bytes(kind: u32, start: usize, max: usize, data: *mut *const u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_pairs(kind: u32, data: *mut *const u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        kind: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *const u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        kind: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(kind: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *const u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_get_metric(id: u32, value: *mut u64) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *const u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, data: *const u8, size: usize, version: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_continue_stream(kind: u32) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
    fn random_get(into: *mut u8, size: usize) -> u32;
}
}

fn check(status: u32) -> Result<(), HostError> {
    match status {
        0 => Ok(()),
        1 | 2 => Err(HostError::Absent),
        8 => Err(HostError::Conflict),
        other => Err(HostError::Failed(other)),
    }
}

/// Writes a line to the proxy's log; levels are 0 trace to 5 critical. A host that refuses has no log: nothing to tell.
pub fn log(level: u32, message: &str) {
    // SAFETY: the pointer and length are those of a live str; the host copies before it returns.
    unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

/// Nanoseconds on the monotonic clock of the proxy's process, the same for all its workers. 0 where there is none.
pub fn monotonic_nanos() -> u64 {
    let mut time = 0u64;
    // SAFETY: `time` is a live u64; the host writes 8 bytes.
    let status = unsafe { clock_time_get(CLOCK_MONOTONIC, 1, &raw mut time) };
    if status == 0 { time } else { 0 }
}

/// A random number from the host; `None` where it gives none.
pub fn random_u64() -> Option<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: `bytes` is live and as long as said.
    let status = unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
    (status == 0).then(|| u64::from_le_bytes(bytes))
}

/// Asks the host to call back on its tick so often; 0 stops it.
pub fn set_tick_period_ms(period: u32) -> Result<(), HostError> {
    // SAFETY: no pointers.
    check(unsafe { proxy_set_tick_period_milliseconds(period) })
}

/// Has all further calls of this callback concern that context.
pub fn set_effective_context(context: u32) -> Result<(), HostError> {
    // SAFETY: no pointers.
    check(unsafe { proxy_set_effective_context(context) })
}

/// Lets the effective context's request, which must be paused, go on. Its headers cannot be read any more after that.
pub fn continue_request() -> Result<(), HostError> {
    // SAFETY: no pointers.
    check(unsafe { proxy_continue_stream(STREAM_HTTP_REQUEST) })
}

/// Defines a metric; every call makes a new id, so each name is defined once per VM.
pub fn define_metric(kind: MetricKind, name: &str) -> Result<u32, HostError> {
    let mut id = 0u32;
    // SAFETY: a live str and a live u32.
    check(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Adds to a counter (only more than 0) or gauge.
pub fn increment_metric(id: u32, offset: i64) -> Result<(), HostError> {
    // SAFETY: no pointers.
    check(unsafe { proxy_increment_metric(id, offset) })
}

/// Sets a gauge, or gives a histogram a sample.
pub fn record_metric(id: u32, value: u64) -> Result<(), HostError> {
    // SAFETY: no pointers.
    check(unsafe { proxy_record_metric(id, value) })
}

/// Reads a counter or gauge.
pub fn get_metric(id: u32) -> Result<u64, HostError> {
    let mut value = 0u64;
    // SAFETY: `value` is a live u64.
    check(unsafe { proxy_get_metric(id, &raw mut value) })?;
    Ok(value)
}

/// Adds a header after those there are.
pub fn add_header(kind: HeaderMapKind, name: &str, value: &str) -> Result<(), HostError> {
    // SAFETY: two live strs; the host copies.
    check(unsafe { proxy_add_header_map_value(kind as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Removes a header, with all its values; nothing if it is not there.
pub fn remove_header(kind: HeaderMapKind, name: &str) -> Result<(), HostError> {
    // SAFETY: a live str; the host copies.
    check(unsafe { proxy_remove_header_map_value(kind as u32, name.as_ptr(), name.len()) })
}

/// Sets the filter state `wasm.<name>`, for access logs.
pub fn set_filter_state(name: &str, value: &str) -> Result<(), HostError> {
    // SAFETY: two live strs; the host copies.
    check(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Stores under a key if its version still is `expected`; 0 stores whatever is there.
pub fn set_shared_data(key: &[u8], value: &[u8], expected: u32) -> Result<(), HostError> {
    // SAFETY: two live slices; the host copies.
    check(unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), expected) })
}

/// Answers the current stream in the upstream's place. `headers` is a serialized header map.
pub fn send_local_response(
    status: u16,
    details: &str,
    body: &[u8],
    headers: &[u8],
    grpc_status: Option<u8>,
) -> Result<(), HostError> {
    // SAFETY: live slices throughout; the host copies.
    check(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status.map_or(-1, i32::from),
        )
    })
}

// === what returns bytes: each call re-enters the VM to allocate, so these are the dear ones ===

impl Callback {
    /// The plugin's configuration.
    pub fn plugin_configuration(&self, size: usize) -> Result<&[u8], HostError> {
        self.bytes(|data, size_out| {
            // SAFETY: `bytes` passes live out-pointers.
            unsafe { proxy_get_buffer_bytes(BUFFER_PLUGIN_CONFIGURATION, 0, size, data, size_out) }
        })
    }

    /// A whole header map, serialized.
    pub fn header_map(&self, kind: HeaderMapKind) -> Result<&[u8], HostError> {
        self.bytes(|data, size| {
            // SAFETY: as above.
            unsafe { proxy_get_header_map_pairs(kind as u32, data, size) }
        })
    }

    /// The first value of a header.
    pub fn header(&self, kind: HeaderMapKind, name: &str) -> Option<&[u8]> {
        self.bytes(|data, size| {
            // SAFETY: as above, and a live str.
            unsafe { proxy_get_header_map_value(kind as u32, name.as_ptr(), name.len(), data, size) }
        })
        .ok()
    }

    /// A property, by its path with parts joined by `\0`.
    pub fn property(&self, path: &[u8]) -> Option<&[u8]> {
        self.bytes(|data, size| {
            // SAFETY: as above, and a live slice.
            unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) }
        })
        .ok()
    }

    /// A property that is a number: 8 bytes, little end first.
    pub fn property_u64(&self, path: &[u8]) -> Option<u64> {
        let bytes = self.property(path)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn bytes(&self, call: impl FnOnce(*mut *const u8, *mut usize) -> u32) -> Result<&[u8], HostError> {
        let (mut data, mut size) = (null::<u8>(), 0usize);
        check(call(&raw mut data, &raw mut size))?;
        if data.is_null() || size == 0 {
            return Ok(&[]);
        }
        // SAFETY: the host put `size` bytes where our allocator told it to, in the arena, which is neither moved nor
        // reused while a `Callback` lives, and `self` is one.
        Ok(unsafe { std::slice::from_raw_parts(data, size) })
    }
}

/// Copies what is stored under a key and gives its version. `None` in place of a version: it is not as long as `into`.
pub fn get_shared_data(key: &[u8], into: &mut [u8]) -> Result<Option<u32>, HostError> {
    let (mut data, mut size, mut version) = (null_mut::<u8>().cast_const(), 0usize, 0u32);
    // SAFETY: a live slice and live out-pointers.
    check(unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), &raw mut data, &raw mut size, &raw mut version) })?;
    if data.is_null() || size != into.len() {
        return Ok(None);
    }
    // SAFETY: the host put `size` bytes into the arena, which stays as it is at least until the callback returns.
    into.copy_from_slice(unsafe { std::slice::from_raw_parts(data, size) });
    Ok(Some(version))
}
