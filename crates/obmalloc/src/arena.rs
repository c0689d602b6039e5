//! The record of an arena, which tells which of its pools are free. CPython: `arena_object`.
//!
//! ```text
//!  ├────────┬────────┬────────┬────────┬─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!  │ in use │ free   │ in use │ free   │ uncarved           │
//!  ├────────┴────────┴────────┴────────┴─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!               └─ list of free pools, latest first ─┘
//! ```
//!
//! Uncarved pools are used only if the list is empty, so that the heap touches new memory late.

use core::ptr::NonNull;

pub(crate) mod map;
pub(crate) mod slots;
pub(crate) mod table;

use crate::{
    geometry::{
        Geometry, RetainRule,
        shape::{BlockStart, Shape},
        size_class::SizeClass,
    },
    pool::{PoolPtr, arena_index::ArenaIndex, tag::HeapTag},
};

/// The largest number of free pools that one search visits.
const MAX_SEARCHED: usize = 32;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena {
    /// # Invariant
    ///
    /// Points to an aligned arena that is valid for reading and writing. `None` if unused.
    base: Option<NonNull<u8>>,
    /// The carved pools are the first `carved` pools of the arena.
    carved: u32,
    /// The number of free pools, including uncarved ones.
    free_pools: u32,
    /// The carved free pools. The pool that was freed last comes first.
    free: Option<PoolPtr>,
    /// The neighbours in the list of usable arenas. `next` also links the unused records.
    pub(crate) next: Option<ArenaIndex>,
    pub(crate) prev: Option<ArenaIndex>,
}

impl Arena {
    pub(crate) const UNUSED: Self =
        Self { base: None, carved: 0, free_pools: 0, free: None, next: None, prev: None };

    /// Makes this record describe the arena at `base`, in which no pool is carved.
    ///
    /// # Safety
    ///
    /// - `base` must be aligned to `arena_size`.
    /// - `base` must be valid for reads and writes of `arena_size` bytes.
    /// - Nothing else may use these bytes until [`clear`](Self::clear) is called.
    pub(crate) unsafe fn set<G: Geometry>(&mut self, base: NonNull<u8>) {
        // INVARIANT: `base` is aligned, and valid for the whole arena (contract of `set`).
        *self = Self { base: Some(base), free_pools: Shape::<G>::POOLS as u32, ..Self::UNUSED };
    }

    /// Makes the record unused, and returns the first byte of its arena.
    pub(crate) fn clear(&mut self) -> Option<NonNull<u8>> {
        core::mem::replace(self, Self::UNUSED).base
    }

    pub(crate) fn base(&self) -> Option<NonNull<u8>> {
        self.base
    }

    pub(crate) fn free_pools(&self) -> usize {
        self.free_pools as usize
    }

    pub(crate) fn carved_pools(&self) -> usize {
        self.carved as usize
    }

    pub(crate) fn is_free<G: Geometry>(&self) -> bool {
        self.free_pools() == Shape::<G>::POOLS
    }

    /// Takes a free pool for `class`, or `None` if no pool is free. Carved pools come first.
    pub(crate) fn take_pool<G: Geometry>(
        &mut self,
        index: ArenaIndex,
        tag: HeapTag,
        blocks: BlockStart,
        class: SizeClass<G>,
    ) -> Option<PoolPtr> {
        let pool = match self.take_freed(class) {
            Some(pool) => pool,
            None => self.carve_pool::<G>(index, tag, blocks)?,
        };
        self.free_pools -= 1;
        Some(pool)
    }

    /// Takes the pool that was freed last. [`RetainRule::EachClass`] prefers one that had `class`,
    /// whose blocks may still be cached.
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

    /// Finds a pool behind `first` that had `class`, and the pool before it. O([`MAX_SEARCHED`]).
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

    fn carve_pool<G: Geometry>(
        &mut self,
        index: ArenaIndex,
        tag: HeapTag,
        blocks: BlockStart,
    ) -> Option<PoolPtr> {
        let base = self.base?;
        if self.carved_pools() == Shape::<G>::POOLS {
            return None;
        }
        // SAFETY: the arena has one more pool, and `base` is valid for it (invariant of `base`).
        let start = unsafe { base.add(self.carved_pools() * G::SIZES.pool_size) };
        self.carved += 1;
        // SAFETY: the arena is valid and aligned (invariant of `base`), and no pool is here yet.
        Some(unsafe { PoolPtr::carve::<G>(start, index, tag, blocks) })
    }

    pub(crate) fn put_pool(&mut self, pool: PoolPtr) {
        pool.header().next.set(self.free);
        self.free = Some(pool);
        self.free_pools += 1;
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = PoolPtr> {
        core::iter::successors(self.free, |pool| pool.header().next.get())
    }

    pub(crate) fn pools<G: Geometry>(&self) -> impl Iterator<Item = PoolPtr> + use<G> {
        let base = self.base.filter(|_| self.carved > 0);
        (0..self.carved_pools()).filter_map(move |nth| {
            // SAFETY: the first `carved` pools were carved, and the arena is still mapped.
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

    fn fill<G: Geometry>(heap: &mut Heap<MmapArenas, Malloc, G>, pools: usize) -> Vec<Vec<usize>> {
        let mut blocks = |size: usize| {
            let block = heap.alloc(SizeClass::of(size).unwrap()).unwrap();
            block.into_start().expose_provenance().get()
        };
        let count = |size| (pools * G::SIZES.pool_size - pools * 48) / size;
        SIZES.map(|size| (0..count(size)).map(|_| blocks(size)).collect()).to_vec()
    }

    /// Refills a heap. For each size, counts the blocks that are in the same pools, and all.
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
