//! Allocation patterns from the literature on several threads.
//!
//! Blocks have up to 512 bytes. Two patterns are repeated with blocks of 16 bytes to 64 KiB: larson
//! as "slots", and xmalloc as "freed elsewhere". In these, each power of two is equally likely.
//! Only the first byte of a block is written to.
//!
//! | pattern | what it does | source |
//! | --- | --- | --- |
//! | larson | replaces slots at random; a thread ends, and the next continues with its slots | Larson and Krishnan, *Memory Allocation for Long-Running Server Applications* (1998) |
//! | xmalloc | frees every block on another thread | Lever and Boreham, *malloc() Performance in a Multithreaded Linux Environment* (2000) |
//! | cache-scratch | gives blocks that were neighbours on one thread to several threads | Berger et al., *Hoard* (2000) |
//! | cache-thrash | allocates a small block on each of several threads and writes to it | Hoard |
//! | threadtest | divides the same work between threads that share nothing | Hoard |
//! | sh6 | has lifetimes of all lengths and mostly small sizes | MicroQuill's SmartHeap benches |
//! | sh8 | does the same, and long-lived blocks are freed by any thread | SmartHeap |
//! | mstress | exchanges growing and shrinking structures between threads | mimalloc's stress test |
//! | glibc simple | frees runs of 25 to 1,600 blocks of one size in the same order | glibc's `benchtests` |
//! | glibc thread | replaces a working set of mostly small blocks at random | glibc |

mod exchange;
mod false_sharing;
mod glibc;
mod larson;
mod lifetimes;
mod mstress;
mod threads;
mod threadtest;
mod xmalloc;

use crate::{
    contenders::Global,
    workload::{Group, Workload},
};

pub(crate) use threadtest::blocks_of_its_own;

/// Returns each pattern with 2 and with 4 threads, and blocks of up to 512 bytes.
pub fn workloads() -> Vec<Workload<Global>> {
    let workload = |name, chunk| Workload::new(Group::Patterns, name, chunk);
    vec![
        workload("larson, 2 threads", larson::bleeding::<2>),
        workload("larson, 4 threads", larson::bleeding::<4>),
        workload("xmalloc, 2 threads", xmalloc::all_remote::<2>),
        workload("xmalloc, 4 threads", xmalloc::all_remote::<4>),
        workload("cache-scratch, 2 threads", false_sharing::scratch::<2>),
        workload("cache-scratch, 4 threads", false_sharing::scratch::<4>),
        workload("cache-thrash, 2 threads", false_sharing::thrash::<2>),
        workload("cache-thrash, 4 threads", false_sharing::thrash::<4>),
        workload("threadtest, 2 threads", threadtest::blocks_of_its_own::<2>),
        workload("threadtest, 4 threads", threadtest::blocks_of_its_own::<4>),
        workload("sh6, 2 threads", lifetimes::sh6::<2>),
        workload("sh6, 4 threads", lifetimes::sh6::<4>),
        workload("sh8, 2 threads", lifetimes::sh8::<2>),
        workload("sh8, 4 threads", lifetimes::sh8::<4>),
        workload("mstress, 2 threads", mstress::exchanged::<2>),
        workload("mstress, 4 threads", mstress::exchanged::<4>),
        workload("glibc simple, 2 threads", glibc::simple::<2>),
        workload("glibc simple, 4 threads", glibc::simple::<4>),
        workload("glibc thread, 2 threads", glibc::thread::<2>),
        workload("glibc thread, 4 threads", glibc::thread::<4>),
    ]
}

/// Returns the patterns with blocks of up to 64 KiB.
pub fn of_mixed_sizes() -> Vec<Workload<Global>> {
    let workload = |name, chunk| Workload::new(Group::Mixed, name, chunk);
    vec![
        workload("slots, 1 thread", larson::mixed::<1>),
        workload("slots, 2 threads", larson::mixed::<2>),
        workload("slots, 4 threads", larson::mixed::<4>),
        workload("freed elsewhere, 2 threads", xmalloc::mixed::<2>),
        workload("freed elsewhere, 4 threads", xmalloc::mixed::<4>),
    ]
}
