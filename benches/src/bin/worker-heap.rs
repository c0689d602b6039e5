//! The workloads on our heap, for one owner, with the rules of the threads' heaps.

use std::process::ExitCode;

use benches::{contender::Realloc, contenders::ThreadRulesHeap, worker};

fn main() -> ExitCode {
    worker::serve_single(ThreadRulesHeap::new(), Realloc::Lacking, None)
}
