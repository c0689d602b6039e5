//! Workloads with a growing number of live blocks or threads.
//!
//! A workload divides its live blocks into runs of 100. It frees each run and allocates it again.
//!
//! - If each run is replaced 8 times, it stays in the cache. Slower operations then show the cost
//!   of the allocator's own data.
//! - If each run is replaced once, it comes from main memory, which dominates the time.

use std::{hint::black_box, ptr};

use crate::{
    contender::{Contender, Held},
    contenders::Global,
    patterns::blocks_of_its_own,
    resident::resident,
    workload::{Group, Taken, Weight, Workload},
};

const SIZE: usize = 32;

const RUN: usize = 100;

/// The minimum number of operations. It is reached by walking over the blocks several times.
const OPERATIONS: usize = 1_000_000;

/// The minimum number of blocks for which the overhead of a block can be measured.
const VISIBLE: usize = 1_000_000;

/// Returns workloads with 10^3 to 10^8 live blocks.
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

/// Replaces every run of `LIVE` blocks `TIMES` times in each walk.
fn walk<C: Contender, const LIVE: usize, const TIMES: usize>(contender: &mut C) -> Taken {
    let new = |contender: &mut C| Held::new(contender, black_box(SIZE)).start();
    let mut blocks = vec![ptr::null_mut(); LIVE];
    // Makes the vector's own pages resident before the measurement.
    blocks.fill(ptr::dangling_mut());
    let (first, second) = blocks.split_at_mut(LIVE / 2);
    first.fill_with(|| new(contender));
    let before = resident("VmRSS:");
    second.fill_with(|| new(contender));
    let bytes = resident("VmRSS:") as f64 - before as f64;
    // Partly used pages can make the difference slightly negative.
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
