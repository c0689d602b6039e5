//! Generates operations: random sequences, and phases that fill and drain arenas.
//!
//! Random sequences seldom empty a pool or an arena, so phases do so on purpose.

mod script;
mod sizes;

use proptest::prelude::*;

pub use self::{
    script::{Generator, Order, Phase, Script},
    sizes::Sizes,
};
use crate::{op::Op, reference::Rules};

/// Returns a strategy for sequences of random operations on 64 slots.
pub fn random(rules: &Rules) -> impl Strategy<Value = Vec<Op>> + use<> {
    Sizes::any(rules).prop_flat_map(|sizes| prop::collection::vec(op(sizes), 1..400))
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

/// Returns a strategy for scripts that repeatedly fill up to `arenas` arenas and drain them.
pub fn phases(rules: &Rules, arenas: usize) -> impl Strategy<Value = Script> + use<> {
    let others = prop::collection::vec(phase(rules, arenas), 1..6);
    (any::<u64>(), fill(rules, arenas), others).prop_map(|(seed, fill, mut phases)| {
        phases.insert(0, fill);
        Script { seed, phases }
    })
}

fn fill(rules: &Rules, arenas: usize) -> impl Strategy<Value = Phase> + use<> {
    let (room, step) = (arenas * rules.arena_size, rules.alignment);
    (Sizes::any(rules), 1..=16_usize).prop_map(move |(sizes, sixteenths)| {
        let blocks = (room / 16 * sixteenths / sizes.mean().max(step)).max(1);
        Phase::Fill { sizes, blocks }
    })
}

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
