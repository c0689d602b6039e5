//! The workloads on our heap, for one owner, with CPython's rules.

use std::process::ExitCode;

use benches::{contender::Realloc, contenders::CPythonRulesHeap, worker};

fn main() -> ExitCode {
    worker::serve_single(CPythonRulesHeap::new(), Realloc::Lacking, None)
}
