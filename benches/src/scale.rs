//! What becomes of the figures as blocks and threads grow many.
//!
//! ```text
//!   live blocks   ├──────┤▓▓▓▓▓▓├──────────────────────────────────┤
//!                        free a run, allocate it again; a few times, and go on to the next
//! ```
//!
//! An operation is a block's life. Blocks are taken in the order of their allocation, and each run
//! stays in the cache for a while: what more blocks cost beyond that is what the allocator's own
//! records cost. (Done once for each run, 10^7 blocks measure the memory: "the least" then takes
//! twice as long as with 10^5.)

use std::hint::black_box;

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

/// How often a run is freed and allocated before the next.
const TIMES: usize = 8;

/// Fewer than so many blocks are walked over several times.
const OPERATIONS: usize = 1_000_000;

/// The memory of fewer blocks is lost in what an allocator has resident before the first.
const VISIBLE: usize = 100_000;

/// With 10^3 to 10^8 live blocks.
pub fn of_blocks<C: Contender>() -> Vec<Workload<C>> {
    let workload = |name, chunk| Workload::new(Group::Scale, name, chunk);
    vec![
        workload("10^3 live blocks", walk::<C, 1_000>),
        workload("10^4 live blocks", walk::<C, 10_000>),
        workload("10^5 live blocks", walk::<C, 100_000>),
        workload("10^6 live blocks", walk::<C, 1_000_000>),
        workload("10^7 live blocks", walk::<C, 10_000_000>).of_weight(Weight::Heavy),
        workload("10^8 live blocks", walk::<C, 100_000_000>).of_weight(Weight::Huge),
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

/// Allocates all, walks over them as often as it takes, and frees them.
fn walk<C: Contender, const LIVE: usize>(contender: &mut C) -> Taken {
    let new = |contender: &mut C| Held::new(contender, black_box(SIZE)).start();
    let mut blocks = vec![std::ptr::null_mut(); LIVE];
    // Its pages are resident before the blocks' are counted.
    blocks.fill(std::ptr::dangling_mut());
    let before = resident("VmRSS:");
    blocks.fill_with(|| new(contender));
    let bytes = resident("VmRSS:").saturating_sub(before) as f64;
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
    if LIVE < VISIBLE {
        return taken;
    }
    taken.with_overhead(bytes / LIVE as f64 - SIZE as f64)
}
