//! cache-scratch and cache-thrash: shows whether two threads get blocks in the same cache line.

use std::hint::black_box;

use super::threads::on_threads;
use crate::{contender::Held, contenders::Global, workload::Taken};

/// Blocks of a thread.
const BLOCKS: usize = 200_000;

/// Writes to each block.
const WRITES: usize = 100;

/// Bytes of a block. A cache line has several.
const SIZE: usize = 8;

/// Each thread first frees a block that is next to those of the others.
pub(super) fn scratch<const THREADS: usize>(_: &mut Global) -> Taken {
    let neighbours = (0..THREADS).map(|_| Held::new(&mut Global, black_box(SIZE))).collect();
    on_threads(neighbours, BLOCKS, |_, neighbour| {
        neighbour.free(&mut Global);
        write_to_many();
    })
}

/// Each thread begins without a block.
pub(super) fn thrash<const THREADS: usize>(_: &mut Global) -> Taken {
    on_threads(vec![(); THREADS], BLOCKS, |_, ()| write_to_many())
}

fn write_to_many() {
    for _ in 0..BLOCKS {
        let held = Held::new(&mut Global, black_box(SIZE));
        for count in 0..WRITES {
            // SAFETY: the block has at least one byte, and only this thread uses it.
            unsafe { held.start().write_volatile(count as u8) };
        }
        held.free(&mut Global);
    }
}
