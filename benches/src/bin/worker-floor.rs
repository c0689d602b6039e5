//! The workloads on a minimal allocator with size classes.

use benches::{contender::Realloc, contenders::Floor, worker};

fn main() -> std::process::ExitCode {
    worker::serve_single(Floor::default(), Realloc::Lacking, None)
}
