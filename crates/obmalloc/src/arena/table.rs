//! The table of a heap's arenas. It determines which arena provides the next pool, and which arenas
//! can be unmapped.
//!
//! ```text
//!   unused ──► record ──► record                    (records without an arena)
//!
//!   usable ──► 1 free ⇄ 1 free ⇄ 4 free ⇄ 9 free    (ascending by number of free pools)
//!                         ▲        ▲        ▲
//!   last_with:           [1]      [4]      [9]      (the last arena with each number)
//! ```
//!
//! Pools are always taken from the first usable arena, which is the fullest. No request takes pools
//! from the other arenas, so all of their pools can become free.
//!
//! When a pool comes back to an arena with n free pools, the arena then has n + 1 free pools. It
//! must move behind all arenas with n free pools, so that the list stays in order. `last_with[n]`
//! leads to the last of these arenas, so each move takes constant time. CPython: `usable_arenas`,
//! `unused_arena_objects`, `nfp2lasta`.

use core::ptr::NonNull;

use raw_mem::MemAlloc;

use crate::{
    arena::{Arena, slots::ArenaSlots},
    geometry::{Geometry, MAX_POOLS, shape::Shape, size_class::SizeClass},
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
    /// The list of unused records. The record that became unused last comes first.
    unused: Option<ArenaIndex>,
    /// The list of arenas with a free pool, in ascending order of free pools.
    usable: Option<ArenaIndex>,
    /// For each number of free pools, the last usable arena that has this number.
    last_with: [Option<ArenaIndex>; MAX_POOLS + 1],
    /// The number of free arenas that the heap retains because its source has allowed it.
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

    /// Makes sure that an unused record exists for the next arena. Returns false if the metadata
    /// allocator `lower` cannot provide memory for more records.
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

    /// Adds the new arena at `base`, which becomes the only usable arena.
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

    /// Takes a free pool for `class` from the fullest usable arena. Returns `None` if no arena is usable. If
    /// the heap had retained this arena although all of its pools were free, the arena no longer
    /// counts as retained.
    pub(crate) fn take_pool<G: Geometry>(
        &mut self,
        tag: HeapTag,
        class: SizeClass<G>,
    ) -> Option<PoolPtr> {
        let index = self.usable?;
        let free = self.slots[index].free_pools();
        let pool = self.slots[index].take_pool(index, tag, class)?;
        if free == Shape::<G>::POOLS {
            self.retained = self.retained.saturating_sub(1);
        }
        // The arena was the fullest, and now has one free pool less. It is therefore still the
        // fullest, and the order of the list does not change.
        self.leave_last_with(index, free);
        if free > 1 {
            self.last_with[free - 1] = Some(index);
        } else {
            self.unlink(index);
        }
        Some(pool)
    }

    /// Puts a free pool back into its arena. If all pools of the arena are free afterwards, this
    /// function decides whether the arena stays in the table:
    ///
    /// - The arena stays if it is the last one in the list of usable arenas and the geometry
    ///   retains that arena.
    /// - Otherwise the function calls `retain` with the number of retained arenas. If `retain`
    ///   returns true, the arena stays, and also counts as retained.
    /// - If `retain` returns false, the arena leaves the table. The function returns a pointer to
    ///   the arena's first byte, and the caller must unmap the arena.
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

    /// Returns true if a pool that comes back to the arena at `index` would be the next pool that
    /// is taken. The arena must then stay mapped and must be the first usable arena.
    pub(crate) fn would_be_next<G: Geometry>(&self, index: ArenaIndex) -> bool {
        let free = self.slots[index].free_pools();
        // The arena is the fullest, and no other arena has the same number of free pools. It
        // therefore still comes first if it gets one more free pool.
        let stays_first = self.usable == Some(index) && self.last_with[free] == Some(index);
        (free == 0 || stays_first) && !self.could_be_free::<G>(index, 1)
    }

    /// Returns true if the arena at `index` could be unmapped after `pools` more of its pools have
    /// become free.
    pub(crate) fn could_be_free<G: Geometry>(&self, index: ArenaIndex, pools: usize) -> bool {
        let arena = &self.slots[index];
        let is_last = arena.free_pools() > 0 && arena.next.is_none();
        let could_be_free = arena.free_pools() + pools >= Shape::<G>::POOLS;
        could_be_free && !(G::RULES.retain_last_arena && is_last)
    }

    /// Returns how many free arenas the heap retains because its source has allowed it.
    pub(crate) fn retained(&self) -> usize {
        self.retained
    }

    /// Removes an arena whose pools are all free from the table, and returns a pointer to its first
    /// byte. Returns `None` if no arena is free. If the heap retains free arenas, one of the
    /// retained arenas is removed.
    pub(crate) fn remove_free<G: Geometry>(&mut self) -> Option<NonNull<u8>> {
        let free = Shape::<G>::POOLS;
        let index = self.last_with[free]?;
        self.retained = self.retained.saturating_sub(1);
        self.leave_last_with(index, free);
        self.unlink(index);
        self.remove(index)
    }

    /// Removes every arena from the table, calls `unmap` with a pointer to the first byte of each
    /// arena, and frees the records. O(arenas).
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

    /// Makes the record at `index` unused. The record must be in no list. Returns a pointer to the
    /// first byte of the arena that the record described.
    fn remove(&mut self, index: ArenaIndex) -> Option<NonNull<u8>> {
        let base = self.slots[index].clear();
        self.push_unused(index);
        self.counts.current -= 1;
        base
    }

    /// Updates `last_with` before the number of free pools of the arena at `index` changes from
    /// `free` to another number. If this arena is `last_with[free]`, the arena before it in the
    /// list takes its place, provided that it also has `free` free pools. Otherwise
    /// `last_with[free]` becomes `None`.
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

    /// Returns the number of all records, which includes unused records.
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
