//! The patterns cache-scratch and cache-thrash, in which threads may get blocks of one cache line.

use std::hint::black_box;

use super::threads::on_threads;
use crate::{contender::Held, contenders::Global, workload::Taken};

const BLOCKS: usize = 200_000;

const WRITES: usize = 100;

/// The size of a block in bytes. Several blocks fit into a cache line.
const SIZE: usize = 8;

/// Each thread first frees a block that is adjacent to the other threads' blocks, and may get it
/// back.
pub(super) fn scratch<const THREADS: usize>(_: &mut Global) -> Taken {
    let neighbours = (0..THREADS).map(|_| Held::new(&mut Global, black_box(SIZE))).collect();
    on_threads(neighbours, BLOCKS, |_, neighbour| {
        neighbour.free(&mut Global);
        write_to_many();
    })
}

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
