//! Compares the position of every block, and the statistics, with a simple model of CPython's heap.

#[macro_use]
mod common;

use common::{Rig, arenas_in, rules};
use obmalloc::Geometry;
use proptest::prelude::*;
use testkit::{
    drive::Driver,
    failing::{Faults, Plan},
    op::Op,
    property::check,
    reference::Reference,
    workload,
};

/// Performs `ops` on both heaps and compares them. `plan` determines which requests for arenas
/// fail.
fn take_the_same_shape<G: Geometry>(ops: &[Op], plan: Plan, strides: usize) {
    let mut rig = Rig::<G>::new();
    let mut reference = Driver::new(Reference::new(rules::<G>(), Faults::new(plan)));
    rig.source.restart(plan);
    for (nth, &op) in ops.iter().enumerate() {
        let expected = reference.step(op);
        let outcome = rig.step(op).map(|block| rig.spot(block));
        assert_eq!(outcome, expected, "operation {nth}: {op:?}");
        let mapped = reference.subject().mapped();
        assert_eq!(rig.arenas.mapped(), mapped, "arenas after operation {nth}: {op:?}");
        if nth.is_multiple_of(ops.len().div_ceil(strides)) {
            let figures = reference.subject().figures();
            assert_eq!(rig.figures(), figures, "after operation {nth}: {op:?}");
        }
    }
    rig.driver.free_all();
    reference.free_all();
    assert_eq!(rig.figures(), reference.subject().figures(), "without a live block");
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

fn requests_for_arenas_that_fail<G: Geometry>() {
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
    requests_for_arenas_that_fail
);
