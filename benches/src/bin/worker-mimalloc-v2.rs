//! The workloads on mimalloc, version 2 of the library, as the global allocator.

use benches::worker::mimalloc_version;
use mimalloc::MiMalloc;

unsafe extern "C" {
    safe fn mi_version() -> std::ffi::c_int;
}

benches::global_worker!(MiMalloc = MiMalloc, Own, Some(mimalloc_version(mi_version())));
