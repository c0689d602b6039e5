//! The workloads on the least that an allocator does.

use benches::{contender::Realloc, contenders::Floor, worker};

fn main() -> std::process::ExitCode {
    worker::serve_single(Floor::default(), Realloc::Lacking, None)
}
