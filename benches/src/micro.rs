//! Workloads that repeat a few instructions on one thread.
//!
//! An operation is the life of a block, or one step of its growth.

use std::hint::black_box;

use crate::{
    contender::{Contender, Held},
    random::Random,
    workload::{Group, Taken, Workload},
};

/// Returns all workloads of this group.
pub fn workloads<C: Contender>() -> Vec<Workload<C>> {
    let workload = |name, chunk| Workload::new(Group::Micro, name, chunk);
    vec![
        workload("pair 16", pair::<C, 16>),
        workload("pair 64", pair::<C, 64>),
        workload("pair 256", pair::<C, 256>),
        workload("pair 512", pair::<C, 512>),
        workload("zeroed 64", zeroed::<C, 64>),
        workload("zeroed 512", zeroed::<C, 512>),
        workload("batch same", batch_same),
        workload("batch reverse", batch_reverse),
        workload("batch random", batch_random),
        workload("mixed", mixed),
        workload("grow by 16", grow_by_16),
        workload("grow twofold", grow_twofold),
    ]
}

const PAIRS: usize = 1_000_000;

fn pair<C: Contender, const SIZE: usize>(contender: &mut C) -> Taken {
    Taken::by(PAIRS, || {
        for _ in 0..PAIRS {
            Held::new(contender, black_box(SIZE)).free(contender);
        }
    })
}

fn zeroed<C: Contender, const SIZE: usize>(contender: &mut C) -> Taken {
    Taken::by(PAIRS, || {
        for _ in 0..PAIRS {
            Held::zeroed(contender, black_box(SIZE)).free(contender);
        }
    })
}

const BATCH: usize = 10_000;

const BATCHES: usize = 20;

fn batch_same<C: Contender>(contender: &mut C) -> Taken {
    batches(contender, |contender, blocks| blocks.iter().for_each(|held| held.free(contender)))
}

fn batch_reverse<C: Contender>(contender: &mut C) -> Taken {
    batches(contender, |contender, blocks| {
        blocks.iter().rev().for_each(|held| held.free(contender));
    })
}

/// Frees the blocks of a batch in a random order, which is the same in every batch.
fn batch_random<C: Contender>(contender: &mut C) -> Taken {
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

const LIVE: usize = 1_000;

const REPLACED: usize = 200_000;

/// Replaces random blocks by blocks of 1 to 512 bytes. The sizes are drawn before the time begins.
fn mixed<C: Contender>(contender: &mut C) -> Taken {
    let mut random = Random::new(3);
    let draws: Vec<_> =
        (0..REPLACED).map(|_| (random.below(LIVE) as u16, random.size(1, 512) as u16)).collect();
    let mut live: Vec<_> = (0..LIVE).map(|_| Held::new(contender, random.size(1, 512))).collect();
    let taken = Taken::by(REPLACED, || {
        for (place, size) in &draws {
            let place = &mut live[usize::from(*place)];
            place.free(contender);
            *place = Held::new(contender, usize::from(*size));
        }
    });
    live.into_iter().for_each(|held| held.free(contender));
    taken
}

fn grow_by_16<C: Contender>(contender: &mut C) -> Taken {
    grow(contender, 32, |size| size + 16)
}

fn grow_twofold<C: Contender>(contender: &mut C) -> Taken {
    grow(contender, 6, |size| size * 2)
}

const GROWN: usize = 10_000;

#[inline(always)]
fn grow<C: Contender>(contender: &mut C, steps: usize, next: impl Fn(usize) -> usize) -> Taken {
    Taken::by(GROWN * steps, || {
        for _ in 0..GROWN {
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
