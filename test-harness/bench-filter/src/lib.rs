//! Modules the benchmark holds Tidegate against, under `examples/`:
//!
//! - `stock` does nothing, on the SDK most filters are written with. It exports every callback there is.
//! - `minimal` does nothing either, with no more callbacks than Tidegate has: what crossing into a VM costs at least.
//! - `probe` times calls to the host from inside the VM.
