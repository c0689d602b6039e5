//! The pattern threadtest: threads that share nothing.

use std::hint::black_box;

use super::threads::{on_threads, room};
use crate::{contender::Held, contenders::Global, workload::Taken};

const BLOCKS: usize = 1_000;

const TIMES: usize = 3_200;

/// Each thread allocates blocks of 64 bytes and frees them in the same order.
pub(crate) fn blocks_of_its_own<const THREADS: usize>(_: &mut Global) -> Taken {
    const { assert!(TIMES.is_multiple_of(THREADS)) };
    let times = TIMES / THREADS;
    let needs = (0..THREADS).map(|_| room(BLOCKS)).collect();
    on_threads(needs, times * BLOCKS, |_, blocks| {
        for _ in 0..times {
            blocks.extend((0..BLOCKS).map(|_| Held::new(&mut Global, black_box(64))));
            blocks.drain(..).for_each(|held| held.free(&mut Global));
        }
    })
}
