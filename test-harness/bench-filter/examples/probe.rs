//! Times calls to the host from inside the VM, and answers every request with one line for each: its name, a tab, and
//! nanoseconds per call.
#![cfg(target_os = "wasi")]
#![expect(unsafe_code, reason = "the host's calls are C functions")]

use std::fmt::Write;
use std::ptr::null;
use std::sync::atomic::{AtomicBool, Ordering};

#[link(wasm_import_module = "env")]
unsafe extern "C" {
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
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *const u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
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
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
}

const CLOCK_MONOTONIC: u32 = 1;
const REQUEST: u32 = 0;
const PAUSE: u32 = 1;

/// Times each call is made. Adding headers makes the map longer, so that one is called less often.
const CALLS: u32 = 2_000;
const ADDITIONS: u32 = 100;

/// Where the host writes; nothing is kept in it.
static mut ARENA: [u8; 65_536] = [0; 65_536];
static IN_USE: AtomicBool = AtomicBool::new(false);

/// Makes the module ready.
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {}

/// Says which ABI this is.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// Room for what the host returns: always the same.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    if size <= 65_536 { (&raw mut ARENA).cast() } else { std::ptr::null_mut() }
}

/// A context begins.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(_context: u32, _parent: u32) {}

/// Measures, and answers with the figures.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(_stream: u32, _count: u32, _ends: u32) -> u32 {
    // The local response calls back before it returns.
    if !IN_USE.swap(true, Ordering::Relaxed) {
        let body = measure();
        // SAFETY: live slices; the host copies.
        unsafe { proxy_send_local_response(200, null(), 0, body.as_ptr(), body.len(), null(), 0, -1) };
        IN_USE.store(false, Ordering::Relaxed);
    }
    PAUSE
}

fn now() -> u64 {
    let mut time = 0;
    // SAFETY: a live u64.
    unsafe { clock_time_get(CLOCK_MONOTONIC, 1, &raw mut time) };
    time
}

fn time(report: &mut String, name: &str, calls: u32, mut call: impl FnMut() -> u32) {
    // The first call may compile, define or allocate.
    let status = call();
    let start = now();
    for _ in 0..calls {
        std::hint::black_box(call());
    }
    let nanos = (now() - start) as f64 / f64::from(calls);
    // Writing to a String cannot fail.
    let _ = if status == 0 { writeln!(report, "{name}\t{nanos}") } else { writeln!(report, "{name}\tstatus {status}") };
}

fn measure() -> String {
    let mut report = String::new();
    let (mut data, mut size, mut version) = (null(), 0usize, 0u32);
    let mut number = 0u64;
    // SAFETY, for all calls below: the strings and out-pointers are live during each call.
    time(&mut report, "read the clock", CALLS, || unsafe { clock_time_get(CLOCK_MONOTONIC, 1, &raw mut number) });
    let mut id = 0u32;
    let gauge = b"bench_probe";
    unsafe { proxy_define_metric(1, gauge.as_ptr(), gauge.len(), &raw mut id) };
    time(&mut report, "add to a gauge or counter", CALLS, || unsafe { proxy_increment_metric(id, 1) });
    time(&mut report, "read a gauge or counter", CALLS, || unsafe { proxy_get_metric(id, &raw mut number) });
    let mut header = |report: &mut String, label: &str, name: &[u8]| {
        time(report, label, CALLS, || unsafe {
            // An absent header is an answer too: Envoy gives it the status 1.
            proxy_get_header_map_value(REQUEST, name.as_ptr(), name.len(), &raw mut data, &raw mut size) & !1
        });
    };
    header(&mut report, "read an absent header", b"x-absent");
    header(&mut report, "read a header", b"x-api-key");
    time(&mut report, "read all request headers", CALLS, || unsafe {
        proxy_get_header_map_pairs(REQUEST, &raw mut data, &raw mut size)
    });
    let (name, value) = (b"x-added", br#""clients";r=9999;t=1"#);
    time(&mut report, "add a header", ADDITIONS, || unsafe {
        proxy_add_header_map_value(REQUEST, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    });
    let path = b"xds\0cluster_name";
    time(&mut report, "read a property", CALLS, || unsafe {
        proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size)
    });
    let (name, value) = (b"probe", b"admitted");
    time(&mut report, "set filter state", CALLS, || unsafe {
        proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len())
    });
    // One that is there and empty returns no bytes: the host does not ask for room.
    for bytes in [0, 16, 1040] {
        let page = vec![0u8; bytes];
        let key = [b"page/", bytes.to_string().as_bytes()].concat();
        // SAFETY, for both: as above.
        let get = |data: &mut *const u8, size: &mut usize, version: &mut u32| unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), data, size, version)
        };
        let set =
            |version| unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), page.as_ptr(), page.len(), version) };
        set(0);
        time(&mut report, &format!("read shared data, {bytes} bytes"), CALLS, || {
            get(&mut data, &mut size, &mut version)
        });
        time(&mut report, &format!("read and compare-and-set it, {bytes} bytes"), CALLS, || {
            get(&mut data, &mut size, &mut version);
            set(version)
        });
    }
    report
}
