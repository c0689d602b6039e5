//! The stretches of a program's life, and the operations that they stand for.

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng},
};

use super::Sizes;
use crate::op::Op;

/// In which order blocks are freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest first.
    Forward,
    /// The youngest first.
    Backward,
    /// Any.
    Shuffled,
}

/// A stretch of a program's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Allocates blocks and frees none.
    Fill {
        /// The sizes asked for.
        sizes: Sizes,
        /// How many blocks.
        blocks: usize,
    },
    /// Frees what is live.
    Drain {
        /// In this order.
        order: Order,
        /// One block in so many stays; none if it is 0.
        keep_one_in: usize,
    },
    /// Allocates, reallocates and frees at random, at about the same level.
    Churn {
        /// The sizes asked for.
        sizes: Sizes,
        /// How many operations.
        ops: usize,
    },
    /// Reallocates blocks at random.
    Resize {
        /// The sizes asked for.
        sizes: Sizes,
        /// How many operations.
        ops: usize,
    },
}

/// Phases, and the seed of what is left to chance in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The seed.
    pub seed: u64,
    /// The phases, one after the other.
    pub phases: Vec<Phase>,
}

impl Script {
    /// The operations that the script stands for.
    pub fn ops(&self) -> Vec<Op> {
        let mut player = Player::new(self.seed);
        self.phases.iter().flat_map(|phase| player.play(phase)).collect()
    }
}

/// A generator of operations that knows which of its slots are live.
#[derive(Debug)]
pub struct Player {
    rng: TestRng,
    /// Slots with a block, in the order of their age unless shuffled.
    live: Vec<usize>,
    /// Slots without one.
    vacant: Vec<usize>,
    slots: usize,
    ops: Vec<Op>,
}

impl Player {
    /// A player of the sequences that `seed` stands for, with no block live.
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0x5a; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            rng: TestRng::from_seed(RngAlgorithm::XorShift, &bytes),
            live: Vec::new(),
            vacant: Vec::new(),
            slots: 0,
            ops: Vec::new(),
        }
    }

    /// The operations of `phase`, after all those that were had before.
    pub fn play(&mut self, phase: &Phase) -> Vec<Op> {
        match phase {
            Phase::Fill { sizes, blocks } => (0..*blocks).for_each(|_| self.allocate(sizes)),
            Phase::Drain { order, keep_one_in } => self.drain(*order, *keep_one_in),
            Phase::Churn { sizes, ops } => (0..*ops).for_each(|_| self.churn(sizes)),
            Phase::Resize { sizes, ops } => (0..*ops).for_each(|_| self.resize(sizes)),
        }
        std::mem::take(&mut self.ops)
    }

    fn allocate(&mut self, sizes: &Sizes) {
        let size = sizes.draw(&mut self.rng);
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        self.live.push(slot);
        self.ops.push(if self.rng.random_range(0..8) == 0 {
            Op::Calloc { slot, count: 1, size }
        } else {
            Op::Malloc { slot, size }
        });
    }

    fn drain(&mut self, order: Order, keep_one_in: usize) {
        let mut going = std::mem::take(&mut self.live);
        match order {
            Order::Forward => {}
            Order::Backward => going.reverse(),
            Order::Shuffled => shuffle(&mut going, &mut self.rng),
        }
        for (at, slot) in going.into_iter().enumerate() {
            if keep_one_in > 0 && at % keep_one_in == 0 {
                self.live.push(slot);
            } else {
                self.vacant.push(slot);
                self.ops.push(Op::Free { slot });
            }
        }
    }

    fn churn(&mut self, sizes: &Sizes) {
        match self.rng.random_range(0..8) {
            0..=2 => self.allocate(sizes),
            3 => self.resize(sizes),
            // As many frees as allocations, and now and then a null.
            4..=6 => self.free(),
            _ => self.ops.push(Op::Free { slot: self.slots }),
        }
    }

    fn resize(&mut self, sizes: &Sizes) {
        let size = sizes.draw(&mut self.rng);
        match self.any_live() {
            Some(at) => self.ops.push(Op::Realloc { slot: self.live[at], size }),
            None => self.allocate(sizes),
        }
    }

    fn free(&mut self) {
        if let Some(at) = self.any_live() {
            let slot = self.live.swap_remove(at);
            self.vacant.push(slot);
            self.ops.push(Op::Free { slot });
        }
    }

    fn any_live(&mut self) -> Option<usize> {
        (!self.live.is_empty()).then(|| self.rng.random_range(0..self.live.len()))
    }
}

fn shuffle(slots: &mut [usize], rng: &mut TestRng) {
    for end in (1..slots.len()).rev() {
        slots.swap(end, rng.random_range(0..=end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Rules;

    #[test]
    fn the_same_seed_plays_the_same_operations() {
        let phases = [
            Phase::Fill { sizes: Sizes::many(&Rules::POOLS_16K), blocks: 50 },
            Phase::Churn { sizes: Sizes::of([16, 32]), ops: 50 },
            Phase::Drain { order: Order::Shuffled, keep_one_in: 3 },
        ];
        let play = |seed| Script { seed, phases: phases.to_vec() }.ops();
        assert_eq!(play(1), play(1));
        assert_ne!(play(1), play(2));
    }

    #[test]
    fn a_drain_frees_all_but_what_it_is_told_to_keep() {
        let mut player = Player::new(0);
        player.play(&Phase::Fill { sizes: Sizes::of([8]), blocks: 100 });
        let frees = player.play(&Phase::Drain { order: Order::Backward, keep_one_in: 10 });
        assert_eq!(frees.len(), 90);
        let rest = player.play(&Phase::Drain { order: Order::Forward, keep_one_in: 0 });
        assert_eq!(rest.len(), 10);
    }
}
