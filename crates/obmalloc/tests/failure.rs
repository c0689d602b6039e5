//! When the arena source or the layer below runs out of memory, no live block may be lost.

#[macro_use]
mod common;

use std::ptr::NonNull;

use common::{Rig, rules};
use obmalloc::Geometry;
use testkit::{
    failing::{Plan, Tally},
    op::{Op, Outcome},
    property::depth,
    workload::{Order, Phase, Script, Sizes},
};

/// Returns operations that use so many arenas that the heaps of small geometries need more records.
fn workload<G: Geometry>() -> Vec<Op> {
    let arenas = if G::SIZES.arena_size < 4096 { 20 } else { 3 };
    let blocks = arenas * G::SIZES.arena_size / G::SIZES.small_threshold;
    let large =
        Sizes::of([G::SIZES.small_threshold, G::SIZES.small_threshold - G::SIZES.alignment]);
    let many = Sizes::many(&rules::<G>());
    let phases = vec![
        Phase::Churn { sizes: many.clone(), ops: 60 },
        Phase::Fill { sizes: large.clone(), blocks },
        Phase::Drain { order: Order::Shuffled, keep_one_in: 20 },
        Phase::Fill { sizes: large, blocks: blocks / 2 },
        Phase::Resize { sizes: many.clone(), ops: 60 },
        Phase::Drain { order: Order::Backward, keep_one_in: 100 },
        Phase::Churn { sizes: many, ops: 60 },
    ];
    Script { seed: 5, phases }.ops()
}

struct Step {
    op: Op,
    outcome: Outcome<NonNull<u8>>,
    source: Tally,
    lower: Tally,
}

fn since(after: Tally, before: Tally) -> Tally {
    Tally { calls: after.calls - before.calls, failures: after.failures - before.failures }
}

fn play<G: Geometry>(rig: &mut Rig<G>, ops: &[Op], mut judge: impl FnMut(&Rig<G>, &Step)) {
    for (nth, &op) in ops.iter().enumerate() {
        let before = (rig.source.tally(), rig.lower.tally());
        let outcome = rig.step(op);
        let source = since(rig.source.tally(), before.0);
        let lower = since(rig.lower.tally(), before.1);
        judge(rig, &Step { op, outcome, source, lower });
        if nth.is_multiple_of(ops.len().div_ceil(8)) || source.failures > 0 {
            rig.check();
        }
    }
    rig.check();
    rig.shadow().check();
}

fn refused_only_by_the_layer_below<G: Geometry>(_rig: &Rig<G>, step: &Step) {
    if step.outcome == Outcome::Refused {
        assert!(
            step.lower.failures > 0,
            "{:?} was refused, but the layer below did not fail",
            step.op
        );
    }
}

fn assert_recovers<G: Geometry>(mut rig: Rig<G>) {
    rig.source.restart(Plan::Never);
    rig.lower.restart(Plan::Never);
    let blocks = 2 * G::SIZES.arena_size / G::SIZES.small_threshold;
    for slot in 0..blocks {
        let outcome = rig.step(Op::Malloc { slot, size: G::SIZES.small_threshold });
        assert!(outcome.block().is_some_and(|block| rig.spot(block).is_some()));
    }
    rig.driver.free_all();
    rig.check();
    assert_eq!(rig.arenas.mapped(), rig.retained());
    let (arenas, below) = (rig.arenas.clone(), rig.below.clone());
    drop(rig);
    assert_eq!((arenas.mapped(), below.count()), (0, 0));
}

fn calls_to_fail(calls: usize, at_most: usize) -> impl Iterator<Item = usize> {
    assert!(calls > 0, "the workload makes no calls");
    let stride = calls.div_ceil(at_most * depth() as usize);
    (1..=calls + 1).step_by(stride)
}

fn calls<G: Geometry>(ops: &[Op]) -> (usize, usize) {
    let mut rig = Rig::<G>::new();
    play(&mut rig, ops, |_, step| assert_ne!(step.outcome, Outcome::Refused));
    (rig.source.tally().calls, rig.lower.tally().calls)
}

fn a_request_without_an_arena_goes_to_the_layer_below<G: Geometry>() {
    let ops = workload::<G>();
    for call in 1..=calls::<G>(&ops).0 {
        let mut rig = Rig::<G>::new();
        rig.source.restart(Plan::Nth(call));
        play(&mut rig, &ops, |rig, step| {
            assert_ne!(step.outcome, Outcome::Refused, "{:?}", step.op);
            if step.source.failures > 0 {
                let block = step.outcome.block().expect("only an allocation asks for arenas");
                assert_eq!(rig.spot(block), None);
                assert!(rig.below.contains(block));
            }
        });
        assert_eq!(rig.source.tally().failures, 1, "call {call}");
        assert_recovers(rig);
    }
}

fn a_heap_without_arenas_is_served_by_the_layer_below<G: Geometry>() {
    let ops = workload::<G>();
    for call in 1..=calls::<G>(&ops).0 {
        let mut rig = Rig::<G>::new();
        rig.source.restart(Plan::From(call));
        play(&mut rig, &ops, |rig, step| {
            assert_ne!(step.outcome, Outcome::Refused, "{:?}", step.op);
            assert!(rig.arenas.ever() < call);
        });
        assert_recovers(rig);
    }
}

fn a_failure_of_the_layer_below_refuses_at_most_one_request<G: Geometry>() {
    let ops = workload::<G>();
    for call in calls_to_fail(calls::<G>(&ops).1, 40) {
        let mut rig = Rig::<G>::new();
        rig.lower.restart(Plan::Nth(call));
        let mut refused = 0;
        play(&mut rig, &ops, |rig, step| {
            refused_only_by_the_layer_below(rig, step);
            refused += usize::from(step.outcome == Outcome::Refused);
        });
        assert!(refused <= 1, "only call {call} fails, but {refused} requests were refused");
        assert_recovers(rig);
    }
}

fn a_heap_without_the_layer_below_serves_from_its_arenas<G: Geometry>() {
    let ops = workload::<G>();
    for call in calls_to_fail(calls::<G>(&ops).1, 20) {
        let mut rig = Rig::<G>::new();
        rig.lower.restart(Plan::From(call));
        play(&mut rig, &ops, refused_only_by_the_layer_below);
        assert_recovers(rig);
    }
}

fn requests_without_any_memory_are_refused_and_no_block_is_lost<G: Geometry>() {
    let ops = workload::<G>();
    let (source, lower) = calls::<G>(&ops);
    for arenas in calls_to_fail(source, 5) {
        for call in calls_to_fail(lower, 5) {
            let mut rig = Rig::<G>::new();
            rig.source.restart(Plan::From(arenas));
            rig.lower.restart(Plan::From(call));
            play(&mut rig, &ops, refused_only_by_the_layer_below);
            assert_recovers(rig);
        }
    }
}

fn a_first_request_without_any_memory_is_refused_and_the_next_is_served<G: Geometry>() {
    let mut rig = Rig::<G>::new();
    rig.source.restart(Plan::From(1));
    rig.lower.restart(Plan::From(1));
    for size in [0, 1, G::SIZES.small_threshold, G::SIZES.small_threshold + 1] {
        assert_eq!(rig.step(Op::Malloc { slot: 0, size }), Outcome::Refused);
        assert_eq!(rig.step(Op::Realloc { slot: 0, size }), Outcome::Refused);
    }
    assert_recovers(rig);
}

for_every_profile!(
    a_request_without_an_arena_goes_to_the_layer_below,
    a_heap_without_arenas_is_served_by_the_layer_below,
    a_failure_of_the_layer_below_refuses_at_most_one_request,
    a_heap_without_the_layer_below_serves_from_its_arenas,
    requests_without_any_memory_are_refused_and_no_block_is_lost,
    a_first_request_without_any_memory_is_refused_and_the_next_is_served,
);
