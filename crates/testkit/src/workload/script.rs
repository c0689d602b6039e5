use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng},
};

use super::sizes::Sizes;
use crate::op::Op;

/// The order in which blocks are freed. Ages are approximate after the first free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest block is freed first.
    Forward,
    /// The youngest block is freed first.
    Backward,
    /// The order is random.
    Shuffled,
}

/// A phase of a simulated program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum Phase {
    /// Allocates `blocks` blocks, whose sizes are drawn from `sizes`.
    Fill { sizes: Sizes, blocks: usize },
    /// Frees the live blocks in this `order`, but keeps one in `keep_one_in` (0 keeps none).
    Drain { order: Order, keep_one_in: usize },
    /// Plays `ops` random operations, which allocate about as many blocks as they free.
    Churn { sizes: Sizes, ops: usize },
    /// Resizes a random live block `ops` times.
    Resize { sizes: Sizes, ops: usize },
}

/// The phases of a simulated program, and the seed of their random choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The seed of the random choices.
    pub seed: u64,
    /// The phases, in order.
    pub phases: Vec<Phase>,
}

impl Script {
    /// Returns the operations of all phases.
    pub fn ops(&self) -> Vec<Op> {
        let mut generator = Generator::new(self.seed);
        self.phases.iter().flat_map(|phase| generator.ops(phase)).collect()
    }
}

/// A generator of operations, which knows the slots that hold a live block.
#[derive(Debug)]
pub struct Generator {
    rng: TestRng,
    /// The slots that hold a block. Until the first free, the oldest block comes first.
    live: Vec<usize>,
    vacant: Vec<usize>,
    slots: usize,
    ops: Vec<Op>,
}

impl Generator {
    /// Creates a generator whose random choices depend only on `seed`.
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

    /// Returns the operations of `phase`, to be played after those of all earlier phases.
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
            4..=6 => self.free(),
            // The slot was never used, so this operation frees null.
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
