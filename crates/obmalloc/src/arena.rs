//! An arena's record: which of its pools are free. It lies apart from the arena's memory.
//!
//! ```text
//!  ├────────┬────────┬────────┬────────┬─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!  │ in use │ empty  │ in use │ empty  │ not carved yet     │
//!  ├────────┴────────┴────────┴────────┴─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!               └─ empty pools, last emptied first ─┘
//! ```
//!
//! Free pools are those two kinds together. An empty pool is used again before a new one is
//! carved, so that memory is not touched before it is needed. CPython: `arena_object`.

use core::ptr::NonNull;

use crate::{
    arena_table::ArenaIndex,
    geometry::{Geometry, Shape},
    heap::HeapTag,
    pool::PoolPtr,
};

/// An arena's record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena {
    /// # Invariant
    ///
    /// The arena's first byte, valid for reading and writing all of it; `None` while the record
    /// is unused.
    base: Option<NonNull<u8>>,
    /// Pools carved so far, which are the first ones.
    carved: u32,
    /// Free pools: empty or not carved yet.
    free_pools: u32,
    /// Pools that stay idle with their class.
    idle_pools: u32,
    /// The empty pools, last emptied first.
    empty: Option<PoolPtr>,
    /// The neighbours in the list of usable arenas; `next` also links the unused records.
    pub(crate) next: Option<ArenaIndex>,
    pub(crate) prev: Option<ArenaIndex>,
}

impl Arena {
    /// A record without memory.
    pub(crate) const UNUSED: Self = Self {
        base: None,
        carved: 0,
        free_pools: 0,
        idle_pools: 0,
        empty: None,
        next: None,
        prev: None,
    };

    /// Gives the record memory: an arena with all pools free.
    ///
    /// # Safety
    ///
    /// `base` points to `ARENA_SIZE` bytes, aligned to that, valid for reading and writing, and
    /// in nobody's use until the record is emptied by [`Arena::leave`].
    pub(crate) unsafe fn enter<G: Geometry>(&mut self, base: NonNull<u8>) {
        // INVARIANT: the caller's promise.
        *self = Self { base: Some(base), free_pools: Shape::<G>::POOLS as u32, ..Self::UNUSED };
    }

    /// Takes the memory out of the record.
    pub(crate) fn leave(&mut self) -> Option<NonNull<u8>> {
        core::mem::replace(self, Self::UNUSED).base
    }

    /// The arena's first byte, if the record has memory.
    pub(crate) fn base(&self) -> Option<NonNull<u8>> {
        self.base
    }

    /// The free pools.
    pub(crate) fn free_pools(&self) -> usize {
        self.free_pools as usize
    }

    /// The pools carved so far.
    pub(crate) fn carved_pools(&self) -> usize {
        self.carved as usize
    }

    /// No pool is in use.
    pub(crate) fn is_empty<G: Geometry>(&self) -> bool {
        self.free_pools() == Shape::<G>::POOLS
    }

    /// The pools that stay idle with their class.
    pub(crate) fn idle_pools(&self) -> usize {
        self.idle_pools as usize
    }

    /// No pool is in use, and some are idle.
    pub(crate) fn is_at_rest<G: Geometry>(&self) -> bool {
        self.idle_pools > 0 && self.free_pools() + self.idle_pools() == Shape::<G>::POOLS
    }

    /// A pool becomes idle.
    pub(crate) fn add_idle(&mut self) {
        self.idle_pools += 1;
    }

    /// An idle pool is used again, or becomes free.
    pub(crate) fn remove_idle(&mut self) {
        self.idle_pools -= 1;
    }

    /// Takes the pool that was emptied last, or carves the next one.
    pub(crate) fn take_pool<G: Geometry>(
        &mut self,
        index: ArenaIndex,
        tag: HeapTag,
    ) -> Option<PoolPtr> {
        let pool = match self.empty {
            Some(pool) => {
                self.empty = pool.header().next.take();
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
        // SAFETY: fewer pools are carved than fit the arena, so the next begins inside of it.
        let start = unsafe { base.add(self.carved_pools() * G::POOL_SIZE) };
        self.carved += 1;
        // SAFETY: the arena is ours to write, its base is a multiple of the pool's size, and no
        // pool was carved here before.
        Some(unsafe { PoolPtr::carve::<G>(start, index, tag) })
    }

    /// Puts an emptied `pool` before the other empty ones.
    pub(crate) fn give_pool(&mut self, pool: PoolPtr) {
        pool.header().next.set(self.empty);
        self.empty = Some(pool);
        self.free_pools += 1;
    }

    /// The empty pools, last emptied first.
    pub(crate) fn empty_pools(&self) -> impl Iterator<Item = PoolPtr> {
        core::iter::successors(self.empty, |pool| pool.header().next.get())
    }

    /// Every carved pool, in ascending order of address.
    pub(crate) fn pools<G: Geometry>(&self) -> impl Iterator<Item = PoolPtr> + use<G> {
        let base = self.base.filter(|_| self.carved > 0);
        (0..self.carved_pools()).filter_map(move |nth| {
            // SAFETY: the first `carved` pools of the arena are carved, and the arena is mapped
            // while the record has it.
            base.map(|base| unsafe { PoolPtr::carved_at::<G>(base.add(nth * G::POOL_SIZE)) })
        })
    }
}
