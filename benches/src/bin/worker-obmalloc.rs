//! The workloads on obmalloc as the global allocator.

use std::process::ExitCode;

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

fn main() -> ExitCode {
    benches::worker::serve_global(None)
}
