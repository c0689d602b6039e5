//! Figures for a growing number of blocks and threads.
//!
//! ```text
//!   live blocks   ├──────┤▓▓▓▓▓▓├──────────────────────────────────┤
//!                        free a run and allocate it again, TIMES times, then go to the next run
//! ```
//!
//! An operation is the life of a block. Runs are taken in the order of allocation.
//!
//! - A run that is replaced 8 times stays in the cache for a while. The additional cost of more
//!   blocks is therefore that of the allocator's own metadata.
//! - If each run is replaced once, blocks come from memory each time, as in a program that walks
//!   over all of its memory. This measures the machine's memory as much as the allocator. "The
//!   least" itself takes about twice as long with 10^7 blocks as with 10^5.
//! - The memory of a block beyond its size is measured while the second half of the blocks is
//!   allocated. What is resident before, or is requested from the system at a time, then counts
//!   for little.
//! - The threads share nothing, and their total work does not depend on their number.

use std::{hint::black_box, ptr};

use crate::{
    contender::{Contender, Held},
    contenders::Global,
    patterns::blocks_of_its_own,
    resident::resident,
    workload::{Group, Taken, Weight, Workload},
};

/// Bytes of every block.
const SIZE: usize = 32;

/// Blocks of a run.
const RUN: usize = 100;

/// The least number of operations. Fewer blocks are walked over several times.
const OPERATIONS: usize = 1_000_000;

/// The least number of blocks whose memory is measured. An allocator requests too much from the
/// system at a time to show the memory of fewer blocks.
const VISIBLE: usize = 1_000_000;

/// Workloads of 10^3 to 10^8 live blocks, in runs that are replaced 8 times, then once.
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

/// Workloads of 1 to 64 threads that share nothing.
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

/// Allocates `LIVE` blocks, walks over them until there are enough operations, and frees them. A
/// walk replaces each run `TIMES` times.
fn walk<C: Contender, const LIVE: usize, const TIMES: usize>(contender: &mut C) -> Taken {
    let new = |contender: &mut C| Held::new(contender, black_box(SIZE)).start();
    let mut blocks = vec![ptr::null_mut(); LIVE];
    // The vector's own pages are resident before those of the blocks are counted.
    blocks.fill(ptr::dangling_mut());
    let (first, second) = blocks.split_at_mut(LIVE / 2);
    first.fill_with(|| new(contender));
    let before = resident("VmRSS:");
    second.fill_with(|| new(contender));
    let bytes = resident("VmRSS:") as f64 - before as f64;
    // Partly used pages at either end can make the difference negative.
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
