//! Blocks with a larger alignment than their type needs.

use std::hint::black_box;

use crate::{contender::Held, contenders::Global, random::Random, workload::Taken};

const BLOCKS: usize = 100;

const BATCHES: usize = 100;

/// The powers of two between which the sizes lie: 16 bytes and 256 KiB.
const SIZES: (usize, usize) = (4, 18);

/// Allocates blocks of mixed sizes at multiples of `ALIGN`, and frees them in the same order.
pub(super) fn batch<const ALIGN: usize>(contender: &mut Global) -> Taken {
    let mut random = Random::new(4);
    let sizes: Vec<_> = (0..BLOCKS).map(|_| random.log_uniform(SIZES.0, SIZES.1)).collect();
    let mut blocks: Vec<Held> = Vec::with_capacity(BLOCKS);
    Taken::by(BATCHES * BLOCKS, || {
        for _ in 0..BATCHES {
            let align = black_box(ALIGN);
            blocks.extend(sizes.iter().map(|size| Held::aligned(contender, *size, align)));
            blocks.drain(..).for_each(|held| held.free_aligned(contender, align));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_starts_at_a_multiple_of_its_alignment() {
        for align in [64, 4 << 10, 64 << 10] {
            let held = Held::aligned(&mut Global, 100, align);
            assert!(held.start().addr().is_multiple_of(align), "{align}");
            held.free_aligned(&mut Global, align);
        }
    }
}
