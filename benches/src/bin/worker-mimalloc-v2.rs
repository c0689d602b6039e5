//! The workloads on mimalloc, version 2 of the library, as the global allocator.

use std::{ffi::c_int, process::ExitCode};

use benches::{contender::Realloc, worker};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    safe fn mi_version() -> c_int;
}

fn main() -> ExitCode {
    // Major, then two digits of the minor version, then two of the patch.
    let version = mi_version();
    let parts = (version / 10_000, version / 100 % 100, version % 100);
    worker::serve_global(Realloc::Own, Some(format!("{}.{}.{}", parts.0, parts.1, parts.2)))
}
