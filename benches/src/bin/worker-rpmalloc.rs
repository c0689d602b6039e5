//! The workloads on rpmalloc as the global allocator.

use std::process::ExitCode;

use benches::{contender::Realloc, worker};

#[global_allocator]
static GLOBAL: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

fn main() -> ExitCode {
    // The crate leaves it to what Rust does for every allocator: a move.
    worker::serve_global(Realloc::Lacking, None)
}
