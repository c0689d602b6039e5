//! Workloads with a growing number of live blocks, or with a growing number of threads.
//!
//! ```text
//!   live blocks   ├──────┤▓▓▓▓▓▓├──────────────────────────────────┤
//!                        free a run and allocate it again, TIMES times, then go to the next run
//! ```
//!
//! An operation is the life of a block. The blocks are divided into runs, in the order of
//! allocation. To replace a run is to free its blocks and to allocate them again.
//!
//! - A run that is replaced 8 times stays in the processor's cache for a while. If an operation
//!   takes more time with more blocks, the cause is therefore the allocator's own metadata.
//! - If each run is replaced only once, its blocks come from main memory each time, as in a program
//!   that walks over all of its memory. This measures the machine's memory as much as the
//!   allocator. Even the minimal allocator ("the least") takes about twice as long with 10^7 blocks
//!   as with 10^5.
//! - The memory that the allocator needs for a block in addition to the block's size is measured
//!   while the second half of the blocks is allocated. The memory that was resident before is thus
//!   not counted, and the size of the allocator's requests to the system matters little.
//! - The threads share nothing, and their total work does not depend on the number of threads.

use std::{hint::black_box, ptr};

use crate::{
    contender::{Contender, Held},
    contenders::Global,
    patterns::blocks_of_its_own,
    resident::resident,
    workload::{Group, Taken, Weight, Workload},
};

/// The size of every block in bytes.
const SIZE: usize = 32;

/// The number of blocks in a run.
const RUN: usize = 100;

/// The minimum number of operations. If there are fewer blocks, the workload walks over them
/// several times.
const OPERATIONS: usize = 1_000_000;

/// The minimum number of blocks for which the memory of a block is measured. An allocator requests
/// memory from the system in large pieces, so with fewer blocks the measurement would mostly show
/// the size of these pieces.
const VISIBLE: usize = 1_000_000;

/// Returns workloads with 10^3 to 10^8 live blocks: first those that replace each run 8 times, then
/// those that replace it once.
pub fn of_blocks<C: Contender>() -> Vec<Workload<C>> {
    let workload = |name, chunk| Workload::new(Group::Scale, name, chunk);
    vec![
        workload("10^3 live blocks", walk::<C, 1_000, 8>),
        workload("10^4 live blocks", walk::<C, 10_000, 8>),
        workload("10^5 live blocks", walk::<C, 100_000, 8>),
        workload("10^6 live blocks", walk::<C, 1_000_000, 8>),
        workload("10^7 live blocks", walk::<C, 10_000_000, 8>).of_weight(Weight::Heavy),
        workload("10^8 live blocks", walk::<C, 100_000_000, 8>).of_weight(Weight::Huge),
        workload("10^5 live blocks, once through", walk::<C, 100_000, 1>),
        workload("10^7 live blocks, once through", walk::<C, 10_000_000, 1>)
            .of_weight(Weight::Heavy),
    ]
}

/// Returns workloads with 1 to 64 threads that share nothing.
pub fn of_threads() -> Vec<Workload<Global>> {
    let workload = |name, chunk| Workload::new(Group::Scale, name, chunk);
    vec![
        workload("1 thread", blocks_of_its_own::<1>),
        workload("2 threads", blocks_of_its_own::<2>),
        workload("4 threads", blocks_of_its_own::<4>),
        workload("8 threads", blocks_of_its_own::<8>),
        workload("16 threads", blocks_of_its_own::<16>),
        workload("32 threads", blocks_of_its_own::<32>),
        workload("64 threads", blocks_of_its_own::<64>),
    ]
}

/// Allocates `LIVE` blocks, walks over them until there are enough operations, and frees them. In
/// each walk, every run is replaced `TIMES` times.
fn walk<C: Contender, const LIVE: usize, const TIMES: usize>(contender: &mut C) -> Taken {
    let new = |contender: &mut C| Held::new(contender, black_box(SIZE)).start();
    let mut blocks = vec![ptr::null_mut(); LIVE];
    // We write to the vector before the measurement, so that its own pages are already resident.
    blocks.fill(ptr::dangling_mut());
    let (first, second) = blocks.split_at_mut(LIVE / 2);
    first.fill_with(|| new(contender));
    let before = resident("VmRSS:");
    second.fill_with(|| new(contender));
    let bytes = resident("VmRSS:") as f64 - before as f64;
    // The difference can be slightly negative, because pages at either end may be only partly used.
    let overhead = (bytes / second.len() as f64 - SIZE as f64).max(0.0);
    let walks = OPERATIONS.div_ceil(LIVE * TIMES);
    let taken = Taken::by(walks * LIVE * TIMES, || {
        for _ in 0..walks {
            for run in blocks.chunks_mut(RUN) {
                for _ in 0..TIMES {
                    run.iter().for_each(|start| Held::of(*start, black_box(SIZE)).free(contender));
                    run.fill_with(|| new(contender));
                }
            }
        }
    });
    blocks.into_iter().for_each(|start| Held::of(start, black_box(SIZE)).free(contender));
    Taken { overhead: (LIVE >= VISIBLE).then_some(overhead), ..taken }
}
