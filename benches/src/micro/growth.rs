//! A block that grows to 512 bytes, as a buffer does.

use std::hint::black_box;

use crate::{
    contender::{Contender, Held},
    workload::Taken,
};

/// Blocks of a chunk.
const BLOCKS: usize = 10_000;

/// From 16 bytes, by 16 more at a time.
pub(super) fn by_16<C: Contender>(contender: &mut C) -> Taken {
    grow(contender, 32, |size| size + 16)
}

/// From 16 bytes, to twice as many at a time.
pub(super) fn twofold<C: Contender>(contender: &mut C) -> Taken {
    grow(contender, 6, |size| size * 2)
}

/// `steps` are those of a block: its allocation, and each time it grows.
#[inline(always)]
fn grow<C: Contender>(contender: &mut C, steps: usize, next: impl Fn(usize) -> usize) -> Taken {
    Taken::by(BLOCKS * steps, || {
        for _ in 0..BLOCKS {
            let mut size = black_box(16);
            let mut held = Held::new(contender, size);
            for _ in 1..steps {
                size = next(size);
                held = held.resize(contender, size);
            }
            held.free(contender);
        }
    })
}
