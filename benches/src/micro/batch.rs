//! Many blocks of mixed sizes, allocated one after the other and then freed.
//!
//! The sizes are 1 to 512 bytes, each as likely as the other, and the same in every batch.

use super::BATCH;
use crate::{
    contender::{Contender, Held},
    random::Random,
    workload::Taken,
};

/// Batches of a chunk.
const BATCHES: usize = 20;

/// Freed in the order in which they were allocated.
pub(super) fn same<C: Contender>(contender: &mut C) -> Taken {
    batches(contender, |contender, blocks| blocks.iter().for_each(|held| held.free(contender)))
}

/// Freed in the opposite order.
pub(super) fn reverse<C: Contender>(contender: &mut C) -> Taken {
    batches(contender, |contender, blocks| {
        blocks.iter().rev().for_each(|held| held.free(contender));
    })
}

/// Freed in a random order, the same in every batch.
pub(super) fn random<C: Contender>(contender: &mut C) -> Taken {
    let order = Random::new(2).order(BATCH);
    batches(contender, |contender, blocks| {
        order.iter().for_each(|place| blocks[*place as usize].free(contender));
    })
}

#[inline(always)]
fn batches<C: Contender>(contender: &mut C, free: impl Fn(&mut C, &[Held])) -> Taken {
    let mut random = Random::new(1);
    let sizes: Vec<_> = (0..BATCH).map(|_| random.size(1, 512) as u16).collect();
    let mut blocks: Vec<Held> = Vec::with_capacity(BATCH);
    Taken::by(BATCHES * BATCH, || {
        for _ in 0..BATCHES {
            blocks.clear();
            blocks.extend(sizes.iter().map(|size| Held::new(contender, usize::from(*size))));
            free(contender, &blocks);
        }
    })
}
