//! The heap is held against the reference, which is held against CPython: after each operation
//! the block must lie in the same arena, pool and place in the pool, as many arenas must be
//! mapped, and the figures must be the same.

#[macro_use]
mod common;

use common::{Rig, arenas_in, rules};
use obmalloc::Geometry;
use proptest::prelude::*;
use testkit::{
    failing::{Faults, Plan},
    op::{Op, Slots},
    property::check,
    reference::{Block, Reference},
    workload,
};

/// Plays `ops` into both, failing requests for arenas as `plan` says; `strides` looks at the
/// figures.
fn take_the_same_shape<G: Geometry>(ops: &[Op], plan: Plan, strides: usize) {
    let (mut rig, mut slots) = (Rig::<G>::new(), Slots::default());
    let mut reference = Reference::new(rules::<G>(), Faults::new(plan));
    rig.source.restart(plan);
    for (nth, &op) in ops.iter().enumerate() {
        let expected = slots.play(&mut reference, op).map(Block::spot);
        let given = rig.step(op).map(|block| rig.spot(block));
        assert_eq!(given, expected, "operation {nth}: {op:?}");
        assert_eq!(rig.arenas.mapped(), reference.mapped(), "arenas after operation {nth}: {op:?}");
        if nth.is_multiple_of(ops.len().div_ceil(strides)) {
            assert_eq!(rig.figures(), reference.figures(), "after operation {nth}: {op:?}");
        }
    }
    rig.driver.free_all();
    slots.free_all(&mut reference);
    assert_eq!(rig.figures(), reference.figures(), "with nothing live");
}

fn random_sequences<G: Geometry>() {
    check(100, workload::random(&rules::<G>()), |ops| {
        take_the_same_shape::<G>(&ops, Plan::Never, 40);
    });
}

fn arenas_that_fill_and_drain<G: Geometry>() {
    let cases = if G::SIZES.arena_size < 4096 { 50 } else { 6 };
    let phases = workload::phases(&rules::<G>(), arenas_in::<G>(1 << 20));
    check(cases, phases, |script| take_the_same_shape::<G>(&script.ops(), Plan::Never, 40));
}

fn arenas_that_are_not_to_be_had<G: Geometry>() {
    let cases = if G::SIZES.arena_size < 4096 { 50 } else { 4 };
    let plan = prop_oneof![
        (1..5_usize).prop_map(Plan::Nth),
        (1..5_usize).prop_map(Plan::From),
        (2..5_usize).prop_map(Plan::Every),
    ];
    let phases = workload::phases(&rules::<G>(), arenas_in::<G>(1 << 20));
    check(cases, (phases, plan), |(script, plan)| {
        take_the_same_shape::<G>(&script.ops(), plan, 40);
    });
}

for_every_shape_of_cpython!(
    random_sequences,
    arenas_that_fill_and_drain,
    arenas_that_are_not_to_be_had
);
