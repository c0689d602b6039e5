//! The workloads on rpmalloc as the global allocator.

// The crate does not call the library's `realloc`, so Rust's default implementation moves the
// block.
benches::global_worker!(rpmalloc::RpMalloc = rpmalloc::RpMalloc, Lacking, None);
