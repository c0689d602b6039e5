//! The pattern mstress: structures that grow, shrink and are exchanged between threads.

use super::{
    exchange::Exchange,
    lifetimes::mostly_small,
    threads::{on_threads, room},
};
use crate::{contender::Held, contenders::Global, random::Random, workload::Taken};

const HELD: usize = 50;

const MOST: usize = 40;

const STRUCTURES: usize = 25_000;

const PLACES: usize = 100;

/// Replaces structures, and exchanges every fourth one with another thread.
pub(super) fn exchanged<const THREADS: usize>(_: &mut Global) -> Taken {
    let exchange = Exchange::new(PLACES, MOST);
    // On average, a structure has half of `MOST` blocks.
    let needs = (0..THREADS).map(|_| [(); HELD].map(|()| room(MOST))).collect();
    on_threads(needs, STRUCTURES * MOST / 2, |number, held| {
        let mut random = Random::new(number as u64);
        for _ in 0..STRUCTURES {
            let structure = &mut held[random.below(HELD)];
            if random.below(4) == 0 {
                exchange.swap(random.below(PLACES), structure);
            }
            structure.drain(..).for_each(|held| held.free(&mut Global));
            let blocks = random.size(1, MOST - 1);
            structure
                .extend((0..blocks).map(|_| Held::new(&mut Global, mostly_small(&mut random))));
        }
        held.iter_mut()
            .flat_map(|structure| structure.drain(..))
            .for_each(|held| held.free(&mut Global));
    })
}
