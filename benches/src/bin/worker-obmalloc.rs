//! The workloads on obmalloc as the global allocator.

use std::process::ExitCode;

use benches::{contender::Realloc, worker};

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

fn main() -> ExitCode {
    worker::serve_global(Realloc::Own, None)
}
