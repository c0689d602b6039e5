//! The searches for free blocks of full pools, which a heap makes when it gets no arena.
//!
//! Such a search visits every pool. If each refused request made one, a program whose requests then
//! go to another allocator would spend most of its time in these searches. A search that finds
//! nothing therefore has to be paid off: each refused request pays for the visits of
//! [`PAID_BY_REQUEST`] pools. Until then, no class makes a second search, unless the heap has
//! unmapped its free arenas in the meantime. A heap with few pools searches in every request.

#![cfg_attr(not(test), forbid(unsafe_code))]

use crate::{
    geometry::{Geometry, size_class::SizeClass},
    heap::empty_pools::ClassSet,
};

/// The number of visited pools that one refused request pays for.
const PAID_BY_REQUEST: usize = 256;

/// The searches that have found nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Searches {
    /// The number of visits that are not paid for yet.
    unpaid: usize,
    /// The classes that have searched since `unpaid` was 0.
    classes: ClassSet,
}

impl Searches {
    pub(crate) const NONE: Self = Self { unpaid: 0, classes: ClassSet::EMPTY };

    /// Records a refused request. Returns true if `class` may search.
    pub(crate) fn may_begin<G: Geometry>(&mut self, class: SizeClass<G>) -> bool {
        self.unpaid = self.unpaid.saturating_sub(PAID_BY_REQUEST);
        if self.unpaid == 0 {
            *self = Self::NONE;
        }
        !self.classes.contains(class)
    }

    /// Records that a search for a pool of `class` has visited `pools` pools and has found none.
    pub(crate) fn note_failed<G: Geometry>(&mut self, class: SizeClass<G>, pools: usize) {
        self.unpaid += pools;
        self.classes.insert(class);
    }
}

/// Counts nothing, because only tests need the number of visits.
#[cfg(not(test))]
pub(crate) mod visits {
    #[inline]
    pub(crate) fn count() {}
}

/// Counts how many pools the calling thread has visited.
#[cfg(test)]
pub(crate) mod visits {
    use core::cell::Cell;

    std::thread_local! {
        static VISITS: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn count() {
        VISITS.set(VISITS.get() + 1);
    }

    /// Returns the number of visits during `body`.
    pub(crate) fn during(body: impl FnOnce()) -> usize {
        let before = VISITS.get();
        body();
        VISITS.get() - before
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use raw_mem::{LimitedArenas, Limits, Malloc, MmapArenas};

    use super::*;
    use crate::{Native, heap::Heap, pool::block::BlockPtr};

    type TestHeap = Heap<LimitedArenas<MmapArenas>, Malloc, Native>;

    /// The number of arenas of a full heap.
    const ARENAS: usize = 32;

    /// The number of pools of a full heap.
    const POOLS: usize = ARENAS * 64;

    fn class() -> SizeClass<Native> {
        SizeClass::of(1024).unwrap()
    }

    fn other() -> SizeClass<Native> {
        SizeClass::of(512).unwrap()
    }

    /// Creates a heap that has used up its memory, and returns its blocks of 1024 bytes.
    fn full_heap() -> (TestHeap, Vec<BlockPtr>) {
        let source = LimitedArenas::new(MmapArenas::new(), Limits::hard(ARENAS << 20));
        let mut heap = Heap::with_geometry(source, Malloc);
        let blocks = core::iter::from_fn(|| heap.alloc(class())).collect();
        // A few blocks of this class may fit where no pool of the other class does.
        while heap.alloc(other()).is_some() {}
        (heap, blocks)
    }

    /// Regression test: every request without an arena visited all pools.
    #[test]
    fn a_heap_without_memory_visits_few_pools_in_each_request() {
        const REQUESTS: usize = 1000;
        let (mut heap, _blocks) = full_heap();
        let visits = visits::during(|| {
            for nth in 0..REQUESTS {
                assert!(heap.alloc(if nth % 2 == 0 { class() } else { other() }).is_none());
            }
        });
        assert!(visits <= 2 * POOLS + REQUESTS * PAID_BY_REQUEST, "{visits} visits");
    }

    #[test]
    fn a_free_block_of_a_full_pool_is_found_after_some_requests() {
        let (mut heap, mut blocks) = full_heap();
        // SAFETY: the block came from this heap, and is not used again.
        unsafe { heap.free(blocks.swap_remove(0)) };
        let refused = (0..).take_while(|_| heap.alloc(class()).is_none()).count();
        // Both classes have searched.
        assert!(refused <= 2 * POOLS / PAID_BY_REQUEST, "{refused} requests");
        heap.check_invariants();
    }

    #[test]
    fn a_free_block_of_a_full_pool_is_found_at_once_after_free_arenas_are_unmapped() {
        let (mut heap, mut blocks) = full_heap();
        // SAFETY: the block came from this heap, and is not used again.
        unsafe { heap.free(blocks.swap_remove(0)) };
        heap.unmap_free_arenas();
        assert!(heap.alloc(class()).is_some());
    }

    #[test]
    fn another_class_may_search_at_once() {
        let mut searches = Searches::NONE;
        let [first, second] = [16, 64].map(|size| SizeClass::<Native>::of(size).unwrap());
        assert!(searches.may_begin(first));
        searches.note_failed(first, 3 * PAID_BY_REQUEST);
        assert!(!searches.may_begin(first) && searches.may_begin(second));
        searches.note_failed(second, 1);
        assert!(!searches.may_begin(second));
        assert!(searches.may_begin(first));
    }
}
