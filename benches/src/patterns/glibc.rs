//! The patterns glibc simple (runs of one size) and glibc thread (a working set).

use std::hint::black_box;

use super::{
    lifetimes::mostly_small,
    threads::{on_threads, room},
};
use crate::{contender::Held, contenders::Global, random::Random, workload::Taken};

const RUNS: [usize; 4] = [25, 100, 400, 1_600];

const EACH: usize = 80_000;

const SIZES: [usize; 4] = [8, 64, 128, 512];

const WORKING_SET: usize = 1_024;

const REPLACED: usize = 500_000;

/// Frees runs of blocks of one size in the order of allocation.
pub(super) fn simple<const THREADS: usize>(_: &mut Global) -> Taken {
    let needs = (0..THREADS).map(|_| room(RUNS[RUNS.len() - 1])).collect();
    on_threads(needs, SIZES.len() * RUNS.len() * EACH, |_, blocks| {
        for size in SIZES {
            for run in RUNS {
                for _ in 0..EACH / run {
                    blocks.extend((0..run).map(|_| Held::new(&mut Global, black_box(size))));
                    blocks.drain(..).for_each(|held| held.free(&mut Global));
                }
            }
        }
    })
}

/// Replaces random blocks by blocks of mixed sizes.
pub(super) fn thread<const THREADS: usize>(_: &mut Global) -> Taken {
    let needs = (0..THREADS).map(|_| room(WORKING_SET)).collect();
    on_threads(needs, REPLACED, |number, live| {
        let mut random = Random::new(number as u64);
        let new = |random: &mut Random| Held::new(&mut Global, mostly_small(random));
        live.extend((0..WORKING_SET).map(|_| new(&mut random)));
        for _ in 0..REPLACED {
            let place = random.below(WORKING_SET);
            live[place].free(&mut Global);
            live[place] = new(&mut random);
        }
        live.drain(..).for_each(|held| held.free(&mut Global));
    })
}
