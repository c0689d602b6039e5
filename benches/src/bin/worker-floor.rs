//! The workloads on a minimal allocator, which does only what any allocator with size classes must
//! do.

use benches::{contender::Realloc, contenders::Floor, worker};

fn main() -> std::process::ExitCode {
    worker::serve_single(Floor::default(), Realloc::Lacking, None)
}
