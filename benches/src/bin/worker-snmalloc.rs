//! The workloads on snmalloc as the global allocator.

benches::global_worker!(snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc, Own, None);
