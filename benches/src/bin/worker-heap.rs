//! The workloads on our heap used by one owner, with the same rules as the heaps of threads.

use benches::{contender::Realloc, contenders::ThreadRulesHeap, worker};

fn main() -> std::process::ExitCode {
    worker::serve_single(ThreadRulesHeap::default(), Realloc::Lacking, None)
}
