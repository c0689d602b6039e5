//! Heaps with geometries at the limits of what a program may define.

use std::collections::BTreeMap;

use obmalloc::{BlockPtr, Geometry, HeaderRule, Heap, RetainRule, Rules, Shape, SizeClass, Sizes};
use raw_mem::{Malloc, MmapArenas};

const OWN_RULES: Rules =
    Rules { headers: HeaderRule::InArena, retain: RetainRule::EachClass, ..Rules::CPYTHON };

/// A geometry with two units in an arena. The first unit holds the headers, so only the second one
/// can hold blocks that are not linked.
#[derive(Clone, Copy, Debug, Default)]
struct TwoUnits;

impl Geometry for TwoUnits {
    const NAME: &'static str = "two units in an arena";
    const SIZES: Sizes = Sizes { arena_threshold: 8 << 10, arena_size: 32 << 10, ..Sizes::CPYTHON };
    const RULES: Rules = OWN_RULES;
}

#[derive(Clone, Copy, Debug, Default)]
struct FourUnits;

impl Geometry for FourUnits {
    const NAME: &'static str = "four units in an arena";
    const SIZES: Sizes =
        Sizes { arena_threshold: 48 << 10, arena_size: 64 << 10, ..Sizes::CPYTHON };
    const RULES: Rules = OWN_RULES;
}

/// A geometry with few blocks in a pool. If blocks begin as in CPython, the first pool of an arena
/// has room for three blocks of 128 bytes. Other pools have room for seven or eight.
#[derive(Clone, Copy, Debug, Default)]
struct SmallPools;

impl Geometry for SmallPools {
    const NAME: &'static str = "pools of 1 KiB";
    const SIZES: Sizes = Sizes {
        alignment: 8,
        small_threshold: 128,
        linked_threshold: 128,
        arena_threshold: 208,
        pool_size: 1 << 10,
        arena_size: 8 << 10,
        ..Sizes::CPYTHON
    };
    const RULES: Rules = OWN_RULES;
}

type TestHeap<G> = Heap<MmapArenas, Malloc, G>;

/// Allocates `count` blocks of `class`, and asserts that they do not overlap.
fn alloc<G: Geometry>(heap: &mut TestHeap<G>, class: SizeClass<G>, count: usize) -> Vec<BlockPtr> {
    let blocks: Vec<_> = (0..count).map(|_| heap.alloc(class).unwrap()).collect();
    let mut ends = BTreeMap::new();
    for block in &blocks {
        let start = block.start().addr().get();
        ends.insert(start, start + class.block_size());
        let last = start % G::SIZES.arena_size + class.block_size();
        assert!(last <= G::SIZES.arena_size, "{class:?}: a block leaves its arena");
    }
    assert_eq!(ends.len(), count, "{class:?}: two blocks have the same address");
    let are_apart = ends.values().zip(ends.keys().skip(1)).all(|(end, next)| end <= next);
    assert!(are_apart, "{class:?}: two blocks overlap");
    blocks
}

fn free<G: Geometry>(heap: &mut TestHeap<G>, blocks: impl IntoIterator<Item = BlockPtr>) {
    for block in blocks {
        // SAFETY: the block came from this heap, and is not used again.
        unsafe { heap.free(block) };
    }
}

/// Allocates more blocks of each class than three arenas hold, and frees them in another order.
fn use_every_class<G: Geometry>(starts_as_in_cpython: bool) {
    let mut heap = TestHeap::<G>::with_geometry(MmapArenas::new(), Malloc);
    if starts_as_in_cpython {
        heap.begin_blocks_as_in_cpython();
    }
    for class in SizeClass::<G>::all() {
        let mut blocks = alloc(&mut heap, class, 3 * G::SIZES.arena_size / class.block_size());
        heap.check_invariants();
        let odd: Vec<_> = (0..blocks.len() / 2).map(|nth| blocks.remove(nth)).collect();
        free(&mut heap, odd);
        heap.check_invariants();
        free(&mut heap, blocks);
        heap.check_invariants();
        assert_eq!(heap.stats().bytes.in_use, 0, "{class:?}");
    }
}

/// Regression test: a class above `linked_threshold` got pools of no units.
#[test]
fn arenas_of_two_or_four_units_serve_every_class() {
    use_every_class::<TwoUnits>(false);
    use_every_class::<FourUnits>(false);
}

/// Regression test: a full pool waited for more frees than it had blocks, so it was lost.
#[test]
fn a_full_pool_with_few_blocks_becomes_used_again() {
    use_every_class::<SmallPools>(true);
    use_every_class::<SmallPools>(false);
}

#[test]
fn a_pool_of_several_blocks_has_at_least_one_unit() {
    fn check<G: Geometry>() {
        for class in SizeClass::<G>::all() {
            assert!((1..Shape::<G>::POOLS).contains(&class.units()), "{class:?}");
            assert!(class.is_span() || class.capacity() > 1, "{class:?}");
        }
    }
    check::<TwoUnits>();
    check::<FourUnits>();
    check::<SmallPools>();
}
