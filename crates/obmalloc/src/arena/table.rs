//! The arenas of a heap. The table knows which arena provides the next pool, and which arenas can
//! be unmapped.
//!
//! ```text
//!   unused ──► record ──► record                    (records without an arena)
//!
//!   usable ──► 1 free ⇄ 1 free ⇄ 4 free ⇄ 9 free    (ascending by number of free pools)
//!                         ▲        ▲        ▲
//!   last_with:           [1]      [4]      [9]      (the last arena with each number)
//! ```
//!
//! Pools are taken from the first usable arena. It is the fullest, so the other arenas get a chance
//! to become free. When a pool comes back to an arena with n free pools, the arena has n + 1 of
//! them and must move behind all arenas with n. `last_with[n]` is the last of these, so each move
//! is O(1). CPython: `usable_arenas`, `unused_arena_objects`, `nfp2lasta`.

use core::ptr::NonNull;

use raw_mem::MemAlloc;

use crate::{
    arena::{Arena, slots::ArenaSlots},
    geometry::{Geometry, MAX_POOLS, shape::Shape},
    pool::{PoolPtr, arena_index::ArenaIndex, tag::HeapTag},
};

/// The numbers of arenas that are and were mapped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ArenaCounts {
    /// The number of arenas that were ever mapped. CPython: `ntimes_arena_allocated`.
    pub(crate) allocated: usize,
    /// The largest number of arenas that were mapped at the same time. CPython:
    /// `narenas_highwater`.
    pub(crate) highwater: usize,
    /// The number of arenas that are mapped now. CPython: `narenas_currently_allocated`.
    pub(crate) current: usize,
}

/// The records of all arenas, and the lists that the records are in.
#[derive(Debug)]
pub(crate) struct ArenaTable {
    slots: ArenaSlots,
    /// The list of unused records. The record that was used last is the first.
    unused: Option<ArenaIndex>,
    /// The list of arenas with a free pool, in ascending order of free pools.
    usable: Option<ArenaIndex>,
    /// For each number of free pools, the last usable arena that has this number.
    last_with: [Option<ArenaIndex>; MAX_POOLS + 1],
    /// The number of free arenas that the heap retains with the permission of its source.
    retained: usize,
    counts: ArenaCounts,
}

impl ArenaTable {
    pub(crate) const fn new() -> Self {
        Self {
            slots: ArenaSlots::new(),
            unused: None,
            usable: None,
            last_with: [None; MAX_POOLS + 1],
            retained: 0,
            counts: ArenaCounts { allocated: 0, highwater: 0, current: 0 },
        }
    }

    /// Makes sure that an unused record exists for the next arena. Returns false if the layer below
    /// has no memory for more records.
    pub(crate) fn reserve<A: MemAlloc>(&mut self, lower: &A) -> bool {
        if self.unused.is_some() {
            return true;
        }
        let Some(new) = self.slots.grow(lower) else { return false };
        for index in new.rev() {
            self.push_unused(ArenaIndex::new(index));
        }
        true
    }

    /// Adds the new arena at `base`, which becomes the only usable one.
    ///
    /// # Safety
    ///
    /// - The contract of [`Arena::set`] must hold for `base`.
    /// - No arena may be usable, and a record must have been [reserved](Self::reserve).
    pub(crate) unsafe fn add<G: Geometry>(&mut self, base: NonNull<u8>) {
        debug_assert_eq!(self.usable, None);
        let Some(index) = self.unused else { return };
        self.unused = self.slots[index].next;
        // SAFETY: the caller guarantees the contract of `set` (contract of this function).
        unsafe { self.slots[index].set::<G>(base) };
        self.usable = Some(index);
        self.last_with[Shape::<G>::POOLS] = Some(index);
        self.counts.allocated += 1;
        self.counts.current += 1;
        self.counts.highwater = self.counts.highwater.max(self.counts.current);
    }

    /// Takes a free pool of the fullest usable arena. Returns `None` if no arena is usable. If the
    /// fullest arena is one that the heap retained, it no longer counts as retained.
    pub(crate) fn take_pool<G: Geometry>(&mut self, tag: HeapTag) -> Option<PoolPtr> {
        let index = self.usable?;
        let free = self.slots[index].free_pools();
        let pool = self.slots[index].take_pool::<G>(index, tag)?;
        if free == Shape::<G>::POOLS {
            self.retained = self.retained.saturating_sub(1);
        }
        // The arena was the fullest, so no other arena has as few free pools as this one has now.
        // The order of the list is therefore unchanged.
        self.leave_last_with(index, free);
        if free > 1 {
            self.last_with[free - 1] = Some(index);
        } else {
            self.unlink(index);
        }
        Some(pool)
    }

    /// Puts a free pool back into its arena, whose pools may all be free afterwards. Such an arena
    /// stays if it is the last usable one and the geometry retains that one. Otherwise `retain` is
    /// called with the number of retained arenas, and returns true if this arena may be retained as
    /// well. If it returns false, the arena leaves the table, and this function returns its first
    /// byte. The caller must then unmap the arena.
    pub(crate) fn put_pool<G: Geometry>(
        &mut self,
        pool: PoolPtr,
        retain: impl FnOnce(usize) -> bool,
    ) -> Option<NonNull<u8>> {
        let index = pool.header().arena();
        let free = self.slots[index].free_pools();
        let is_last = free > 0 && self.slots[index].next.is_none();
        let last_of_its_number = self.last_with[free];
        self.leave_last_with(index, free);
        self.slots[index].put_pool(pool);
        if self.slots[index].is_free::<G>() && !(G::RULES.retain_last_arena && is_last) {
            if !retain(self.retained) {
                self.unlink(index);
                return self.remove(index);
            }
            self.retained += 1;
        }
        if free == 0 {
            self.push_front(index);
        } else if let Some(last) = last_of_its_number
            && last != index
        {
            self.unlink(index);
            self.insert_behind(last, index);
        }
        self.last_with[free + 1].get_or_insert(index);
        None
    }

    /// Returns true if, after a pool comes back to the arena at `index`, that arena would still be
    /// mapped and would provide the next pool that is taken.
    pub(crate) fn would_be_next<G: Geometry>(&self, index: ArenaIndex) -> bool {
        let free = self.slots[index].free_pools();
        // The arena is the fullest. No other arena has as few free pools, so it is still the
        // fullest with one more free pool.
        let stays_first = self.usable == Some(index) && self.last_with[free] == Some(index);
        (free == 0 || stays_first) && !self.could_be_free::<G>(index, 1)
    }

    /// Returns true if the arena at `index` could be unmapped after `pools` pools have come back to
    /// it.
    pub(crate) fn could_be_free<G: Geometry>(&self, index: ArenaIndex, pools: usize) -> bool {
        let arena = &self.slots[index];
        let is_last = arena.free_pools() > 0 && arena.next.is_none();
        let could_be_free = arena.free_pools() + pools >= Shape::<G>::POOLS;
        could_be_free && !(G::RULES.retain_last_arena && is_last)
    }

    /// Returns how many free arenas the heap retains with the permission of its source.
    pub(crate) fn retained(&self) -> usize {
        self.retained
    }

    /// Removes an arena whose pools are all free from the table. If the heap retains free arenas,
    /// it is one of these. Returns the first byte of the arena, or `None` if no arena is free.
    pub(crate) fn remove_free<G: Geometry>(&mut self) -> Option<NonNull<u8>> {
        let free = Shape::<G>::POOLS;
        let index = self.last_with[free]?;
        self.retained = self.retained.saturating_sub(1);
        self.leave_last_with(index, free);
        self.unlink(index);
        self.remove(index)
    }

    /// Removes every arena from the table, calls `unmap` with the first byte of each, and frees the
    /// records. O(arenas).
    pub(crate) fn clear<A: MemAlloc>(&mut self, lower: &A, mut unmap: impl FnMut(NonNull<u8>)) {
        for index in 0..self.slots.all().len() {
            if let Some(base) = self.slots[ArenaIndex::new(index)].clear() {
                unmap(base);
            }
        }
        self.slots.free(lower);
        let counts = ArenaCounts { current: 0, ..self.counts };
        *self = Self { counts, ..Self::new() };
    }

    /// Makes the record at `index` unused. The record must be in no list. Returns the first byte of
    /// its arena.
    fn remove(&mut self, index: ArenaIndex) -> Option<NonNull<u8>> {
        let base = self.slots[index].clear();
        self.push_unused(index);
        self.counts.current -= 1;
        base
    }

    /// Updates `last_with` before the arena at `index`, which has `free` free pools, gets another
    /// number of them. If the arena is the last one with `free` free pools, `last_with[free]`
    /// becomes the arena before it if that one has as many, or `None`.
    fn leave_last_with(&mut self, index: ArenaIndex, free: usize) {
        if self.last_with[free] == Some(index) {
            let before = self.slots[index].prev;
            self.last_with[free] = before.filter(|before| self.slots[*before].free_pools() == free);
        }
    }

    fn push_unused(&mut self, index: ArenaIndex) {
        self.slots[index].next = self.unused;
        self.unused = Some(index);
    }

    fn push_front(&mut self, index: ArenaIndex) {
        self.slots[index].next = self.usable;
        self.slots[index].prev = None;
        if let Some(first) = self.usable {
            self.slots[first].prev = Some(index);
        }
        self.usable = Some(index);
    }

    fn insert_behind(&mut self, place: ArenaIndex, index: ArenaIndex) {
        let next = self.slots[place].next;
        self.slots[index].next = next;
        self.slots[index].prev = Some(place);
        if let Some(next) = next {
            self.slots[next].prev = Some(index);
        }
        self.slots[place].next = Some(index);
    }

    fn unlink(&mut self, index: ArenaIndex) {
        let Arena { next, prev, .. } = self.slots[index];
        if let Some(next) = next {
            self.slots[next].prev = prev;
        }
        match prev {
            Some(prev) => self.slots[prev].next = next,
            None => self.usable = next,
        }
        (self.slots[index].next, self.slots[index].prev) = (None, None);
    }

    /// Iterates over the records of all mapped arenas.
    pub(crate) fn arenas(&self) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        let indexed = self.slots.all().iter().enumerate();
        indexed
            .map(|(index, arena)| (ArenaIndex::new(index), arena))
            .filter(|(_, arena)| arena.base().is_some())
    }

    /// Iterates over the usable arenas, fullest first.
    pub(crate) fn usable(&self) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        self.list(self.usable)
    }

    /// Iterates over the unused records, in the order in which they will be used.
    pub(crate) fn unused(&self) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        self.list(self.unused)
    }

    fn list(&self, first: Option<ArenaIndex>) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        let step = |index: &ArenaIndex| self.slots[*index].next;
        core::iter::successors(first, step).map(|index| (index, &self.slots[index]))
    }

    /// Returns the number of all records, whether they describe an arena or are unused.
    pub(crate) fn records(&self) -> usize {
        self.slots.all().len()
    }

    /// Returns the last arena in the list of usable arenas that has `free` free pools.
    pub(crate) fn last_with(&self, free: usize) -> Option<ArenaIndex> {
        self.last_with[free]
    }

    /// Returns the numbers of arenas that are and were mapped.
    pub(crate) fn counts(&self) -> ArenaCounts {
        self.counts
    }
}
