//! Sequences of operations: wholly random ones, and phases that fill and drain arenas.
//!
//! A random sequence finds what nobody thought of, but it stays near one level of use: pools and
//! arenas seldom empty. Phases go there on purpose:
//!
//! ```text
//!   live │      ╱‾‾╲fill     ╱‾‾‾‾╲
//!        │ fill╱    drain╲__╱      ╲drain, all but one in k
//!        │    ╱                     ‾‾‾‾‾‾‾‾churn
//! ```
//!
//! Everything is derived from seeds, so a sequence is the same in every run, on every machine.

use std::ops::RangeInclusive;

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng},
};

use crate::{op::Op, reference::Rules};

/// Which sizes are asked for: each range is as likely as the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(Vec<RangeInclusive<usize>>);

impl Sizes {
    /// These sizes alone.
    pub fn of(sizes: impl IntoIterator<Item = usize>) -> Self {
        Self(sizes.into_iter().map(|size| size..=size).collect())
    }

    /// Sizes of a few classes of `rules`, so that pools of the same class come and go.
    pub fn few(rules: &Rules) -> impl Strategy<Value = Self> + use<> {
        prop::collection::vec(1..=rules.threshold, 1..=3).prop_map(Self::of)
    }

    /// All sizes: mostly small ones, the edges of `rules`, 0 bytes, and some for the layer below.
    pub fn many(rules: &Rules) -> Self {
        let (step, most) = (rules.alignment, rules.threshold);
        Self(vec![
            1..=most,
            1..=most,
            1..=4 * step,
            0..=step + 1,
            most - 1..=most + 1,
            most..=4 * most,
        ])
    }

    /// Few classes or many.
    pub fn any(rules: &Rules) -> impl Strategy<Value = Self> + use<> {
        prop_oneof![Self::few(rules), Just(Self::many(rules))]
    }

    fn draw(&self, rng: &mut TestRng) -> usize {
        let range = &self.0[rng.random_range(0..self.0.len())];
        rng.random_range(range.clone())
    }
}

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

/// Any operations at all, on few slots.
pub fn random(rules: &Rules) -> impl Strategy<Value = Vec<Op>> + use<> {
    let rules = *rules;
    Sizes::any(&rules).prop_flat_map(|sizes| prop::collection::vec(op(sizes), 1..400))
}

fn op(sizes: Sizes) -> impl Strategy<Value = Op> {
    let size = prop::sample::select(sizes.0).prop_flat_map(|range| range);
    (0..64_usize, size, 0..8_u8).prop_map(|(slot, size, kind)| match kind {
        0..=2 => Op::Malloc { slot, size },
        3 => Op::Calloc { slot, count: 1 + slot % 3, size: size / (1 + slot % 3) },
        4 => Op::Realloc { slot, size },
        _ => Op::Free { slot },
    })
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

/// Phases that fill up to `arenas` arenas of `rules` and drain them again, in all ways.
pub fn phases(rules: &Rules, arenas: usize) -> impl Strategy<Value = Script> + use<> {
    let rest = prop::collection::vec(phase(rules, arenas), 1..6);
    (any::<u64>(), fill(rules, arenas), rest).prop_map(|(seed, fill, mut phases)| {
        phases.insert(0, fill);
        Script { seed, phases }
    })
}

/// A fill that takes up to `arenas` arenas, whatever the sizes.
fn fill(rules: &Rules, arenas: usize) -> impl Strategy<Value = Phase> + use<> {
    let (room, step) = (arenas * rules.arena_size, rules.alignment);
    (Sizes::any(rules), 1..=16_usize).prop_map(move |(sizes, sixteenths)| {
        let blocks = (room / 16 * sixteenths / sizes.mean().max(step)).max(1);
        Phase::Fill { sizes, blocks }
    })
}

/// Any phase.
fn phase(rules: &Rules, arenas: usize) -> impl Strategy<Value = Phase> + use<> {
    let order = prop::sample::select(vec![Order::Forward, Order::Backward, Order::Shuffled]);
    let drain = (order, prop::sample::select(vec![0, 0, 2, 10, 100, 1000]))
        .prop_map(|(order, keep_one_in)| Phase::Drain { order, keep_one_in });
    let churn =
        (Sizes::any(rules), 1..1000_usize).prop_map(|(sizes, ops)| Phase::Churn { sizes, ops });
    let resize =
        (Sizes::any(rules), 1..500_usize).prop_map(|(sizes, ops)| Phase::Resize { sizes, ops });
    prop_oneof![3 => fill(rules, arenas), 3 => drain, 1 => churn, 1 => resize]
}

impl Sizes {
    /// The mean of what is drawn, in bytes.
    fn mean(&self) -> usize {
        let sum: usize = self.0.iter().map(|range| range.start().midpoint(*range.end())).sum();
        sum / self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
