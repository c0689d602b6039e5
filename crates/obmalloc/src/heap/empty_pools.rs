//! The pools that their size class retains when they become empty.
//!
//! A size class does not return its last pool to the arena as soon as this pool becomes empty. If
//! it did, a loop that allocates and frees one block would return a pool in every iteration.
//! Instead, the class retains the empty pool, and releases it when another class needs it. Retained
//! pools may be the only reason why an arena stays mapped. In that case, the arena source decides
//! whether these pools may stay.
//!
//! CPython returns every empty pool to its arena. Under [`RetainRule::Unobservable`], a heap must
//! return the same addresses as CPython, so a size class may retain an empty pool only if nobody
//! can notice it. This is the case if the pool, once returned, would be the next pool that the heap
//! takes: the next class that needs a pool gets this one, whether it was retained or returned.

#![cfg_attr(not(test), forbid(unsafe_code))]

use crate::{
    arena::table::ArenaTable,
    geometry::{Geometry, RetainRule, size_class::SizeClass},
    heap::{
        class_set::{WORDS, place},
        used_pools::UsedPools,
    },
    pool::{PoolPtr, State},
};

/// The size classes that retain pools. A class retains its only used pool, or any number of spans.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EmptyPools {
    /// A bit for each class that may have retained pools.
    classes: [u64; WORDS],
    /// The classes whose retained pools have not changed since the last call of `note_idle`.
    idle: [u64; WORDS],
    /// The classes that may retain the next of their spans that becomes empty.
    ///
    /// Many spans are used only once, so a class does not retain its first span that becomes empty.
    /// This span returns to its arena, and the class is added to the set. If a class has not
    /// retained a pool recently, [`note_idle`](Self::note_idle) removes it from the set.
    freed: [u64; WORDS],
    /// The number of units in the retained pools.
    units: usize,
}

impl EmptyPools {
    pub(crate) const NONE: Self =
        Self { classes: [0; WORDS], idle: [0; WORDS], freed: [0; WORDS], units: 0 };

    /// Returns true if no class retains a pool.
    pub(crate) fn is_none(self) -> bool {
        self.units == 0
    }

    /// Returns the number of units in the retained pools.
    #[cfg(test)]
    pub(crate) fn units(self) -> usize {
        self.units
    }

    #[cfg(test)]
    pub(crate) fn count(self) -> u32 {
        self.classes.iter().map(|word| word.count_ones()).sum()
    }

    /// Stops counting `span` as a retained span of `class`. The caller marks the span as full.
    pub(crate) fn forget<G: Geometry>(
        &mut self,
        class: SizeClass<G>,
        span: PoolPtr,
        arenas: &mut ArenaTable,
    ) {
        self.units -= class.units();
        self.note_used(class);
        arenas.note_released::<G>(span.header().arena(), class.units());
    }

    /// Retains `pool`, which must be empty. It must be a span or the only used pool of `class`.
    pub(crate) fn retain<G: Geometry>(
        &mut self,
        class: SizeClass<G>,
        pool: PoolPtr,
        arenas: &mut ArenaTable,
    ) {
        arenas.note_retained::<G>(pool.header().arena(), class.units());
        self.retain_noted(class, pool);
    }

    /// Retains `pool` as [`retain`](Self::retain) does, but its arena already counts it.
    #[inline]
    pub(crate) fn retain_noted<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        pool.header().become_retained();
        let (word, bit) = place(class);
        self.classes[word] |= bit;
        self.idle[word] &= !bit;
        self.units += class.units();
    }

    fn note_used<G: Geometry>(&mut self, class: SizeClass<G>) {
        let (word, bit) = place(class);
        self.idle[word] &= !bit;
    }

    /// Records that a span of `class` has become empty. Returns true if the class may retain this
    /// span.
    ///
    /// Many spans are used only once. A class may therefore not retain the first span that becomes
    /// empty after a call of [`note_idle`](Self::note_idle), unless it had retained pools shortly
    /// before that call. The class may retain all spans that become empty later.
    pub(crate) fn note_freed<G: Geometry>(&mut self, class: SizeClass<G>) -> bool {
        let (word, bit) = place(class);
        let had_freed = self.freed[word] & bit != 0;
        self.freed[word] |= bit;
        had_freed
    }

    /// Records which classes may have retained pools. Each sweep of the heap calls this function.
    ///
    /// The record has two effects until the next sweep:
    /// - If the retained pools of a recorded class do not change in the meantime, the next sweep
    ///   releases them (see [`end_idle`](Self::end_idle)).
    /// - When a span of a recorded class becomes empty, the class may retain it. A class that is
    ///   not recorded may not retain the first of its spans that becomes empty, because many spans
    ///   are used only once, but may retain all later ones (see [`note_freed`](Self::note_freed)).
    pub(crate) fn note_idle(&mut self) {
        self.idle = self.classes;
        self.freed = self.classes;
    }

    /// Ends the retention of a pool whose class has had the same retained pools since `note_idle`.
    ///
    /// The returned pool is empty and in no list. Returns `None` if there is no such pool.
    pub(crate) fn end_idle<G: Geometry>(
        &mut self,
        used: &mut UsedPools,
        arenas: &mut ArenaTable,
    ) -> Option<PoolPtr> {
        SizeClass::<G>::all().find_map(|class| {
            let (word, bit) = place(class);
            let is_idle = self.classes[word] & self.idle[word] & bit != 0;
            if is_idle { self.end(class, used, arenas) } else { None }
        })
    }

    /// Ends the retention of a pool by `class`, or by any class under [`RetainRule::Unobservable`].
    ///
    /// If the pool has no block in use, removes it from its class's list and returns it.
    #[inline]
    pub(crate) fn end_for<G: Geometry>(
        &mut self,
        class: SizeClass<G>,
        used: &mut UsedPools,
        arenas: &mut ArenaTable,
    ) -> Option<PoolPtr> {
        match G::RULES.retain {
            RetainRule::Unobservable => self.end_any::<G>(used, arenas),
            RetainRule::EachClass => {
                let (word, bit) = place(class);
                if self.classes[word] & bit != 0 { self.end(class, used, arenas) } else { None }
            }
        }
    }

    /// Ends retentions until one of the pools has no block in use, and returns that pool.
    ///
    /// The returned pool is in no list. Returns `None` if no pool is retained any more.
    pub(crate) fn end_any<G: Geometry>(
        &mut self,
        used: &mut UsedPools,
        arenas: &mut ArenaTable,
    ) -> Option<PoolPtr> {
        while let Some(class) = self.first_from::<G>(0) {
            let empty = self.end(class, used, arenas);
            if empty.is_some() {
                return empty;
            }
        }
        None
    }

    /// Ends the retention of a pool that has enough units for a pool of `class`, and returns it.
    ///
    /// Searches the retained pools of `class` first, and then those of classes with larger blocks.
    /// A pool of larger blocks can have fewer units, because a span has only as many units as its
    /// one block needs. The search skips pools that have too few units.
    ///
    /// The returned pool is empty and in no list. Returns `None` if there is no such pool.
    pub(crate) fn end_larger<G: Geometry>(
        &mut self,
        class: SizeClass<G>,
        used: &mut UsedPools,
        arenas: &mut ArenaTable,
    ) -> Option<PoolPtr> {
        let mut from = class.index();
        while let Some(larger) = self.first_from::<G>(from) {
            if larger.units() >= class.units()
                && let Some(empty) = self.end(larger, used, arenas)
            {
                return Some(empty);
            }
            from = larger.index() + 1;
        }
        None
    }

    /// Returns the first class with a number of at least `from` that may have retained pools.
    fn first_from<G: Geometry>(self, from: usize) -> Option<SizeClass<G>> {
        const BITS: usize = u64::BITS as usize;
        let mut word = from / BITS;
        let mut bits = self.classes.get(word)? & (u64::MAX << (from % BITS));
        while bits == 0 {
            word += 1;
            bits = *self.classes.get(word)?;
        }
        SizeClass::from_index(word * BITS + bits.trailing_zeros() as usize)
    }

    fn end<G: Geometry>(
        &mut self,
        class: SizeClass<G>,
        used: &mut UsedPools,
        arenas: &mut ArenaTable,
    ) -> Option<PoolPtr> {
        loop {
            let is_retained = |pool: &PoolPtr| pool.header().state() == State::Retained;
            let Some(pool) = used.iter(class).find(is_retained) else {
                let (word, bit) = place(class);
                self.classes[word] &= !bit;
                return None;
            };
            self.units -= class.units();
            arenas.note_released::<G>(pool.header().arena(), class.units());
            if pool.header().end_retention() {
                used.remove(class, pool);
                return Some(pool);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use raw_mem::{Malloc, MmapArenas};

    use crate::{
        geometry::{
            Geometry,
            eras::{Pools4K, RetainEachClass},
            size_class::SizeClass,
        },
        heap::Heap,
        pool::block::BlockPtr,
    };

    type TestHeap<G> = Heap<MmapArenas, Malloc, G>;

    fn heap<G: Geometry>() -> TestHeap<G> {
        Heap::with_geometry(MmapArenas::new(), Malloc)
    }

    fn alloc<G: Geometry>(heap: &mut TestHeap<G>, size: usize) -> BlockPtr {
        heap.alloc(SizeClass::of(size).unwrap()).unwrap()
    }

    fn free<G: Geometry>(heap: &mut TestHeap<G>, block: BlockPtr) {
        // SAFETY: the tests free each block once, to the heap that allocated it.
        unsafe { heap.free(block) };
        heap.check_invariants();
    }

    #[test]
    fn a_pool_that_is_emptied_and_used_in_turn_does_not_move() {
        let mut heap = heap::<Pools4K>();
        let block = alloc(&mut heap, 64);
        let start = block.start();
        free(&mut heap, block);
        assert_eq!(heap.empty.count(), 1);
        assert_eq!(heap.stats().classes()[3].pools, 0);
        let again = alloc(&mut heap, 64);
        assert_eq!((again.start(), heap.stats().classes()[3].pools), (start, 1));
        free(&mut heap, again);
        let other = alloc(&mut heap, 128);
        assert_eq!((other.start(), heap.empty.count()), (start, 0));
    }

    #[test]
    fn a_pool_is_retained_only_if_it_would_be_taken_next() {
        const PER_POOL: usize = 7;
        let mut heap = heap::<Pools4K>();
        let mut blocks: Vec<_> =
            (0..(2 * 64 + 1) * PER_POOL).map(|_| Some(alloc(&mut heap, 512))).collect();
        let mut empty = |heap: &mut TestHeap<Pools4K>, pool: usize| {
            let pool = &mut blocks[pool * PER_POOL..][..PER_POOL];
            pool.iter_mut().for_each(|block| free(heap, block.take().unwrap()));
            heap.empty.count()
        };
        // No other pool of the first arena is free, so this pool would be taken next.
        assert_eq!(empty(&mut heap, 0), 1);
        // The same holds for a pool of the second arena, although the first one has a free pool.
        assert_eq!(empty(&mut heap, 64), 1);
        // With two free pools, the first arena would come after the second one.
        assert_eq!(empty(&mut heap, 1), 0);
    }

    #[test]
    fn each_class_may_retain_one_pool() {
        let mut heap = heap::<RetainEachClass<Pools4K>>();
        for size in [16, 32, 48, 64] {
            let block = alloc(&mut heap, size);
            free(&mut heap, block);
        }
        assert_eq!(heap.empty.count(), 4);
        let block = alloc(&mut heap, 32);
        assert_eq!((heap.empty.count(), heap.stats().bytes.in_use), (4, 32));
        free(&mut heap, block);
        heap.unmap_free_arenas();
        assert_eq!(heap.stats().arenas.current, 0);
    }

    #[test]
    fn retained_pools_keep_no_arena_mapped_and_serve_before_a_new_one_is_mapped() {
        let mut heap = heap::<RetainEachClass<Pools4K>>();
        let mut blocks = Vec::new();
        for size in (16..=512).step_by(16).cycle() {
            blocks.push(alloc(&mut heap, size));
            if heap.stats().arenas.current == 3 {
                break;
            }
        }
        blocks.into_iter().for_each(|block| free(&mut heap, block));
        assert_eq!(heap.stats().arenas.current, 1);
        let pools = (0..64 * 7).map(|_| alloc(&mut heap, 512)).collect::<Vec<_>>();
        assert_eq!((heap.stats().arenas.current, heap.empty.count()), (1, 0));
        pools.into_iter().for_each(|block| free(&mut heap, block));
    }
}
