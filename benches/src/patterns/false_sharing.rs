//! The patterns cache-scratch and cache-thrash, which show whether two threads get blocks in the
//! same cache line.

use std::hint::black_box;

use super::threads::on_threads;
use crate::{contender::Held, contenders::Global, workload::Taken};

/// The number of blocks that each thread allocates.
const BLOCKS: usize = 200_000;

/// The number of writes to each block.
const WRITES: usize = 100;

/// The size of a block in bytes. A cache line has room for several such blocks.
const SIZE: usize = 8;

/// The pattern cache-scratch. Each thread begins by freeing a block that lies next to the blocks of
/// the other threads, so an allocator may give it a block in their cache line.
pub(super) fn scratch<const THREADS: usize>(_: &mut Global) -> Taken {
    let neighbours = (0..THREADS).map(|_| Held::new(&mut Global, black_box(SIZE))).collect();
    on_threads(neighbours, BLOCKS, |_, neighbour| {
        neighbour.free(&mut Global);
        write_to_many();
    })
}

/// The pattern cache-thrash. Each thread begins without a block.
pub(super) fn thrash<const THREADS: usize>(_: &mut Global) -> Taken {
    on_threads(vec![(); THREADS], BLOCKS, |_, ()| write_to_many())
}

fn write_to_many() {
    for _ in 0..BLOCKS {
        let held = Held::new(&mut Global, black_box(SIZE));
        for count in 0..WRITES {
            // SAFETY: the block has at least one byte, and only this thread uses the block.
            unsafe { held.start().write_volatile(count as u8) };
        }
        held.free(&mut Global);
    }
}
