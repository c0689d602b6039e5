//! An mstress-like pattern: structures come, go and wander.

use super::{exchange::Exchange, lifetimes::mostly_small, on_threads, room};
use crate::{contender::Held, contenders::Global, random::Random, workload::Taken};

/// Structures that a thread holds.
const HELD: usize = 50;

/// The most blocks of a structure.
const MOST: usize = 40;

/// Structures of a thread.
const STRUCTURES: usize = 25_000;

/// Places of the exchange.
const PLACES: usize = 100;

/// Each thread builds structures of mixed sizes in place of others that it drops; one in four it
/// exchanges for what another thread has left.
pub(super) fn exchanged<const THREADS: usize>(_: &mut Global) -> Taken {
    let exchange = Exchange::new(PLACES, MOST);
    // A structure has half of MOST blocks on average.
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
