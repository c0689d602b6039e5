//! The workloads on rpmalloc as the global allocator.

use std::process::ExitCode;

#[global_allocator]
static GLOBAL: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

fn main() -> ExitCode {
    benches::worker::serve_global(None)
}
