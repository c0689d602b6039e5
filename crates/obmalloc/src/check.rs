//! A walk over everything that asserts every numbered rule of the crate's page.

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    arena::Arena,
    geometry::{Geometry, Shape},
    heap::Heap,
    pool::{PoolPtr, State},
    size_class::SizeClass,
};

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Asserts every rule of the [crate's page](crate). For tests: it visits every block of every
    /// pool.
    ///
    /// # Panics
    ///
    /// When a rule does not hold; the message says which.
    pub fn check_invariants(&self) {
        self.check_used_pools();
        self.check_idle_pools();
        self.check_arenas();
        self.check_usable_arenas();
    }

    /// Rules 3 and 4, from the lists' side.
    fn check_used_pools(&self) {
        for class in SizeClass::<G>::all() {
            let mut prev = None;
            for pool in self.used.iter(class) {
                let header = pool.header();
                let resting = header.state() == State::Resting;
                assert!(resting || header.state() == State::Used, "rule 3: listed pools are used");
                let alone = prev.is_none() && header.next.get().is_none();
                assert!(!resting || alone, "rule 3: a resting pool is its class's only one");
                assert_eq!(header.class::<G>(), Some(class), "rule 4: one class to a list");
                assert_eq!(header.prev.get(), prev, "rule 4: links go both ways");
                let is_first = prev.is_none();
                assert!(is_first || !header.has_run_out::<G>(), "rule 3: only the first runs out");
                let in_use = resting || header.in_use::<G>() > 0;
                assert!(in_use, "rule 3: an empty pool is in no class's list");
                prev = Some(pool);
            }
        }
    }

    /// Rule 3, from the lists of the idle pools.
    fn check_idle_pools(&self) {
        let mut listed = 0;
        for class in SizeClass::<G>::all() {
            let mut prev = None;
            for pool in self.idle.iter(class) {
                let header = pool.header();
                assert_eq!(header.state(), State::Idle, "rule 3: listed pools are idle");
                assert_eq!(header.class::<G>(), Some(class), "rule 4: one class to a list");
                assert_eq!(header.prev.get(), prev, "rule 4: links go both ways");
                prev = Some(pool);
                listed += 1;
            }
        }
        let known: usize = self.arenas.arenas().map(|(_, arena)| arena.idle_pools()).sum();
        assert_eq!(listed, known, "rule 3: idle pools are with their class");
    }

    /// Rules 1, 2, 3 and 5, from the arenas' side.
    fn check_arenas(&self) {
        let (mut with_memory, mut at_rest) = (0, 0);
        for (index, arena) in self.arenas.arenas() {
            with_memory += 1;
            let (mut empty, mut idle) = (0, 0);
            for pool in arena.pools::<G>() {
                assert_eq!(pool.header().arena(), index, "a pool knows its arena");
                check_pool::<G>(pool);
                match pool.header().state() {
                    State::Empty => empty += 1,
                    State::Idle => idle += 1,
                    State::Used | State::Resting => self.check_is_listed(pool),
                    State::Full => {}
                }
            }
            let uncarved = Shape::<G>::POOLS - arena.carved_pools();
            assert_eq!(arena.free_pools(), empty + uncarved, "rule 6: free pools are counted");
            let listed = arena.empty_pools().inspect(|pool| {
                assert_eq!(pool.header().state(), State::Empty, "rule 3: free pools are empty");
                assert_eq!(pool.header().arena(), index, "an arena lists its own pools");
            });
            assert_eq!(listed.count(), empty, "rule 3: empty pools are with their arena");
            assert_eq!(arena.idle_pools(), idle, "idle pools are counted");
            at_rest += usize::from(arena.is_at_rest::<G>());
        }
        let unused = self.arenas.unused().inspect(|(_, arena)| {
            assert_eq!(arena.base(), None, "rule 5: an unused record has no memory");
        });
        assert_eq!(unused.count() + with_memory, self.arenas.records(), "rule 5: none is lost");
        assert_eq!(self.arenas.counts().current, with_memory, "arenas are counted");
        assert_eq!(self.arenas.at_rest(), at_rest, "arenas at rest are counted");
    }

    fn check_is_listed(&self, pool: PoolPtr) {
        let class = pool.header().class::<G>();
        let listed = class.is_some_and(|class| self.used.iter(class).any(|other| other == pool));
        assert!(listed, "rule 3: a used pool is in its class's list");
    }

    /// Rules 6, 7 and 8.
    fn check_usable_arenas(&self) {
        let mut last = [None; crate::geometry::MOST_POOLS + 1];
        let (mut before, mut prev) = (1, None);
        for (index, arena) in self.arenas.usable() {
            assert!(arena.base().is_some(), "rule 5: a usable arena has memory");
            assert!(arena.free_pools() >= before, "rule 6: ascending by free pools");
            assert_eq!(arena.prev, prev, "rule 6: links go both ways");
            self.check_may_stay(arena);
            last[arena.free_pools()] = Some(index);
            (before, prev) = (arena.free_pools(), Some(index));
        }
        for (free, last) in last.into_iter().enumerate() {
            assert_eq!(self.arenas.last_with(free), last, "rule 7: the finger for {free}");
        }
        let usable = self.arenas.usable().count();
        let with_room = self.arenas.arenas().filter(|(_, arena)| arena.free_pools() > 0);
        assert_eq!(usable, with_room.count(), "rule 6: every arena with a free pool is usable");
    }

    /// Rule 8.
    fn check_may_stay(&self, arena: &Arena) {
        let kept = G::KEEP_LAST_ARENA && arena.next.is_none();
        assert!(kept || !arena.is_empty::<G>(), "rule 8: an empty arena has gone");
    }
}

/// Rules 1 and 2.
fn check_pool<G: Geometry>(pool: PoolPtr) {
    let header = pool.header();
    let Some(class) = header.class::<G>() else {
        assert_eq!(header.state(), State::Empty, "a pool without a class is empty");
        return;
    };
    let (first, capacity) = (header.first_offset(), header.capacity(class));
    let is_first = pool.start::<G>().addr().get().is_multiple_of(G::ARENA_SIZE);
    let before = if is_first { Shape::<G>::BEFORE_FIRST_POOL } else { Shape::<G>::BEFORE_POOL };
    assert_eq!(first, before, "rule 1: blocks begin behind the headers");
    let mut listed = 0;
    for block in header.free_blocks() {
        let offset = block.addr().get().wrapping_sub(pool.start::<G>().addr().get());
        assert!(offset >= first && offset < G::POOL_SIZE, "rule 1: a block of this pool");
        assert_eq!((offset - first) % class.block_size(), 0, "rule 1: no gaps");
        listed += 1;
        assert!(listed <= capacity, "rule 2: the free list ends");
    }
    let known = header.in_use::<G>() + listed + header.virgin::<G>();
    assert_eq!(known, capacity, "rule 2: every block is somewhere");
    match header.state() {
        State::Empty | State::Idle => {
            assert_eq!(header.in_use::<G>(), 0, "rule 3: empty means none in use");
        }
        State::Resting => {}
        State::Used | State::Full => assert!(header.in_use::<G>() > 0, "rule 3: used means in use"),
    }
    if header.state() == State::Full {
        assert!(header.has_run_out::<G>(), "rule 3: a full pool has nothing to give");
    }
}
