//! Phases of a program, and the operations that they consist of.

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng},
};

use super::sizes::Sizes;
use crate::op::Op;

/// The order in which blocks are freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Forward,
    /// Youngest first.
    Backward,
    /// Random.
    Shuffled,
}

/// A phase of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum Phase {
    /// Allocates `blocks` blocks of `sizes`.
    Fill { sizes: Sizes, blocks: usize },
    /// Frees the live blocks in this `order`. Of every `keep_one_in` blocks one stays live, unless
    /// that is 0.
    Drain { order: Order, keep_one_in: usize },
    /// Allocates, reallocates and frees at random in `ops` operations. About as many blocks stay
    /// live as before.
    Churn { sizes: Sizes, ops: usize },
    /// Reallocates random live blocks in `ops` operations.
    Resize { sizes: Sizes, ops: usize },
}

/// Phases, and the seed of their random choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The seed.
    pub seed: u64,
    /// The phases in order.
    pub phases: Vec<Phase>,
}

impl Script {
    /// Returns the operations of all phases.
    pub fn ops(&self) -> Vec<Op> {
        let mut generator = Generator::new(self.seed);
        self.phases.iter().flat_map(|phase| generator.ops(phase)).collect()
    }
}

/// A generator of operations. It tracks which slots are live.
#[derive(Debug)]
pub struct Generator {
    rng: TestRng,
    /// The slots with a block. They are sorted by age until blocks are freed.
    live: Vec<usize>,
    /// The slots without a block.
    vacant: Vec<usize>,
    /// The number of slots in both lists.
    slots: usize,
    ops: Vec<Op>,
}

impl Generator {
    /// Creates a generator without a live block. Its random choices depend on `seed`.
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

    /// Returns the operations of `phase`, which must be played after all earlier ones.
    pub fn ops(&mut self, phase: &Phase) -> Vec<Op> {
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
            // There are as many frees as allocations.
            4..=6 => self.free(),
            // This slot was never used, so null is freed.
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
    fn the_same_seed_gives_the_same_operations() {
        let phases = [
            Phase::Fill { sizes: Sizes::many(&Rules::POOLS_16K), blocks: 50 },
            Phase::Churn { sizes: Sizes::of([16, 32]), ops: 50 },
            Phase::Drain { order: Order::Shuffled, keep_one_in: 3 },
        ];
        let ops = |seed| Script { seed, phases: phases.to_vec() }.ops();
        assert_eq!(ops(1), ops(1));
        assert_ne!(ops(1), ops(2));
    }

    #[test]
    fn a_drain_frees_nine_of_ten_blocks_if_one_in_ten_stays() {
        let mut generator = Generator::new(0);
        generator.ops(&Phase::Fill { sizes: Sizes::of([8]), blocks: 100 });
        let frees = generator.ops(&Phase::Drain { order: Order::Backward, keep_one_in: 10 });
        assert_eq!(frees.len(), 90);
        let frees = generator.ops(&Phase::Drain { order: Order::Forward, keep_one_in: 0 });
        assert_eq!(frees.len(), 10);
    }
}
