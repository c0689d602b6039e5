//! The workloads on obmalloc as the global allocator.

use global_alloc::ObMalloc;

benches::global_worker!(ObMalloc = ObMalloc::new(), Own, None, || {
    ObMalloc.flush();
});
