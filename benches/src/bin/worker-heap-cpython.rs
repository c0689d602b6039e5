//! The workloads on our heap used by one owner, with the rules of CPython.

use benches::{contender::Realloc, contenders::CPythonRulesHeap, worker};

fn main() -> std::process::ExitCode {
    worker::serve_single(CPythonRulesHeap::default(), Realloc::Lacking, None)
}
