//! Pairs and batches of blocks of one size.

use std::hint::black_box;

use super::bytes::{KIB, MIB};
use crate::{contender::Held, contenders::Global, workload::Taken};

/// The number of operations of a chunk. Large blocks may need a system call for each operation.
const fn operations(size: usize) -> usize {
    if size <= 32 * KIB { 100_000 } else { 10_000 }
}

/// Allocates and frees one block after the other.
pub(super) fn pair<const SIZE: usize>(contender: &mut Global) -> Taken {
    let count = operations(SIZE);
    Taken::by(count, || {
        for _ in 0..count {
            Held::new(contender, black_box(SIZE)).free(contender);
        }
    })
}

/// The largest number of bytes in a batch, unless it would then have fewer than [`LEAST_BLOCKS`].
const BATCH_BYTES: usize = 32 * MIB;

const LEAST_BLOCKS: usize = 4;

const MOST_BLOCKS: usize = 1_000;

/// Returns the number of blocks in a batch.
fn blocks_of(size: usize) -> usize {
    (BATCH_BYTES / size).clamp(LEAST_BLOCKS, MOST_BLOCKS)
}

/// Allocates a batch of blocks, and frees them in the same order.
pub(super) fn batch<const SIZE: usize>(contender: &mut Global) -> Taken {
    let count = blocks_of(SIZE);
    let batches = operations(SIZE) / count;
    let mut blocks: Vec<Held> = Vec::with_capacity(count);
    Taken::by(batches * count, || {
        for _ in 0..batches {
            blocks.extend((0..count).map(|_| Held::new(contender, black_box(SIZE))));
            blocks.drain(..).for_each(|held| held.free(contender));
        }
    })
}

/// The bytes of all blocks of a chunk whose pages are written to or read.
const PAGED_BYTES: usize = 128 * MIB;

/// Allocates a block, writes to every page of it, and frees it.
pub(super) fn written<const SIZE: usize>(contender: &mut Global) -> Taken {
    let count = PAGED_BYTES / SIZE;
    Taken::by(count, || {
        for _ in 0..count {
            let held = Held::new(contender, black_box(SIZE));
            held.write_pages();
            held.free(contender);
        }
    })
}

/// Allocates a zeroed block, reads one byte of every page, and frees the block.
pub(super) fn zeroed<const SIZE: usize>(contender: &mut Global) -> Taken {
    let count = PAGED_BYTES / SIZE;
    Taken::by(count, || {
        for _ in 0..count {
            let held = Held::zeroed(contender, black_box(SIZE));
            black_box(held.read_pages());
            held.free(contender);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_32_mib_but_never_fewer_than_4_or_more_than_1000_blocks() {
        assert_eq!(blocks_of(16), 1_000);
        assert_eq!(blocks_of(64 * KIB), 512);
        assert_eq!(blocks_of(MIB), 32);
        assert_eq!(blocks_of(16 * MIB), 4);
    }
}
