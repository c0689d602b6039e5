//! The workloads on snmalloc as the global allocator.

use std::process::ExitCode;

use benches::{contender::Realloc, worker};

#[global_allocator]
static GLOBAL: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

fn main() -> ExitCode {
    worker::serve_global(Realloc::Own, None)
}
