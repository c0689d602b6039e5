//! The patterns sh6 and sh8: short-lived and long-lived blocks.

use super::{
    exchange::{Exchange, Structure},
    threads::{on_threads, room},
};
use crate::{contender::Held, contenders::Global, random::Random, workload::Taken};

const ROUND: usize = 1_000;

const ROUNDS: usize = 500;

/// The number of rounds for which a long-lived block lives.
const AGES: usize = 8;

/// Each thread frees its own long-lived blocks.
pub(super) fn sh6<const THREADS: usize>(_: &mut Global) -> Taken {
    let needs = (0..THREADS).map(|_| Lives::new()).collect();
    on_threads(needs, ROUNDS * ROUND, |number, lives| live(number, lives, |_, _| ()))
}

/// Threads exchange long-lived blocks, so any thread may free them.
pub(super) fn sh8<const THREADS: usize>(_: &mut Global) -> Taken {
    let exchange = Exchange::new(AGES, ROUND);
    let needs = (0..THREADS).map(|_| Lives::new()).collect();
    on_threads(needs, ROUNDS * ROUND, |number, lives| {
        live(number, lives, |round, old| exchange.swap(round + number, old));
    })
}

struct Lives {
    long: [Structure; AGES],
    short: Structure,
}

impl Lives {
    fn new() -> Self {
        Self { long: [(); AGES].map(|()| room(ROUND)), short: room(ROUND) }
    }
}

/// Frees most blocks at the end of their round, and every fourth one [`AGES`] rounds later.
///
/// `hand_over` may first exchange the older blocks with another thread.
fn live(number: usize, lives: &mut Lives, hand_over: impl Fn(usize, &mut Structure)) {
    let mut random = Random::new(number as u64);
    let Lives { long, short } = lives;
    for round in 0..ROUNDS {
        let old = &mut long[round % AGES];
        hand_over(round, old);
        old.drain(..).for_each(|held| held.free(&mut Global));
        for count in 0..ROUND {
            let held = Held::new(&mut Global, mostly_small(&mut random));
            if count % 4 == 0 { old.push(held) } else { short.push(held) }
        }
        let middle = short.len() / 2;
        short.drain(middle..).rev().for_each(|held| held.free(&mut Global));
        short.drain(..).for_each(|held| held.free(&mut Global));
    }
    long.iter_mut().flat_map(|old| old.drain(..)).for_each(|held| held.free(&mut Global));
}

/// Returns a size of 1 to 512 bytes. Half of the sizes are at most 128.
pub(super) fn mostly_small(random: &mut Random) -> usize {
    let part = random.below(1 << 16);
    1 + ((part * part) >> 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_sizes_are_in_the_first_quarter() {
        let mut random = Random::new(1);
        let sizes: Vec<_> = (0..100_000).map(|_| mostly_small(&mut random)).collect();
        assert!(sizes.iter().all(|size| (1..=512).contains(size)));
        let small = sizes.iter().filter(|size| **size <= 128).count();
        assert!((49_000..51_000).contains(&small), "{small}");
    }
}
