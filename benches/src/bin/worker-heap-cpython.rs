//! The workloads on our heap, for one owner, with CPython's rules.

use std::process::ExitCode;

use benches::{contender::Realloc, contenders::OwnHeap, worker};
use obmalloc::Pools16K;

fn main() -> ExitCode {
    worker::serve_single(OwnHeap::<Pools16K>::new(), Realloc::Lacking, None)
}
