//! The workloads on snmalloc as the global allocator.

use std::process::ExitCode;

#[global_allocator]
static GLOBAL: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

fn main() -> ExitCode {
    benches::worker::serve_global(None)
}
