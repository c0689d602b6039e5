//! One block, freed before the next is allocated.

use std::hint::black_box;

use crate::{
    contender::{Contender, Held},
    workload::Taken,
};

/// Pairs of a chunk.
const PAIRS: usize = 1_000_000;

/// Blocks of `SIZE` bytes.
pub(super) fn plain<C: Contender, const SIZE: usize>(contender: &mut C) -> Taken {
    Taken::by(PAIRS, || {
        for _ in 0..PAIRS {
            Held::new(contender, black_box(SIZE)).free(contender);
        }
    })
}

/// The same, zeroed.
pub(super) fn zeroed<C: Contender, const SIZE: usize>(contender: &mut C) -> Taken {
    Taken::by(PAIRS, || {
        for _ in 0..PAIRS {
            Held::zeroed(contender, black_box(SIZE)).free(contender);
        }
    })
}
