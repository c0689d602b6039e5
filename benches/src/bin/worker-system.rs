//! The workloads on the C library's allocator.

use std::alloc::System;

benches::global_worker!(System = System, Own, version(), trim);

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

/// Returns unused memory to the system.
#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: the function takes a number, and does not affect live memory.
    unsafe { libc::malloc_trim(0) };
}

/// Does nothing, because other C libraries have no function for this.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
