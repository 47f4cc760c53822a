//! Where the host puts the bytes it returns.
//!
//! Every call that returns bytes makes the host ask this module for room first. A bump arena answers: taking room is an
//! addition, nothing is freed one by one, and all of it is free again when the outermost callback has returned. A
//! [`Callback`] is the proof that one is running; slices borrowed from it cannot outlive it.

use std::cell::{Cell, RefCell};

/// What is kept between callbacks. A request's header map and a few properties fit; a large configuration does not and
/// is given back.
const KEPT: usize = 64 * 1024;

/// The first chunk: a usual request's headers and properties.
const FIRST: usize = 16 * 1024;

/// Owned bytes, held by pointer because the host writes into them behind the compiler's back.
struct Chunk(*mut [u8]);

impl Chunk {
    fn new(size: usize) -> Self {
        Self(Box::into_raw(vec![0u8; size].into_boxed_slice()))
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `new`, and dropped once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

thread_local! {
    static CHUNKS: RefCell<Vec<Chunk>> = const { RefCell::new(Vec::new()) };
    static USED: Cell<usize> = const { Cell::new(0) };
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// A callback that is running. Hosts may nest them (a local response can call back before it returns): the arena is
/// emptied only by the outermost.
pub struct Callback(());

impl Callback {
    /// Marks the start of a callback.
    pub fn enter() -> Self {
        DEPTH.with(|depth| depth.set(depth.get().saturating_add(1)));
        Self(())
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        let depth = DEPTH.with(|depth| {
            depth.set(depth.get().saturating_sub(1));
            depth.get()
        });
        if depth == 0 {
            USED.with(|used| used.set(0));
            let _ = CHUNKS.try_with(|chunks| {
                if let Ok(mut chunks) = chunks.try_borrow_mut() {
                    // The newest chunk is at least as large as all before it together: it alone is kept.
                    let earlier = chunks.len().saturating_sub(1);
                    if earlier > 0 {
                        chunks.drain(..earlier);
                    }
                    if chunks.last().is_some_and(|chunk| chunk.len() > KEPT) {
                        chunks.clear();
                    }
                }
            });
        }
    }
}

/// Room for `size` bytes, or null. Aligned for anything the host stores (it stores bytes).
fn allocate(size: usize) -> *mut u8 {
    CHUNKS.with(|chunks| {
        let Ok(mut chunks) = chunks.try_borrow_mut() else { return std::ptr::null_mut() };
        let start = USED.with(Cell::get);
        let fits = |chunk: &Chunk| start.checked_add(size).is_some_and(|end| end <= chunk.len());
        if !chunks.last().is_some_and(fits) {
            let last = chunks.last().map_or(0, Chunk::len);
            chunks.push(Chunk::new(size.max(last.saturating_mul(2)).max(FIRST)));
            USED.with(|used| used.set(0));
        }
        let start = USED.with(Cell::get);
        USED.with(|used| used.set(start.saturating_add(size)));
        // In bounds: `start + size` fits the last chunk, by the test or by its making.
        chunks.last().map_or(std::ptr::null_mut(), |chunk| chunk.0.cast::<u8>().wrapping_add(start))
    })
}

/// The host asks for room for the bytes it is about to return.
// SAFETY: the name is the ABI's; no other symbol of the module has it.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    #[cfg(feature = "bench")]
    super::bench::room();
    allocate(size)
}
