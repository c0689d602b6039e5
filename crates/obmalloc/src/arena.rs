//! The record of an arena, which says which of its pools are free. It is not part of the arena.
//!
//! ```text
//!  ├────────┬────────┬────────┬────────┬─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!  │ in use │ free   │ in use │ free   │ uncarved           │
//!  ├────────┴────────┴────────┴────────┴─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!               └─ list of free pools, latest first ─┘
//! ```
//!
//! A free pool is used again before a new one is carved, so memory is not touched before it is
//! needed. Uncarved pools count as free. CPython: `arena_object`.

use core::ptr::NonNull;

pub(crate) mod map;
pub(crate) mod slots;
pub(crate) mod table;

use crate::{
    geometry::{Geometry, shape::Shape},
    pool::{PoolPtr, arena_index::ArenaIndex, tag::HeapTag},
};

/// The record of an arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena {
    /// # Invariant
    ///
    /// The arena's first byte, valid for reading and writing all of it. `None` if the record is
    /// unused.
    base: Option<NonNull<u8>>,
    /// The number of pools that were carved. They are the first ones.
    carved: u32,
    /// The number of free pools, including those that are uncarved.
    free_pools: u32,
    /// The carved free pools, latest first.
    free: Option<PoolPtr>,
    /// The neighbours in the list of usable arenas. In an unused record, `next` is the next unused
    /// one.
    pub(crate) next: Option<ArenaIndex>,
    pub(crate) prev: Option<ArenaIndex>,
}

impl Arena {
    /// A record without an arena.
    pub(crate) const UNUSED: Self =
        Self { base: None, carved: 0, free_pools: 0, free: None, next: None, prev: None };

    /// Makes this the record of the arena at `base`, all of whose pools are uncarved.
    ///
    /// # Safety
    ///
    /// `base` must point to `arena_size` bytes, aligned to that size and valid for reading and
    /// writing. Nothing else may use them until [`clear`](Self::clear) is called.
    pub(crate) unsafe fn set<G: Geometry>(&mut self, base: NonNull<u8>) {
        // INVARIANT: the contract of this function.
        *self = Self { base: Some(base), free_pools: Shape::<G>::POOLS as u32, ..Self::UNUSED };
    }

    /// Makes the record unused. Returns the first byte of its arena.
    pub(crate) fn clear(&mut self) -> Option<NonNull<u8>> {
        core::mem::replace(self, Self::UNUSED).base
    }

    /// Returns the arena's first byte, or `None` if the record is unused.
    pub(crate) fn base(&self) -> Option<NonNull<u8>> {
        self.base
    }

    /// Returns the number of free pools.
    pub(crate) fn free_pools(&self) -> usize {
        self.free_pools as usize
    }

    /// Returns the number of pools that were carved.
    pub(crate) fn carved_pools(&self) -> usize {
        self.carved as usize
    }

    /// Returns true if no pool is in use.
    pub(crate) fn is_free<G: Geometry>(&self) -> bool {
        self.free_pools() == Shape::<G>::POOLS
    }

    /// Takes the pool that was freed last, or carves the next one.
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
        // SAFETY: fewer pools are carved than fit the arena, so the next one is inside of it.
        let start = unsafe { base.add(self.carved_pools() * G::SIZES.pool_size) };
        self.carved += 1;
        // SAFETY: by the invariant of `base`, the arena is valid and aligned. Pools are carved in
        // ascending order, so none was carved here before.
        Some(unsafe { PoolPtr::carve::<G>(start, index, tag) })
    }

    /// Puts a free `pool` at the front of the list.
    pub(crate) fn put_pool(&mut self, pool: PoolPtr) {
        pool.header().next.set(self.free);
        self.free = Some(pool);
        self.free_pools += 1;
    }

    /// Iterates over the carved free pools, latest first.
    pub(crate) fn list(&self) -> impl Iterator<Item = PoolPtr> {
        core::iter::successors(self.free, |pool| pool.header().next.get())
    }

    /// Iterates over all carved pools, in ascending order of address.
    pub(crate) fn pools<G: Geometry>(&self) -> impl Iterator<Item = PoolPtr> + use<G> {
        let base = self.base.filter(|_| self.carved > 0);
        (0..self.carved_pools()).filter_map(move |nth| {
            // SAFETY: the first `carved` pools were carved, and the arena is mapped while the record
            // is in use.
            base.map(|base| unsafe { PoolPtr::carved_at::<G>(base.add(nth * G::SIZES.pool_size)) })
        })
    }
}
