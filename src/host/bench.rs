//! The bench build: counts and times every callback of a stream and every call it makes to the host, inside the VM.
//!
//! Only with the feature `bench`, which `make bench` builds beside the module that is shipped. What has come together is
//! told on every tick, as counters under `tidegate_bench`, of which the harness takes differences. What timing itself
//! costs is told too, so that it can be taken off.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::abi::{self, MetricKind};

/// What is told of each callback and call, as sums.
const FIELDS: [&str; 6] = ["calls", "timed", "nanos", "refused", "host_calls", "host_nanos"];
type Fields = [i64; FIELDS.len()];

/// What takes longer, in nanoseconds, was interrupted: the thread had to wait for a processor. It is counted and not timed.
const INTERRUPTED: i64 = 200_000;

/// How often nothing is timed on a tick, to learn what timing costs.
const EMPTY: i64 = 500;

/// A callback, a call to the host, or something else that is counted.
pub struct Slot {
    name: &'static str,
    listed: AtomicBool,
    /// In the order of [`FIELDS`], since last told. A VM has one thread: the atomics are for being static.
    fields: [AtomicI64; FIELDS.len()],
}

/// A slot with the host's numbers of its counters.
type Listed = (&'static Slot, [Option<u32>; FIELDS.len()]);

thread_local! {
    static SLOTS: RefCell<Vec<Listed>> = const { RefCell::new(Vec::new()) };
    /// Callbacks of streams that are running.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static HOST_CALLS: Cell<i64> = const { Cell::new(0) };
    static HOST_NANOS: Cell<i64> = const { Cell::new(0) };
}

/// The host asks for room: it is about to return bytes.
static ROOM: Slot = Slot::new("proxy_on_memory_allocate");
static ALLOCATIONS: Slot = Slot::new("allocations");
static NOTHING: Slot = Slot::new("nothing");
/// The last callback of each stream. Its number is told last of all: who has seen it has seen the others.
const LAST: &str = "proxy_on_delete";

/// Declares the host's calls, and wraps each in a function of the same name that times it.
macro_rules! host_calls {
    ($( #[$link:meta] unsafe extern "C" { $( fn $name:ident( $($arg:ident: $type:ty),* $(,)? ) -> u32; )* } )*) => {
        mod raw {
            $( #[$link] unsafe extern "C" { $( pub fn $name($($arg: $type),*) -> u32; )* } )*
        }
        $( $(
            #[allow(clippy::too_many_arguments, reason = "the host's call has as many")]
            unsafe fn $name($($arg: $type),*) -> u32 {
                static SLOT: crate::host::bench::Slot = crate::host::bench::Slot::new(stringify!($name));
                // SAFETY: the caller keeps the contract, which is the same.
                crate::host::bench::call(&SLOT, || unsafe { raw::$name($($arg),*) })
            }
        )* )*

        /// The clock, untimed.
        pub fn untimed_nanos() -> u64 {
            let mut time = 0u64;
            // SAFETY: `time` is a live u64; the host writes 8 bytes.
            unsafe { raw::clock_time_get(CLOCK_MONOTONIC, 1, &raw mut time) };
            time
        }
    };
}
pub(super) use host_calls;

/// Times a stream's callback of this name until what this gives is dropped.
macro_rules! callback {
    ($name:literal) => {{
        static SLOT: crate::host::bench::Slot = crate::host::bench::Slot::new($name);
        crate::host::bench::Timed::begin(&SLOT)
    }};
}
pub(super) use callback;

impl Slot {
    pub const fn new(name: &'static str) -> Self {
        Self { name, listed: AtomicBool::new(false), fields: [const { AtomicI64::new(0) }; FIELDS.len()] }
    }

    /// One more in a callback of a stream. Neither allocates nor calls the host, as [`Slot::add`] does the first time.
    fn count(&self) {
        if DEPTH.get() > 0
            && let Some(calls) = self.fields.first()
        {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn add(&'static self, more: Fields) {
        for (field, more) in self.fields.iter().zip(more) {
            // Sums of nanoseconds would wrap after centuries.
            field.fetch_add(more, Ordering::Relaxed);
        }
        if !self.listed.swap(true, Ordering::Relaxed) {
            let define =
                |field| abi::define_metric(MetricKind::Counter, &format!("tidegate_bench.{}.{field}", self.name)).ok();
            let _ = SLOTS.try_with(|slots| slots.borrow_mut().push((self, FIELDS.map(define))));
        }
    }
}

fn now() -> i64 {
    abi::untimed_nanos().cast_signed()
}

/// Makes a call to the host, and times it if a stream's callback makes it.
pub fn call(slot: &'static Slot, act: impl FnOnce() -> u32) -> u32 {
    if DEPTH.get() == 0 {
        return act();
    }
    let start = now();
    let status = act();
    let nanos = now().saturating_sub(start);
    let timed = nanos < INTERRUPTED;
    outside(|| slot.add([1, i64::from(timed), if timed { nanos } else { 0 }, i64::from(status != 0), 0, 0]));
    HOST_CALLS.set(HOST_CALLS.get().saturating_add(1));
    HOST_NANOS.set(HOST_NANOS.get().saturating_add(nanos));
    status
}

/// Keeps the books: what that calls and allocates is no stream's.
fn outside<T>(keep: impl FnOnce() -> T) -> T {
    let depth = DEPTH.replace(0);
    let kept = keep();
    DEPTH.set(depth);
    kept
}

/// The host has asked for room. It allows no calls meanwhile.
pub fn room() {
    ROOM.count();
}

/// A stream's callback that is running.
pub struct Timed {
    slot: &'static Slot,
    host_calls: i64,
    host_nanos: i64,
    start: i64,
}

impl Timed {
    pub fn begin(slot: &'static Slot) -> Self {
        DEPTH.set(DEPTH.get().saturating_add(1));
        Self { slot, host_calls: HOST_CALLS.get(), host_nanos: HOST_NANOS.get(), start: now() }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let nanos = now().saturating_sub(self.start);
        let calls = HOST_CALLS.get().saturating_sub(self.host_calls);
        let host_nanos = HOST_NANOS.get().saturating_sub(self.host_nanos);
        let sums = if nanos < INTERRUPTED { [1, 1, nanos, 0, calls, host_nanos] } else { [1, 0, 0, 0, 0, 0] };
        outside(|| self.slot.add(sums));
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}

/// Tells what has come together. What timing costs goes under `nothing`: `nanos` is what is measured of it, `host_nanos`
/// what all of it takes.
pub fn tell() {
    let start = now();
    DEPTH.set(1);
    (0..EMPTY).for_each(|_| {
        call(&NOTHING, || 0);
    });
    DEPTH.set(0);
    NOTHING.add([0, 0, 0, 0, 0, now().saturating_sub(start)]);
    // They cannot list themselves.
    ROOM.add([0; FIELDS.len()]);
    ALLOCATIONS.add([0; FIELDS.len()]);
    let _ = SLOTS.try_with(|slots| {
        let mut slots = slots.borrow_mut();
        slots.sort_by_key(|(slot, _)| slot.name == LAST);
        for (slot, ids) in slots.iter() {
            for (field, id) in slot.fields.iter().zip(ids).rev() {
                let more = field.swap(0, Ordering::Relaxed);
                if let Some(id) = id.filter(|_| more > 0) {
                    let _ = abi::increment_metric(id, more);
                }
            }
        }
    });
}

/// Counts what streams' callbacks allocate.
struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.count();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
