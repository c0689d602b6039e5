//! The workloads on obmalloc as the global allocator.

benches::global_worker!(global_alloc::ObMalloc = global_alloc::ObMalloc::new(), Own, None);
