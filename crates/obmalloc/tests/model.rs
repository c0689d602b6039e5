//! The heap against the shadow, with its own rules asserted after each step: no two live blocks
//! overlap, contents survive, blocks are aligned; every arena goes back when everything is freed,
//! and nothing of the layer below is left when the heap is dropped.

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
    workload::{self, Order, Phase, Player, Sizes},
};

/// Plays `ops`, looking at everything after every `stride`-th of them.
fn play<G: Geometry>(rig: &mut Rig<G>, ops: &[Op], stride: usize) {
    for (nth, &op) in ops.iter().enumerate() {
        let outcome = rig.step(op);
        assert_ne!(outcome, Outcome::Refused, "operation {nth}: {op:?}");
        if nth.is_multiple_of(stride) {
            look_at_everything(rig);
        }
    }
}

fn look_at_everything<G: Geometry>(rig: &Rig<G>) {
    rig.check();
    rig.driver.shadow().check();
    let stats = rig.stats();
    assert_eq!(stats.bytes.total(), stats.arenas.current * G::SIZES.arena_size);
    assert_eq!(stats.arenas.current, rig.arenas.mapped());
    assert_eq!(stats.arenas.allocated, rig.arenas.ever());
}

/// Frees what is live, then drops the heap.
fn leave_nothing<G: Geometry>(mut rig: Rig<G>) {
    rig.driver.free_all();
    look_at_everything(&rig);
    assert!(rig.arenas.mapped() <= usize::from(G::RULES.retain_last_arena));
    assert_eq!(rig.stats().bytes.in_use, 0);
    let Rig { driver, arenas, below, .. } = rig;
    drop(driver);
    assert_eq!((arenas.mapped(), below.count()), (0, 0));
}

fn random_sequences_keep_every_rule_at_each_step<G: Geometry>() {
    check(16, workload::random(&rules::<G>()), |ops| {
        let mut rig = Rig::<G>::new();
        play(&mut rig, &ops, 1);
        leave_nothing(rig);
    });
}

fn a_heap_that_keeps_arenas_keeps_every_rule_and_rests_without_any<G: Geometry>() {
    check(16, workload::random(&rules::<G>()), |ops| {
        let mut rig = Rig::<G>::that_keeps_arenas();
        for _ in 0..3 {
            play(&mut rig, &ops, 1);
            rig.driver.free_all();
            look_at_everything(&rig);
        }
        rig.heap().trim();
        look_at_everything(&rig);
        assert_eq!(rig.arenas.mapped(), 0);
    });
}

fn filling_and_draining_keeps_every_rule<G: Geometry>() {
    let tiny = G::SIZES.arena_size < 4096;
    let (cases, arenas, looks) =
        if tiny { (6, 5, usize::MAX) } else { (4, arenas_in::<G>(1 << 20), 50) };
    check(cases, workload::phases(&rules::<G>(), arenas), |script| {
        let (mut rig, ops) = (Rig::<G>::new(), script.ops());
        play(&mut rig, &ops, ops.len().div_ceil(looks).max(1));
        leave_nothing(rig);
    });
}

fn everything_freed_gives_every_arena_back_in_any_order<G: Geometry>() {
    let arenas = arenas_in::<G>(1 << 20).max(3);
    let blocks = arenas * G::SIZES.arena_size / G::SIZES.small_threshold;
    for order in [Order::Forward, Order::Backward, Order::Shuffled] {
        let (mut rig, mut player) = (Rig::<G>::new(), Player::new(1));
        let fill = Phase::Fill { sizes: Sizes::of([G::SIZES.small_threshold]), blocks };
        play(&mut rig, &player.play(&fill), blocks);
        assert!(rig.arenas.mapped() >= arenas);
        let drain = player.play(&Phase::Drain { order, keep_one_in: 0 });
        play(&mut rig, &drain, blocks.div_ceil(20));
        assert_eq!(rig.arenas.mapped(), usize::from(G::RULES.retain_last_arena), "{order:?}");
        assert_eq!(rig.driver.shadow().blocks(), 0);
        leave_nothing(rig);
    }
}

fn the_kept_arena_is_used_again_and_none_is_mapped_for_it<G: Geometry>() {
    let mut rig = Rig::<G>::new();
    // Of another class each time, so that the pool goes by way of the arena.
    for (round, size) in [1, G::SIZES.small_threshold].into_iter().cycle().take(10).enumerate() {
        rig.step(Op::Malloc { slot: 0, size });
        rig.step(Op::Free { slot: 0 });
        let ever = if G::RULES.retain_last_arena { 1 } else { round + 1 };
        assert_eq!(rig.arenas.ever(), ever);
    }
    leave_nothing(rig);
}

fn a_heap_that_rests_holds_no_arena_and_wakes_up<G: Geometry>() {
    check(4, workload::random(&rules::<G>()), |ops| {
        let mut rig = Rig::<G>::new();
        for _ in 0..2 {
            play(&mut rig, &ops, ops.len());
            let used = rig.arenas.mapped();
            rig.heap().trim();
            look_at_everything(&rig);
            assert!(rig.arenas.mapped() + 1 >= used);
            rig.driver.free_all();
            rig.heap().trim();
            look_at_everything(&rig);
            assert_eq!(rig.arenas.mapped(), 0);
        }
        leave_nothing(rig);
    });
}

fn a_reset_gives_back_arenas_whose_blocks_live<G: Geometry>() {
    let arenas = ArenaLog::default();
    let source = FailingArenas::new(MmapArenas::new(), Faults::default(), arenas.clone());
    let source = KnownArenas::<_, _, G>::with_geometry(source, Malloc);
    let mut heap = Heap::<_, _, G>::with_geometry(source, Malloc);
    for size in (1..=G::SIZES.small_threshold).cycle().take(2_000) {
        assert!(heap.alloc(SizeClass::of(size).unwrap()).is_some());
    }
    // SAFETY: the blocks above are not used.
    unsafe { heap.reset() };
    heap.check_invariants();
    assert_eq!(arenas.mapped(), 0);
    assert!(heap.alloc(SizeClass::of(1).unwrap()).is_some());
    heap.check_invariants();
    drop(heap);
    assert_eq!(arenas.mapped(), 0);
}

fn an_address_is_ours_exactly_inside_the_arenas<G: Geometry>() {
    let mut rig = Rig::<G>::new();
    let blocks = 3 * G::SIZES.arena_size / G::SIZES.small_threshold;
    let fill = Phase::Fill { sizes: Sizes::of([G::SIZES.small_threshold]), blocks };
    play(&mut rig, &Player::new(0).play(&fill), blocks);
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
    random_sequences_keep_every_rule_at_each_step,
    a_heap_that_keeps_arenas_keeps_every_rule_and_rests_without_any,
    filling_and_draining_keeps_every_rule,
    everything_freed_gives_every_arena_back_in_any_order,
    the_kept_arena_is_used_again_and_none_is_mapped_for_it,
    a_heap_that_rests_holds_no_arena_and_wakes_up,
    a_reset_gives_back_arenas_whose_blocks_live,
    an_address_is_ours_exactly_inside_the_arenas,
);
