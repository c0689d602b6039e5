//! Checks the rules of the heap and the contents of live blocks after each operation.

#[macro_use]
mod common;

use common::{Rig, arenas_in, rules};
use obmalloc::{Access, Geometry, Heap, KnownArenas, SizeClass};
use raw_mem::{Malloc, MmapArenas};
use testkit::{
    failing::{FailingArenas, Faults},
    op::{Op, Outcome},
    place::ArenaLog,
    property::check,
    workload::{self, Generator, Order, Phase, Sizes},
};

fn play<G: Geometry>(rig: &mut Rig<G>, ops: &[Op], stride: usize) {
    for (nth, &op) in ops.iter().enumerate() {
        let outcome = rig.step(op);
        assert_ne!(outcome, Outcome::Refused, "operation {nth}: {op:?}");
        if nth.is_multiple_of(stride) {
            check_everything(rig);
        }
    }
}

fn check_everything<G: Geometry>(rig: &Rig<G>) {
    rig.check();
    rig.shadow().check();
    let stats = rig.stats();
    assert_eq!(stats.bytes.total(), stats.arenas.current * G::SIZES.arena_size);
    assert_eq!(stats.arenas.current, rig.arenas.mapped());
    assert_eq!(stats.arenas.allocated, rig.arenas.ever());
}

fn assert_drop_leaves_nothing<G: Geometry>(mut rig: Rig<G>) {
    rig.driver.free_all();
    check_everything(&rig);
    assert!(rig.arenas.mapped() <= usize::from(G::RULES.retain_last_arena));
    assert_eq!(rig.stats().bytes.in_use, 0);
    let Rig { driver, arenas, below, .. } = rig;
    drop(driver);
    assert_eq!((arenas.mapped(), below.count()), (0, 0));
}

fn every_rule_holds_after_each_step_of_random_sequences<G: Geometry>() {
    check(16, workload::random(&rules::<G>()), |ops| {
        let mut rig = Rig::<G>::new();
        play(&mut rig, &ops, 1);
        assert_drop_leaves_nothing(rig);
    });
}

fn every_rule_holds_in_a_heap_that_retains_arenas_and_trim_unmaps_them<G: Geometry>() {
    check(16, workload::random(&rules::<G>()), |ops| {
        let mut rig = Rig::<G>::that_retains_arenas();
        for _ in 0..3 {
            play(&mut rig, &ops, 1);
            rig.driver.free_all();
            check_everything(&rig);
        }
        rig.heap().trim();
        check_everything(&rig);
        assert_eq!(rig.arenas.mapped(), 0);
    });
}

fn every_rule_holds_while_arenas_fill_and_drain<G: Geometry>() {
    let tiny = G::SIZES.arena_size < 4096;
    let (cases, arenas, checks) =
        if tiny { (6, 5, usize::MAX) } else { (4, arenas_in::<G>(1 << 20), 50) };
    check(cases, workload::phases(&rules::<G>(), arenas), |script| {
        let (mut rig, ops) = (Rig::<G>::new(), script.ops());
        play(&mut rig, &ops, ops.len().div_ceil(checks).max(1));
        assert_drop_leaves_nothing(rig);
    });
}

fn freeing_all_blocks_in_any_order_unmaps_every_arena<G: Geometry>() {
    let arenas = arenas_in::<G>(1 << 20).max(3);
    let blocks = arenas * G::SIZES.arena_size / G::SIZES.small_threshold;
    for order in [Order::Forward, Order::Backward, Order::Shuffled] {
        let (mut rig, mut generator) = (Rig::<G>::new(), Generator::new(1));
        let fill = Phase::Fill { sizes: Sizes::of([G::SIZES.small_threshold]), blocks };
        play(&mut rig, &generator.ops(&fill), blocks);
        assert!(rig.arenas.mapped() >= arenas);
        let drain = generator.ops(&Phase::Drain { order, keep_one_in: 0 });
        play(&mut rig, &drain, blocks.div_ceil(20));
        assert_eq!(rig.arenas.mapped(), usize::from(G::RULES.retain_last_arena), "{order:?}");
        assert_eq!(rig.shadow().blocks(), 0);
        assert_drop_leaves_nothing(rig);
    }
}

fn a_retained_arena_is_reused<G: Geometry>() {
    let mut rig = Rig::<G>::new();
    // The class changes each time, so the pool returns to its arena.
    for (round, size) in [1, G::SIZES.small_threshold].into_iter().cycle().take(10).enumerate() {
        rig.step(Op::Malloc { slot: 0, size });
        rig.step(Op::Free { slot: 0 });
        let ever = if G::RULES.retain_last_arena { 1 } else { round + 1 };
        assert_eq!(rig.arenas.ever(), ever);
    }
    assert_drop_leaves_nothing(rig);
}

fn a_trimmed_heap_unmaps_its_free_arenas_and_serves_again<G: Geometry>() {
    check(4, workload::random(&rules::<G>()), |ops| {
        let mut rig = Rig::<G>::new();
        for _ in 0..2 {
            play(&mut rig, &ops, ops.len());
            let used = rig.arenas.mapped();
            rig.heap().trim();
            check_everything(&rig);
            assert!(rig.arenas.mapped() + 1 >= used);
            rig.driver.free_all();
            rig.heap().trim();
            check_everything(&rig);
            assert_eq!(rig.arenas.mapped(), 0);
        }
        assert_drop_leaves_nothing(rig);
    });
}

fn a_reset_unmaps_arenas_with_live_blocks<G: Geometry>() {
    let arenas = ArenaLog::default();
    let source = FailingArenas::new(MmapArenas::new(), Faults::default(), arenas.clone());
    let source = KnownArenas::<_, _, G>::with_geometry(source, Malloc);
    let mut heap = Heap::<_, _, G>::with_geometry(source, Malloc);
    for size in (1..=G::SIZES.small_threshold).cycle().take(2_000) {
        assert!(heap.alloc(SizeClass::of(size).unwrap()).is_some());
    }
    // SAFETY: the blocks above are not used again.
    unsafe { heap.reset() };
    heap.check_invariants();
    assert_eq!(arenas.mapped(), 0);
    assert!(heap.alloc(SizeClass::of(1).unwrap()).is_some());
    heap.check_invariants();
    drop(heap);
    assert_eq!(arenas.mapped(), 0);
}

fn the_heap_holds_exactly_the_addresses_in_its_arenas<G: Geometry>() {
    let mut rig = Rig::<G>::new();
    let blocks = 3 * G::SIZES.arena_size / G::SIZES.small_threshold;
    let fill = Phase::Fill { sizes: Sizes::of([G::SIZES.small_threshold]), blocks };
    play(&mut rig, &Generator::new(0).ops(&fill), blocks);
    let ours = |address: usize| rig.heap().contains(address);
    let mapped: Vec<_> = rig.arenas.arenas().into_values().collect();
    assert!(mapped.len() >= 3);
    for &arena in &mapped {
        let inside =
            [arena, arena + 1, arena + G::SIZES.arena_size / 2, arena + G::SIZES.arena_size - 1];
        assert_eq!(inside.map(ours), [true; 4]);
        let neighbours = [arena - G::SIZES.arena_size, arena + G::SIZES.arena_size]
            .map(|at| mapped.contains(&at));
        assert_eq!([arena - 1, arena + G::SIZES.arena_size].map(ours), neighbours);
    }
    assert_eq!([0, 1, usize::MAX, usize::MAX / 2, 1 << 47].map(ours), [false; 5]);
    rig.driver.free_all();
    let ours = |address: usize| rig.heap().contains(address);
    let left = mapped.iter().filter(|&&arena| ours(arena)).count();
    assert_eq!(left, usize::from(G::RULES.retain_last_arena));
}

for_every_profile!(
    every_rule_holds_after_each_step_of_random_sequences,
    every_rule_holds_in_a_heap_that_retains_arenas_and_trim_unmaps_them,
    every_rule_holds_while_arenas_fill_and_drain,
    freeing_all_blocks_in_any_order_unmaps_every_arena,
    a_retained_arena_is_reused,
    a_trimmed_heap_unmaps_its_free_arenas_and_serves_again,
    a_reset_unmaps_arenas_with_live_blocks,
    the_heap_holds_exactly_the_addresses_in_its_arenas,
);
