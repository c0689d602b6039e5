//! threadtest: threads that share nothing.

use std::hint::black_box;

use super::on_threads;
use crate::{contender::Held, contenders::Global, workload::Taken};

/// Blocks that a thread has at once.
const BLOCKS: usize = 1_000;

/// How often it allocates and frees them.
const TIMES: usize = 1_000;

/// Each thread allocates its blocks of 64 bytes, and frees them in the same order.
pub(crate) fn blocks_of_its_own<const THREADS: usize>(_: &mut Global) -> Taken {
    on_threads(THREADS, TIMES * BLOCKS, |_| {
        let mut blocks = Vec::with_capacity(BLOCKS);
        for _ in 0..TIMES {
            blocks.extend((0..BLOCKS).map(|_| Held::new(&mut Global, black_box(64))));
            blocks.drain(..).for_each(|held| held.free(&mut Global));
        }
    })
}
