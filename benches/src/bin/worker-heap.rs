//! The workloads on our heap, for one owner, with the rules of the threads' heaps.

use std::process::ExitCode;

use benches::{contender::Realloc, contenders::OwnHeap, worker};
use obmalloc::{HeadersInArena, Pools16K, RestEachClass};

fn main() -> ExitCode {
    worker::serve_single(
        OwnHeap::<HeadersInArena<RestEachClass<Pools16K>>>::new(),
        Realloc::Lacking,
        None,
    )
}
