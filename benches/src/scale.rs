//! What becomes of the figures as blocks and threads grow many.
//!
//! ```text
//!   live blocks   ├──────┤▓▓▓▓▓▓├──────────────────────────────────┤
//!                        free a run, allocate it again; TIMES times, and go on to the next
//! ```
//!
//! An operation is a block's life. Blocks are taken in the order of their allocation.
//!
//! - A run that is replaced 8 times stays in the cache for a while: what more blocks cost is what
//!   the allocator's own records cost.
//! - Replaced once through, the blocks come from memory each time, as those of a program that walks
//!   over all it has. That measures the machine's memory as much as the allocator: "the least"
//!   itself takes about twice as long with 10^7 as with 10^5.
//! - What a block takes beyond its size is seen while the second half of the blocks is allocated:
//!   what is resident before the first, or is taken from the system at a time, is no block's.
//! - The threads share nothing, and however many they are, their work comes to the same.

use std::{hint::black_box, ptr};

use crate::{
    contender::{Contender, Held},
    contenders::Global,
    patterns::blocks_of_its_own,
    worker::resident,
    workload::{Group, Taken, Weight, Workload},
};

/// Bytes of every block.
const SIZE: usize = 32;

/// Blocks that are freed before they are allocated again.
const RUN: usize = 100;

/// Fewer than so many blocks are walked over several times.
const OPERATIONS: usize = 1_000_000;

/// The memory of fewer blocks is lost in what an allocator takes from the system at a time.
const VISIBLE: usize = 1_000_000;

/// With 10^3 to 10^8 live blocks, in runs that the cache holds; then once through.
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

/// With 1 to 64 threads that share nothing.
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

/// Allocates all, walks over them as often as it takes, replacing each run so many `TIMES`, and
/// frees them.
fn walk<C: Contender, const LIVE: usize, const TIMES: usize>(contender: &mut C) -> Taken {
    let new = |contender: &mut C| Held::new(contender, black_box(SIZE)).start();
    let mut blocks = vec![ptr::null_mut(); LIVE];
    // Its pages are resident before the blocks' are counted.
    blocks.fill(ptr::dangling_mut());
    let (first, second) = blocks.split_at_mut(LIVE / 2);
    first.fill_with(|| new(contender));
    let before = resident("VmRSS:");
    second.fill_with(|| new(contender));
    let bytes = resident("VmRSS:") as f64 - before as f64;
    // Where there is none, the pages that are begun at either end leave some bytes of difference.
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
    if LIVE < VISIBLE { taken } else { taken.with_overhead(overhead) }
}
