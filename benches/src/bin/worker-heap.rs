//! The workloads on our heap, for one owner, with the rules of the threads' heaps.

use benches::{contender::Realloc, contenders::ThreadRulesHeap, worker};

fn main() -> std::process::ExitCode {
    worker::serve_single(ThreadRulesHeap::default(), Realloc::Lacking, None)
}
