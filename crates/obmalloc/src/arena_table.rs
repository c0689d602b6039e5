//! Which arena is used next, and which can go.
//!
//! ```text
//!   unused ──► record ──► record                    (no memory)
//!
//!   usable ──► 1 free ⇄ 1 free ⇄ 4 free ⇄ 9 free    (ascending by free pools)
//!                         ▲        ▲        ▲
//!   last_with:           [1]      [4]      [9]      one finger for each count
//! ```
//!
//! Pools are taken from the first usable arena, the fullest. When a pool comes back to an arena
//! with n free pools, its place is right behind the last arena with n, which the finger knows: so
//! each move is O(1). CPython: `usable_arenas`, `unused_arena_objects`, `nfp2lasta`.

use core::{num::NonZero, ptr::NonNull};

use raw_mem::MemAlloc;

use crate::{
    arena::Arena,
    arena_slots::ArenaSlots,
    geometry::{Geometry, MOST_POOLS, Shape},
    heap::HeapTag,
    pool::PoolPtr,
};

/// The place of an arena's record. The array of records never shrinks, so an index stays good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArenaIndex(
    /// One more than the place, so that no index costs no room.
    NonZero<u32>,
);

impl ArenaIndex {
    /// The index of no arena, for the header of no pool.
    pub(crate) const NONE: Self = Self(NonZero::<u32>::MAX);

    fn new(place: usize) -> Self {
        Self(NonZero::<u32>::MIN.saturating_add(place as u32))
    }

    pub(crate) const fn get(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Arenas ever mapped, at most at once, and now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ArenaCounts {
    /// CPython: `ntimes_arena_allocated`.
    pub(crate) allocated: usize,
    /// CPython: `narenas_highwater`.
    pub(crate) highwater: usize,
    /// CPython: `narenas_currently_allocated`.
    pub(crate) current: usize,
}

/// The records of all arenas, and the lists they are in.
#[derive(Debug)]
pub(crate) struct ArenaTable {
    slots: ArenaSlots,
    /// Records without memory, last used first.
    unused: Option<ArenaIndex>,
    /// Arenas with a free pool, ascending by free pools.
    usable: Option<ArenaIndex>,
    /// For each count of free pools, the last usable arena with that many.
    last_with: [Option<ArenaIndex>; MOST_POOLS + 1],
    /// Arenas at rest: no pool is in use, and some are idle.
    at_rest: usize,
    counts: ArenaCounts,
}

impl ArenaTable {
    pub(crate) const fn new() -> Self {
        Self {
            slots: ArenaSlots::new(),
            unused: None,
            usable: None,
            last_with: [None; MOST_POOLS + 1],
            at_rest: 0,
            counts: ArenaCounts { allocated: 0, highwater: 0, current: 0 },
        }
    }

    /// Makes sure that a record is unused, for an arena that is about to be mapped. False when
    /// the layer below has no memory for more records.
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

    /// Enters an arena that was mapped just now, as the only usable one.
    ///
    /// # Safety
    ///
    /// As for [`Arena::enter`]. No arena is usable, and a record was reserved.
    pub(crate) unsafe fn enter<G: Geometry>(&mut self, base: NonNull<u8>) {
        debug_assert_eq!(self.usable, None);
        let Some(index) = self.unused else { return };
        self.unused = self.slots[index].next;
        // SAFETY: the caller's promise.
        unsafe { self.slots[index].enter::<G>(base) };
        self.usable = Some(index);
        self.last_with[Shape::<G>::POOLS] = Some(index);
        self.counts.allocated += 1;
        self.counts.current += 1;
        self.counts.highwater = self.counts.highwater.max(self.counts.current);
    }

    /// Takes a free pool of the fullest usable arena.
    pub(crate) fn take_pool<G: Geometry>(&mut self, tag: HeapTag) -> Option<PoolPtr> {
        let index = self.usable?;
        let free = self.slots[index].free_pools();
        let pool = self.update::<G, _>(index, |arena| arena.take_pool::<G>(index, tag))?;
        // It was the fullest, so no other has one pool less: the order stands.
        self.lift_finger(index, free);
        if free > 1 {
            self.last_with[free - 1] = Some(index);
        } else {
            self.unlink(index);
        }
        Some(pool)
    }

    /// Takes an emptied pool back. If its arena can go, returns the arena's first byte: it is in
    /// no list any more, and the caller gives it back.
    pub(crate) fn give_pool<G: Geometry>(&mut self, pool: PoolPtr) -> Option<NonNull<u8>> {
        let index = pool.header().arena();
        let free = self.slots[index].free_pools();
        let last_of_its_count = self.last_with[free];
        self.lift_finger(index, free);
        self.update::<G, _>(index, |arena| arena.give_pool(pool));
        let is_last = free > 0 && self.slots[index].next.is_none();
        if self.slots[index].is_empty::<G>() && !(G::KEEP_LAST_ARENA && is_last) {
            self.unlink(index);
            return self.retire(index);
        }
        if free == 0 {
            self.push_front(index);
        } else if let Some(last) = last_of_its_count
            && last != index
        {
            self.unlink(index);
            self.insert_behind(last, index);
        }
        self.last_with[free + 1].get_or_insert(index);
        None
    }

    /// If the arena at `index` got a pool back, it would keep it, and give it to whoever takes the
    /// next pool.
    pub(crate) fn would_give_next<G: Geometry>(&self, index: ArenaIndex) -> bool {
        let free = self.slots[index].free_pools();
        // It is the fullest now, and stays so with one free pool more.
        let first = self.usable == Some(index) && self.last_with[free] == Some(index);
        (free == 0 || first) && !self.could_go::<G>(index, 1)
    }

    /// If the arena at `index` got `pools` back, it would have no pool in use, and would not be
    /// kept.
    pub(crate) fn could_go<G: Geometry>(&self, index: ArenaIndex, pools: usize) -> bool {
        let arena = &self.slots[index];
        let is_last = arena.free_pools() > 0 && arena.next.is_none();
        let could_be_free = arena.free_pools() + arena.idle_pools() + pools;
        could_be_free >= Shape::<G>::POOLS && !(G::KEEP_LAST_ARENA && is_last)
    }

    /// A pool of the arena at `index` becomes idle. True if the arena is at rest now.
    pub(crate) fn add_idle<G: Geometry>(&mut self, index: ArenaIndex) -> bool {
        self.update::<G, _>(index, Arena::add_idle);
        self.slots[index].is_at_rest::<G>()
    }

    /// An idle pool of the arena at `index` is used again, or becomes free.
    pub(crate) fn remove_idle<G: Geometry>(&mut self, index: ArenaIndex) {
        self.update::<G, _>(index, Arena::remove_idle);
    }

    /// Arenas at rest.
    pub(crate) fn at_rest(&self) -> usize {
        self.at_rest
    }

    /// An arena at rest, the next one from the place `from` on. O(records).
    pub(crate) fn next_at_rest<G: Geometry>(&self, from: usize) -> Option<ArenaIndex> {
        let places = from..self.records();
        places.map(ArenaIndex::new).find(|index| self.slots[*index].is_at_rest::<G>())
    }

    /// The carved pools of the arena at `index`.
    pub(crate) fn pools<G: Geometry>(
        &self,
        index: ArenaIndex,
    ) -> impl Iterator<Item = PoolPtr> + use<G> {
        self.slots[index].pools::<G>()
    }

    /// Changes the arena at `index`, and counts those at rest.
    fn update<G: Geometry, R>(
        &mut self,
        index: ArenaIndex,
        change: impl FnOnce(&mut Arena) -> R,
    ) -> R {
        let arena = &mut self.slots[index];
        let before = arena.is_at_rest::<G>();
        let result = change(arena);
        let after = self.slots[index].is_at_rest::<G>();
        self.at_rest = self.at_rest + usize::from(after) - usize::from(before);
        result
    }

    /// Takes out the arena whose pools are all free, if there is one. By rule 8 it is the last
    /// usable one, and there is no other.
    pub(crate) fn retire_empty<G: Geometry>(&mut self) -> Option<NonNull<u8>> {
        let index = self.last_with[Shape::<G>::POOLS].take()?;
        self.unlink(index);
        self.retire(index)
    }

    /// Takes every arena out, calling `give_back` with the first byte of each, and gives the
    /// records back. O(arenas).
    pub(crate) fn clear<A: MemAlloc>(&mut self, lower: &A, mut give_back: impl FnMut(NonNull<u8>)) {
        for index in 0..self.slots.all().len() {
            if let Some(base) = self.slots[ArenaIndex::new(index)].leave() {
                give_back(base);
            }
        }
        self.slots.release(lower);
        let counts = ArenaCounts { current: 0, ..self.counts };
        *self = Self { counts, ..Self::new() };
    }

    /// The arena's memory leaves the table, and its record is unused.
    fn retire(&mut self, index: ArenaIndex) -> Option<NonNull<u8>> {
        let base = self.slots[index].leave();
        self.push_unused(index);
        self.counts.current -= 1;
        base
    }

    /// The arena at `index` is about to have another count than `free` pools: if the finger
    /// points to it, the one before it is the last with that count, or there is none.
    fn lift_finger(&mut self, index: ArenaIndex, free: usize) {
        if self.last_with[free] == Some(index) {
            let before = self.slots[index].prev;
            self.last_with[free] = before.filter(|at| self.slots[*at].free_pools() == free);
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

    /// Every arena that has memory.
    pub(crate) fn arenas(&self) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        let indexed = self.slots.all().iter().enumerate();
        indexed
            .map(|(place, arena)| (ArenaIndex::new(place), arena))
            .filter(|(_, arena)| arena.base().is_some())
    }

    /// The usable arenas, first to last.
    pub(crate) fn usable(&self) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        self.list(self.usable)
    }

    /// The unused records, the next one to be used first.
    pub(crate) fn unused(&self) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        self.list(self.unused)
    }

    fn list(&self, first: Option<ArenaIndex>) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        let step = |index: &ArenaIndex| self.slots[*index].next;
        core::iter::successors(first, step).map(|index| (index, &self.slots[index]))
    }

    /// The number of records, used or not.
    pub(crate) fn records(&self) -> usize {
        self.slots.all().len()
    }

    /// The finger for `free` pools.
    pub(crate) fn last_with(&self, free: usize) -> Option<ArenaIndex> {
        self.last_with[free]
    }

    /// Arenas ever, at most, and now.
    pub(crate) fn counts(&self) -> ArenaCounts {
        self.counts
    }
}
