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

use core::ptr::NonNull;

pub(crate) mod map;
pub(crate) mod slots;
pub(crate) mod table;

use crate::{
    geometry::{Geometry, shape::Shape},
    pool::{PoolPtr, arena_index::ArenaIndex, tag::HeapTag},
};

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

    /// Takes the free pool that was freed last, or carves the next pool. Returns `None` if no pool
    /// is free.
    pub(crate) fn take_pool<G: Geometry>(
        &mut self,
        index: ArenaIndex,
        tag: HeapTag,
    ) -> Option<PoolPtr> {
        let pool = match self.free {
            Some(pool) => {
                self.free = pool.header().next.take();
                pool
            }
            None => self.carve_pool::<G>(index, tag)?,
        };
        self.free_pools -= 1;
        Some(pool)
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
