//! Patterns that are known from the literature, on several threads, after their descriptions.
//!
//! ```text
//!   larson         slots replaced at random; a thread ends, and the next goes on with its slots
//!   xmalloc        every block is freed by another thread than allocated it
//!   cache-scratch  blocks that were neighbours on one thread are given to several
//!   cache-thrash   several threads ask for a small block each and write to it
//!   threadtest     the same work, divided between threads that share nothing
//!   sh6            lifetimes of all lengths, small sizes the most likely
//!   sh8            the same; what lives long is freed by whoever comes along
//!   mstress        structures that grow, shrink and are exchanged between threads
//!   glibc simple   runs of 25 to 1,600 blocks of one size, freed in the same order
//!   glibc thread   a working set replaced at random, small sizes the most likely
//! ```
//!
//! Their sizes go up to 512 bytes here. An operation is a block's life. Time is what passes from
//! the start of the first thread to the end of the last.
//!
//! Sources: Larson and Krishnan, *Memory Allocation for Long-Running Server Applications* (1998);
//! Lever and Boreham, *malloc() Performance in a Multithreaded Linux Environment* (2000), for
//! xmalloc; Berger et al., *Hoard* (2000), for the two of the cache and threadtest; MicroQuill's
//! SmartHeap benches, for sh6 and sh8; the stress test of mimalloc; glibc's `benchtests`.

mod exchange;
mod false_sharing;
mod glibc;
mod larson;
mod lifetimes;
mod mstress;
mod threadtest;
mod xmalloc;

use std::thread;

use crate::{
    contender::Held,
    contenders::Global,
    pin,
    workload::{Group, Taken, Workload},
};

pub(crate) use threadtest::blocks_of_its_own;

/// Each with 2 and with 4 threads.
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

/// Runs `work` on a thread for each of `needs`, with its number and what it needs; each is on a
/// processor of its own as far as there are enough, and does `operations`.
fn on_threads<N: Send>(
    mut needs: Vec<N>,
    operations: usize,
    work: impl Fn(usize, &mut N) + Sync,
) -> Taken {
    Taken::together(needs.len() * operations, || {
        thread::scope(|scope| {
            for (number, need) in needs.iter_mut().enumerate() {
                let work = &work;
                scope.spawn(move || {
                    pin::to_processor(number);
                    work(number, need);
                });
            }
        });
    })
}

/// Room for so many blocks.
fn room(blocks: usize) -> Vec<Held> {
    Vec::with_capacity(blocks)
}
