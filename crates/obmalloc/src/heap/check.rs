//! A check that walks the whole heap and asserts every numbered rule of the crate's page.

#![forbid(unsafe_code)]

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    arena::Arena,
    geometry::{
        Geometry, MAX_POOLS, RetainRule,
        shape::{BlockStart, Shape},
        size_class::SizeClass,
    },
    heap::{
        Heap,
        self_check::{IS_ON, NoUnwinding},
    },
    pool::{PoolPtr, State},
};

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Asserts every rule of the [crate's page](crate). Slow, because it visits every free block.
    ///
    /// # Panics
    ///
    /// Panics if the heap breaks a rule. The message says which rule.
    pub fn check_invariants(&self) {
        self.check_used_pools();
        self.check_arenas();
        self.check_usable_arenas();
    }

    /// In builds in which heaps check themselves, checks the rules of the heap in every n-th call.
    ///
    /// The heap must be consistent. If it breaks a rule, the process ends.
    #[inline]
    pub(crate) fn check_sometimes(&self) {
        if IS_ON && self.self_check.is_due(self.arenas.counts().current * Shape::<G>::POOLS) {
            let no_unwinding = NoUnwinding;
            self.check_invariants();
            core::mem::forget(no_unwinding);
        }
    }

    /// Checks rules 3 and 4.
    fn check_used_pools(&self) {
        for class in SizeClass::<G>::all() {
            let mut prev = None;
            for pool in self.used.iter(class) {
                let header = pool.header();
                let retained = header.state() == State::Retained;
                assert!(retained || header.state() == State::Used, "rule 3: listed pools are used");
                let is_only = prev.is_none() && header.next.get().is_none();
                let may_retain = is_only || class.is_span();
                assert!(!retained || may_retain, "rule 3: a retained pool is its class's only one");
                assert_eq!(header.class::<G>(), Some(class), "rule 4: a list has one class");
                assert_eq!(header.prev.get(), prev, "rule 4: links go both ways");
                let is_first = prev.is_none();
                let may_have_run_out = is_first || class.is_span();
                let has_run_out = header.has_run_out::<G>();
                assert!(may_have_run_out || !has_run_out, "rule 3: only the first runs out");
                let in_use = retained || header.in_use::<G>() > 0;
                assert!(in_use, "rule 3: an empty pool is in no class's list");
                prev = Some(pool);
            }
        }
    }

    /// Checks rules 1, 2, 3 and 5.
    fn check_arenas(&self) {
        let mut arenas = 0;
        for (index, arena) in self.arenas.arenas() {
            arenas += 1;
            let (mut free, mut units, mut retained) = (0, 0, 0);
            for pool in arena.pools::<G>() {
                assert_eq!(pool.header().arena(), index, "a pool knows its arena");
                check_pool::<G>(arena, pool, self.blocks);
                units += pool.header().units_in_use::<G>();
                match pool.header().state() {
                    State::Free => free += 1,
                    State::Retained => {
                        retained += pool.header().units_in_use::<G>();
                        self.check_is_listed(pool);
                    }
                    State::Used => self.check_is_listed(pool),
                    State::Full | State::Exhausted => {}
                    State::Uncarved => panic!("a carved pool has a header"),
                }
            }
            assert_eq!(arena.retained_units as usize, retained, "retained units are counted");
            let known = arena.known_free::<G>();
            assert_eq!(known.listed, free, "rule 3: free pools are known to their arena");
            assert_eq!(arena.free_units(), free + known.uncarved, "rule 6: free units are counted");
            assert_eq!(units + known.uncarved, Shape::<G>::POOLS, "rule 1: no unit is lost");
        }
        let unused = self.arenas.unused().inspect(|(_, arena)| {
            assert_eq!(arena.base(), None, "rule 5: an unused record has no arena");
        });
        assert_eq!(unused.count() + arenas, self.arenas.records(), "rule 5: no record is lost");
        assert_eq!(self.arenas.counts().current, arenas, "arenas are counted");
        let pinned = self.arenas.arenas().filter(|(_, arena)| arena.is_pinned::<G>()).count();
        assert_eq!(self.arenas.pinned(), pinned, "pinned arenas are counted");
    }

    fn check_is_listed(&self, pool: PoolPtr) {
        let class = pool.header().class::<G>();
        let listed = class.is_some_and(|class| self.used.iter(class).any(|other| other == pool));
        assert!(listed, "rule 3: a used pool is in its class's list");
    }

    /// Checks rules 6, 7 and 8.
    fn check_usable_arenas(&self) {
        let mut last = [None; MAX_POOLS + 1];
        let (mut before, mut prev, mut free) = (1, None, 0);
        for (index, arena) in self.arenas.usable() {
            assert!(arena.base().is_some(), "rule 5: a usable record has an arena");
            assert!(arena.free_units() >= before, "rule 6: ascending by free units");
            assert_eq!(arena.prev, prev, "rule 6: links go both ways");
            free += usize::from(arena.is_free::<G>());
            last[arena.free_units()] = Some(index);
            (before, prev) = (arena.free_units(), Some(index));
        }
        for (free, last) in last.into_iter().enumerate() {
            assert_eq!(self.arenas.last_with(free), last, "rule 7: the last arena with {free}");
        }
        let usable = self.arenas.usable().count();
        let with_room = self.arenas.arenas().filter(|(_, arena)| arena.free_units() > 0);
        assert_eq!(usable, with_room.count(), "rule 6: every arena with a free unit is usable");
        let retained = self.arenas.retained();
        let may_be_free = retained + usize::from(G::RULES.retain_last_arena);
        assert!((retained..=may_be_free).contains(&free), "rule 8: other free arenas are unmapped");
    }
}

/// Checks rules 1 and 2 for one pool.
fn check_pool<G: Geometry>(arena: &Arena, pool: PoolPtr, blocks: BlockStart) {
    let header = pool.header();
    let Some(class) = header.class::<G>() else {
        assert_eq!(header.state(), State::Free, "a pool without a class is free");
        return;
    };
    let (first, capacity) = (header.first_offset::<G>(), header.capacity(class));
    let is_first = pool.start::<G>().addr().get().is_multiple_of(G::SIZES.arena_size);
    // If a pool was carved before the heap changed its block start, the pool keeps the old one.
    let begins = [BlockStart::Aligned, blocks].map(|start| start.offset::<G>(is_first));
    assert!(begins.contains(&first), "rule 1: blocks begin behind the headers");
    let mut listed = 0;
    for block in pool.free_blocks::<G>() {
        let offset = block.addr().get().wrapping_sub(pool.start::<G>().addr().get());
        assert!(offset >= first && offset < class.pool_bytes(), "rule 1: a block of this pool");
        assert_eq!((offset - first) % class.block_size(), 0, "rule 1: no gaps");
        listed += 1;
        assert!(listed <= capacity, "rule 2: the free list ends");
    }
    if header.state() == State::Free && G::RULES.retain == RetainRule::EachClass {
        assert_eq!((listed, header.in_use::<G>()), (0, 0), "rule 3: a free pool has no blocks");
        return;
    }
    let uncarved = header.uncarved::<G>() + arena.uncarved_blocks::<G>(pool).count();
    let known = header.in_use::<G>() + listed + uncarved;
    assert_eq!(known, capacity, "rule 2: every block is accounted for");
    match header.state() {
        State::Free => assert_eq!(header.in_use::<G>(), 0, "rule 3: a free pool has none in use"),
        State::Uncarved | State::Retained => {}
        State::Used | State::Full | State::Exhausted => {
            assert!(header.in_use::<G>() > 0, "rule 3: used means in use");
        }
    }
    if header.state() != State::Free {
        arena.check_pages::<G>(pool);
    }
    if header.state() == State::Full {
        let free = capacity - header.in_use::<G>();
        assert!(free < class.frees_until_used(), "rule 3: a full pool has few free blocks");
    }
    if header.state() == State::Exhausted {
        assert_eq!(header.in_use::<G>(), capacity, "rule 3: an exhausted pool has no free block");
    }
}
