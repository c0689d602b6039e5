//! The record of an arena. It stores which of the arena's pools are free, and lies outside of the
//! arena.
//!
//! ```text
//!  ├────────┬────────┬────────┬────────┬─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!  │ in use │ free   │ in use │ free   │ uncarved           │
//!  ├────────┴────────┴────────┴────────┴─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!               └─ list of free pools, latest first ─┘
//! ```
//!
//! A pool is carved (given a header) when it is needed for the first time. Pools that have not been
//! carved yet count as free. A carved pool that has become free is reused before a new pool is
//! carved, so the heap touches new memory only if no carved pool is free. CPython: `arena_object`.
//!
//! Under [`RetainRule::EachClass`] a size class prefers a free pool that it used before. Its blocks
//! then begin at the same addresses as the previous blocks of the pool. The cache lines at these
//! addresses are more likely to be in the cache than those at which blocks of another size would
//! begin.

use core::ptr::NonNull;

pub(crate) mod map;
pub(crate) mod slots;
pub(crate) mod table;

use crate::{
    geometry::{Geometry, RetainRule, shape::Shape, size_class::SizeClass},
    pool::{PoolPtr, arena_index::ArenaIndex, tag::HeapTag},
};

/// The number of free pools that are searched for one that belonged to the same size class before.
/// Their headers are adjacent, so the search is short in comparison to the time in which a pool
/// serves blocks.
const MAX_SEARCHED: usize = 32;

/// The record of an arena, or an unused record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena {
    /// # Invariant
    ///
    /// A pointer to the arena's first byte, which is valid for reading and writing the whole arena,
    /// or `None` if the record is unused.
    base: Option<NonNull<u8>>,
    /// The number of pools that were carved. Pools are carved in ascending order of address, so the
    /// carved pools are the first `carved` pools of the arena.
    carved: u32,
    /// The number of free pools, including those that are not carved yet.
    free_pools: u32,
    /// The list of those free pools that are carved. The pool that was freed last comes first.
    free: Option<PoolPtr>,
    /// The next and the previous record in the list of usable arenas. In an unused record, `next`
    /// is instead the next record in the list of unused records.
    pub(crate) next: Option<ArenaIndex>,
    pub(crate) prev: Option<ArenaIndex>,
}

impl Arena {
    /// An unused record, which describes no arena.
    pub(crate) const UNUSED: Self =
        Self { base: None, carved: 0, free_pools: 0, free: None, next: None, prev: None };

    /// Makes this record describe the arena at `base`. No pool of the arena is carved at first.
    ///
    /// # Safety
    ///
    /// `base` must point to `arena_size` bytes that are aligned to that size and valid for reading
    /// and writing. Nothing else may use these bytes until [`clear`](Self::clear) is called.
    pub(crate) unsafe fn set<G: Geometry>(&mut self, base: NonNull<u8>) {
        // INVARIANT: `base` is valid for the whole arena (contract of this function).
        *self = Self { base: Some(base), free_pools: Shape::<G>::POOLS as u32, ..Self::UNUSED };
    }

    /// Makes the record unused. Returns the first byte of the arena that it described.
    pub(crate) fn clear(&mut self) -> Option<NonNull<u8>> {
        core::mem::replace(self, Self::UNUSED).base
    }

    /// Returns a pointer to the arena's first byte, or `None` if the record is unused.
    pub(crate) fn base(&self) -> Option<NonNull<u8>> {
        self.base
    }

    /// Returns the number of free pools.
    pub(crate) fn free_pools(&self) -> usize {
        self.free_pools as usize
    }

    /// Returns the number of pools of the arena that were carved.
    pub(crate) fn carved_pools(&self) -> usize {
        self.carved as usize
    }

    /// Returns true if all pools of the arena are free.
    pub(crate) fn is_free<G: Geometry>(&self) -> bool {
        self.free_pools() == Shape::<G>::POOLS
    }

    /// Takes a free pool for `class`, which is a pool that was freed or, if there is none, the next
    /// pool that can be carved. Returns `None` if no pool is free.
    pub(crate) fn take_pool<G: Geometry>(
        &mut self,
        index: ArenaIndex,
        tag: HeapTag,
        class: SizeClass<G>,
    ) -> Option<PoolPtr> {
        let pool = match self.take_freed(class) {
            Some(pool) => pool,
            None => self.carve_pool::<G>(index, tag)?,
        };
        self.free_pools -= 1;
        Some(pool)
    }

    /// Takes a pool off the list of free pools, or returns `None` if the list is empty. This is the
    /// pool that was freed last, as in CPython. Under [`RetainRule::EachClass`] a pool that
    /// belonged to `class` before it was freed is preferred to it.
    fn take_freed<G: Geometry>(&mut self, class: SizeClass<G>) -> Option<PoolPtr> {
        let first = self.free?;
        if G::RULES.retain == RetainRule::EachClass
            && let Some((before, pool)) = self.find_behind(first, class)
        {
            before.header().next.set(pool.header().next.take());
            return Some(pool);
        }
        self.free = first.header().next.take();
        Some(first)
    }

    /// Searches the pools behind `first`, which is the first free pool, for one that belonged to
    /// `class` before it was freed. Returns the pool before it in the list, and the pool. Returns
    /// `None` if `first` belonged to `class` itself. O([`MAX_SEARCHED`]).
    fn find_behind<G: Geometry>(
        &self,
        first: PoolPtr,
        class: SizeClass<G>,
    ) -> Option<(PoolPtr, PoolPtr)> {
        let belonged = |pool: PoolPtr| pool.header().class() == Some(class);
        if belonged(first) {
            return None;
        }
        let mut before = first;
        for pool in self.list().skip(1).take(MAX_SEARCHED) {
            if belonged(pool) {
                return Some((before, pool));
            }
            before = pool;
        }
        None
    }

    fn carve_pool<G: Geometry>(&mut self, index: ArenaIndex, tag: HeapTag) -> Option<PoolPtr> {
        let base = self.base?;
        if self.carved_pools() == Shape::<G>::POOLS {
            return None;
        }
        // SAFETY: fewer pools are carved than the arena has room for, so the next pool lies inside
        // the arena, and `base` is valid for the whole arena (invariant of `base`).
        let start = unsafe { base.add(self.carved_pools() * G::SIZES.pool_size) };
        self.carved += 1;
        // SAFETY: the arena is valid for reading and writing and is aligned (invariant of `base`),
        // so the pool is valid and aligned as well. Pools are carved in ascending order, so no pool
        // was carved at `start` before.
        Some(unsafe { PoolPtr::carve::<G>(start, index, tag) })
    }

    /// Puts `pool`, which has become free, at the front of the list of free pools.
    pub(crate) fn put_pool(&mut self, pool: PoolPtr) {
        pool.header().next.set(self.free);
        self.free = Some(pool);
        self.free_pools += 1;
    }

    /// Iterates over the carved free pools of the arena, starting with the one that was freed last.
    pub(crate) fn list(&self) -> impl Iterator<Item = PoolPtr> {
        core::iter::successors(self.free, |pool| pool.header().next.get())
    }

    /// Iterates over all carved pools of the arena, in ascending order of address.
    pub(crate) fn pools<G: Geometry>(&self) -> impl Iterator<Item = PoolPtr> + use<G> {
        let base = self.base.filter(|_| self.carved > 0);
        (0..self.carved_pools()).filter_map(move |nth| {
            // SAFETY: the first `carved` pools of the arena were carved, and the arena stays mapped
            // as long as its record describes it.
            base.map(|base| unsafe { PoolPtr::carved_at::<G>(base.add(nth * G::SIZES.pool_size)) })
        })
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::{self, NonNull};
    use std::vec::Vec;

    use raw_mem::{Malloc, MmapArenas};

    use crate::{
        geometry::{
            Geometry,
            eras::{Native, Pools16K},
            size_class::SizeClass,
        },
        heap::Heap,
        pool::block::BlockPtr,
    };

    const SIZES: [usize; 4] = [512, 256, 128, 64];

    /// Allocates `pools` pools of blocks of each size, and returns the blocks of each size.
    fn fill<G: Geometry>(heap: &mut Heap<MmapArenas, Malloc, G>, pools: usize) -> Vec<Vec<usize>> {
        let mut blocks = |size: usize| {
            let block = heap.alloc(SizeClass::of(size).unwrap()).unwrap();
            block.into_start().expose_provenance().get()
        };
        let count = |size| (pools * G::SIZES.pool_size - pools * 48) / size;
        SIZES.map(|size| (0..count(size)).map(|_| blocks(size)).collect()).to_vec()
    }

    /// Frees all blocks, fills the heap again, and returns for each size how many blocks are in a
    /// pool that had blocks of this size before, and the number of blocks.
    fn refill<G: Geometry>() -> Vec<(usize, usize)> {
        let mut heap = Heap::<_, _, G>::with_geometry(MmapArenas::new(), Malloc);
        let before = fill(&mut heap, 3);
        for block in before.iter().flatten() {
            let start = NonNull::new(ptr::with_exposed_provenance_mut(*block)).unwrap();
            // SAFETY: the block was allocated from this heap, and is freed once.
            unsafe { heap.free(BlockPtr::from_start(start)) };
        }
        heap.check_invariants();
        let after = fill(&mut heap, 3);
        heap.check_invariants();
        let pool = |block: &usize| block / G::SIZES.pool_size;
        let in_same = |(before, after): (&Vec<usize>, &Vec<usize>)| {
            let before: Vec<_> = before.iter().map(pool).collect();
            (after.iter().filter(|block| before.contains(&pool(block))).count(), after.len())
        };
        before.iter().zip(&after).map(in_same).collect()
    }

    #[test]
    fn a_class_takes_the_free_pools_that_it_used_before() {
        for (same, all) in refill::<Native>() {
            assert_eq!(same, all);
        }
    }

    #[test]
    fn cpythons_geometry_takes_the_pool_that_was_freed_last() {
        let (same, all) = refill::<Pools16K>()[0];
        assert!(same < all / 2, "{same} of {all} blocks");
    }
}
