//! The workloads on the C library's allocator.

use std::process::ExitCode;

use benches::{contender::Realloc, worker};

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() -> ExitCode {
    worker::serve_global(Realloc::Own, library())
}

/// The C library's version.
#[cfg(target_env = "gnu")]
fn library() -> Option<String> {
    // SAFETY: it returns a C string that stays.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    Some(format!("glibc {}", version.to_string_lossy()))
}

/// Other C libraries do not tell.
#[cfg(not(target_env = "gnu"))]
fn library() -> Option<String> {
    None
}
