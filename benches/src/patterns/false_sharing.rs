//! cache-scratch and cache-thrash: does an allocator give two threads the same cache line?

use std::hint::black_box;

use super::on_threads;
use crate::{contender::Held, contenders::Global, workload::Taken};

/// Blocks of a thread.
const BLOCKS: usize = 200_000;

/// Writes to each.
const WRITES: usize = 100;

/// Bytes of a block: several fit a cache line.
const SIZE: usize = 8;

/// Each thread begins by freeing a block that lies beside those of the others.
pub(super) fn scratch<const THREADS: usize>(_: &mut Global) -> Taken {
    let neighbours = (0..THREADS).map(|_| Held::new(&mut Global, black_box(SIZE))).collect();
    on_threads(neighbours, BLOCKS, |_, neighbour| {
        neighbour.free(&mut Global);
        write_to_many();
    })
}

/// Each thread begins with nothing.
pub(super) fn thrash<const THREADS: usize>(_: &mut Global) -> Taken {
    on_threads(vec![(); THREADS], BLOCKS, |_, ()| write_to_many())
}

fn write_to_many() {
    for _ in 0..BLOCKS {
        let held = Held::new(&mut Global, black_box(SIZE));
        for count in 0..WRITES {
            // SAFETY: the block has that byte, and is this thread's.
            unsafe { held.start().write_volatile(count as u8) };
        }
        held.free(&mut Global);
    }
}
