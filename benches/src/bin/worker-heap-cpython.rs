//! The workloads on our heap, for one owner, with CPython's rules.

use benches::{contender::Realloc, contenders::CPythonRulesHeap, worker};

fn main() -> std::process::ExitCode {
    worker::serve_single(CPythonRulesHeap::default(), Realloc::Lacking, None)
}
