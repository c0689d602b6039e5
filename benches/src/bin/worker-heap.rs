//! The workloads on our heap, for one owner, with the rules of the threads' heaps.

use std::process::ExitCode;

use benches::{contenders::OwnHeap, worker};
use obmalloc::{Pools16K, RestEachClass};

fn main() -> ExitCode {
    worker::serve_single(OwnHeap::<RestEachClass<Pools16K>>::new(), None)
}
