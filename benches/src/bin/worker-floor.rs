//! The workloads on the least that an allocator does.

use std::process::ExitCode;

use benches::{contender::Realloc, contenders::Floor, worker};

fn main() -> ExitCode {
    worker::serve_single(Floor::new(), Realloc::Lacking, None)
}
