//! The workloads on the C library's allocator.

use std::alloc::System;

benches::global_worker!(System = System, Own, version());

/// Returns the name and the version of the C library.
#[cfg(target_env = "gnu")]
fn version() -> Option<String> {
    // SAFETY: the function returns a static C string.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    Some(format!("glibc {}", version.to_string_lossy()))
}

/// Returns `None`, because other C libraries do not report a version.
#[cfg(not(target_env = "gnu"))]
fn version() -> Option<String> {
    None
}
