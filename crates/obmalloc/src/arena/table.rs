//! The arenas of a heap, in ascending order of free units. CPython: `usable_arenas`, `nfp2lasta`.
//!
//! ```text
//!   usable ──► 1 free ⇄ 1 free ⇄ 4 free ⇄ 9 free
//!                         ▲        ▲        ▲
//!   last_with:           [1]      [4]      [9]      (the last arena with each number)
//! ```
//!
//! New pools come from the fullest arena that has room. The emptier arenas can then become free and
//! be unmapped.
//!
//! The list of arenas is sorted by how many free units each arena has. When an arena's number of
//! free units changes to `n`, we must move the arena. Its new place is directly behind the last
//! arena that has fewer than `n` free units. We find that last arena in O(1) time, in two steps.
//! First, a bitmap shows the largest number below `n` that occurs in the list. Then, `last_with`
//! gives the last arena with this number of free units.

use core::ptr::NonNull;

use raw_mem::{Contents, MemAlloc};

use crate::{
    arena::{Arena, Origin, slots::ArenaSlots},
    geometry::{Geometry, MAX_POOLS, shape::Shape, size_class::SizeClass},
    pool::{PoolPtr, arena_index::ArenaIndex, tag::HeapTag},
};

/// The number of arenas that a search for adjacent units visits.
///
/// We chose 16 with a benchmark that replaces blocks of 1 byte to 4 MiB. If a search visits at most
/// 8 arenas, the heap needs 20 % more memory than its live blocks. With 16 arenas, it needs 17 %
/// more. Visiting 64 arenas saves no more memory.
const MAX_SEARCHED: usize = 16;

const WORD: usize = u64::BITS as usize;

const WORDS: usize = MAX_POOLS / WORD + 1;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ArenaCounts {
    /// The number of arenas that were ever mapped. CPython: `ntimes_arena_allocated`.
    pub(crate) allocated: usize,
    /// The largest number of arenas that were mapped at once. CPython: `narenas_highwater`.
    pub(crate) highwater: usize,
    /// The number of arenas that are mapped now. CPython: `narenas_currently_allocated`.
    pub(crate) current: usize,
}

#[derive(Debug)]
pub(crate) struct ArenaTable {
    slots: ArenaSlots,
    /// The unused records, the latest first. CPython: `unused_arena_objects`.
    unused: Option<ArenaIndex>,
    /// The list of arenas with a free unit. The fullest arena comes first.
    usable: Option<ArenaIndex>,
    last_with: [Option<ArenaIndex>; MAX_POOLS + 1],
    /// A bit for each number of free units for which `last_with` has an arena.
    numbers: [u64; WORDS],
    /// The number of free arenas that the source has allowed the heap to retain.
    retained: usize,
    /// The number of arenas that only retained pools keep from being free.
    pinned: usize,
    /// The least and the greatest value of `pinned` since the last call
    /// of [`ArenaTable::take_extremes`].
    least_pinned: usize,
    most_pinned: usize,
    counts: ArenaCounts,
}

impl ArenaTable {
    pub(crate) const fn new() -> Self {
        Self {
            slots: ArenaSlots::new(),
            unused: None,
            usable: None,
            last_with: [None; MAX_POOLS + 1],
            numbers: [0; WORDS],
            retained: 0,
            pinned: 0,
            least_pinned: 0,
            most_pinned: 0,
            counts: ArenaCounts { allocated: 0, highwater: 0, current: 0 },
        }
    }

    /// Provides an unused record. Returns false if `lower` has no memory for more records.
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

    /// Adds the new arena at `base`, which becomes usable.
    ///
    /// # Safety
    ///
    /// - The contract of [`Arena::set`] must hold for `base`.
    /// - A record must be [reserved](Self::reserve).
    pub(crate) unsafe fn add<G: Geometry>(
        &mut self,
        base: NonNull<u8>,
        contents: Contents,
        tag: HeapTag,
    ) {
        let Some(index) = self.unused else { return };
        self.unused = self.slots[index].next;
        // SAFETY: the contract of `set` holds for `base` (contract of `add`).
        unsafe { self.slots[index].set::<G>(base, contents, tag) };
        self.enlist(index);
        self.counts.allocated += 1;
        self.counts.current += 1;
        self.counts.highwater = self.counts.highwater.max(self.counts.current);
    }

    /// Takes a pool for `class` that begins at a multiple of `align` units.
    ///
    /// The search begins with the fullest arena that has enough free units for the pool, and
    /// continues with emptier arenas. An arena with enough free units may still have no room,
    /// because the units of a pool must be adjacent and begin at a multiple of `align` units. If
    /// the first [`MAX_SEARCHED`] arenas have no room, the emptiest arena is the last one that is
    /// searched.
    pub(crate) fn take_pool<G: Geometry>(
        &mut self,
        origin: Origin,
        class: SizeClass<G>,
        align: usize,
    ) -> Option<PoolPtr> {
        let mut next = self.first_with(class.units());
        for _ in 0..MAX_SEARCHED {
            let index = next?;
            next = self.slots[index].next;
            let pool = self.take_pool_of(index, origin, class, align);
            if pool.is_some() {
                return pool;
            }
        }
        next?;
        self.take_pool_of(self.emptiest()?, origin, class, align)
    }

    fn take_pool_of<G: Geometry>(
        &mut self,
        index: ArenaIndex,
        origin: Origin,
        class: SizeClass<G>,
        align: usize,
    ) -> Option<PoolPtr> {
        let free = self.slots[index].free_units();
        let was_pinned = self.slots[index].is_pinned::<G>();
        let pool = self.slots[index].take_pool(index, origin, class, align)?;
        self.unpin(was_pinned);
        if free == Shape::<G>::POOLS {
            self.retained = self.retained.saturating_sub(1);
        }
        self.relist(index, free);
        Some(pool)
    }

    /// Returns a free pool to its arena. If the caller must unmap an arena, returns that arena.
    ///
    /// If all pools of the arena are then free, this function calls `retain(free, pinned)`, unless
    /// the geometry keeps this arena mapped anyway. The arena stays mapped if `retain` returns
    /// true. The argument `free` is the number of free arenas that the heap already retains, and
    /// `pinned` is the result of [`pinned_by_permission`](Self::pinned_by_permission).
    pub(crate) fn put_pool<G: Geometry>(
        &mut self,
        pool: PoolPtr,
        retain: impl FnOnce(usize, usize) -> bool,
    ) -> Option<NonNull<u8>> {
        let index = pool.header().arena();
        let free = self.slots[index].free_units();
        let is_last = free > 0 && self.slots[index].next.is_none();
        self.slots[index].put_pool::<G>(pool);
        if self.slots[index].is_free::<G>() && !(G::RULES.retain_last_arena && is_last) {
            if !retain(self.retained, self.pinned_by_permission::<G>()) {
                self.delist(index, free);
                return self.remove(index);
            }
            self.retained += 1;
        }
        self.note_pinned::<G>(index);
        self.relist(index, free);
        None
    }

    /// Returns true if the part of `pool` that no block has used yet is known to be zero.
    pub(crate) fn is_zero<G: Geometry>(&self, pool: PoolPtr) -> bool {
        self.slots[pool.header().arena()].is_zero::<G>(pool)
    }

    /// Carves the lowest uncarved page of `pool`. See [`Arena::carve_page`].
    pub(crate) fn carve_page<G: Geometry>(&mut self, pool: PoolPtr) -> bool {
        self.slots[pool.header().arena()].carve_page::<G>(pool)
    }

    /// Records that blocks of `pool` were carved. See [`Arena::note_carved`].
    pub(crate) fn note_carved<G: Geometry>(&mut self, pool: PoolPtr, before: usize) {
        self.slots[pool.header().arena()].note_carved::<G>(pool, before);
    }

    /// Calls `visit` with each arena in use.
    pub(crate) fn visit(&mut self, mut visit: impl FnMut(&mut Arena)) {
        for index in 0..self.slots.all().len() {
            let arena = &mut self.slots[ArenaIndex::new(index)];
            if arena.base().is_some() {
                visit(arena);
            }
        }
    }

    /// Returns true if a pool that returns to the arena would be the next pool to be taken.
    pub(crate) fn would_be_next<G: Geometry>(&self, index: ArenaIndex) -> bool {
        let free = self.slots[index].free_units();
        // With one more free pool, the fullest arena still comes first, unless another arena has
        // the same number of free units.
        let stays_first = self.usable == Some(index) && self.last_with[free] == Some(index);
        (free == 0 || stays_first) && !self.could_be_free::<G>(index, 1)
    }

    /// Records that a pool of `units` units in the arena is retained by its class.
    pub(crate) fn note_retained<G: Geometry>(&mut self, index: ArenaIndex, units: usize) {
        self.slots[index].retained_units += units as u32;
        self.note_pinned::<G>(index);
    }

    /// Does the same as [`note_retained`](Self::note_retained) if the arena has other blocks in use.
    /// Otherwise returns false and changes nothing.
    #[inline]
    pub(crate) fn note_retained_beside_others<G: Geometry>(
        &mut self,
        index: ArenaIndex,
        units: usize,
    ) -> bool {
        let arena = &mut self.slots[index];
        let retained = arena.retained_units + units as u32;
        let has_others = arena.free_units() + (retained as usize) < Shape::<G>::POOLS;
        if has_others {
            arena.retained_units = retained;
        }
        has_others
    }

    /// Records that a pool of `units` units in the arena is no longer retained by its class.
    pub(crate) fn note_released<G: Geometry>(&mut self, index: ArenaIndex, units: usize) {
        let arena = &mut self.slots[index];
        let was_pinned = arena.is_pinned::<G>();
        arena.retained_units -= units as u32;
        self.unpin(was_pinned);
    }

    #[inline]
    fn unpin(&mut self, was_pinned: bool) {
        if was_pinned {
            self.pinned -= 1;
            self.least_pinned = self.least_pinned.min(self.pinned);
        }
    }

    fn note_pinned<G: Geometry>(&mut self, index: ArenaIndex) {
        self.pinned += usize::from(self.slots[index].is_pinned::<G>());
        self.most_pinned = self.most_pinned.max(self.pinned);
    }

    /// Adds `count` to `least_pinned`, because the source now permits `count` more pinned arenas.
    ///
    /// The heap reports permitted arenas beyond `least_pinned` as reused, but nothing has reused
    /// the new ones.
    pub(crate) fn expect_pinned(&mut self, count: usize) {
        self.least_pinned += count;
    }

    /// Returns the least and the greatest number of [pinned](Self::pinned) arenas since the last
    /// call.
    pub(crate) fn take_extremes(&mut self) -> (usize, usize) {
        let extremes = (self.least_pinned, self.most_pinned);
        (self.least_pinned, self.most_pinned) = (self.pinned, self.pinned);
        extremes
    }

    /// Returns the number of arenas that only retained pools keep from being free.
    pub(crate) fn pinned(&self) -> usize {
        self.pinned
    }

    /// Returns the number of [pinned](Self::pinned) arenas that stay mapped by permission of the
    /// source.
    ///
    /// If the geometry keeps the last arena mapped anyway, that arena needs no permission.
    pub(crate) fn pinned_by_permission<G: Geometry>(&self) -> usize {
        let stays_anyway = G::RULES.retain_last_arena
            && self.emptiest().is_some_and(|last| self.slots[last].is_pinned::<G>());
        self.pinned - usize::from(stays_anyway)
    }

    /// Returns true if classes retain pools in the arena.
    pub(crate) fn has_retained_pools(&self, index: ArenaIndex) -> bool {
        self.slots[index].retained_units > 0
    }

    /// Returns true if the arena could be unmapped once `units` more of its units are free.
    ///
    /// Pools that are retained by classes count as free, because their retention can end at any
    /// time.
    pub(crate) fn could_be_free<G: Geometry>(&self, index: ArenaIndex, units: usize) -> bool {
        let arena = &self.slots[index];
        let is_last = arena.free_units() > 0 && arena.next.is_none();
        let retained = arena.retained_units as usize;
        let could_be_free = arena.free_units() + retained + units >= Shape::<G>::POOLS;
        could_be_free && !(G::RULES.retain_last_arena && is_last)
    }

    pub(crate) fn retained(&self) -> usize {
        self.retained
    }

    /// Removes a free arena from the table, and returns its first byte.
    pub(crate) fn remove_free<G: Geometry>(&mut self) -> Option<NonNull<u8>> {
        let index = self.last_with[Shape::<G>::POOLS]?;
        self.retained = self.retained.saturating_sub(1);
        self.delist(index, Shape::<G>::POOLS);
        self.remove(index)
    }

    /// Removes every arena, passes each to `unmap`, and frees the records. O(arenas).
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

    /// Makes the record at `index`, which is in no list, unused. Returns the arena.
    fn remove(&mut self, index: ArenaIndex) -> Option<NonNull<u8>> {
        let base = self.slots[index].clear();
        self.push_unused(index);
        self.counts.current -= 1;
        base
    }

    /// Moves a listed arena to its new place, after its number of free units has changed from
    /// `before`.
    fn relist(&mut self, index: ArenaIndex, before: usize) {
        let after = self.slots[index].free_units();
        if before > 0 && after > 0 && self.keeps_place(index, before, after) {
            self.set_last_with(before, None);
            self.set_last_with(after, Some(index));
            return;
        }
        if before > 0 {
            self.delist(index, before);
        }
        if after > 0 {
            self.enlist(index);
        }
    }

    /// Returns true if an arena keeps its place in the list. O(1).
    ///
    /// The list is sorted by the number of free units, which changes from `before` to `after` for
    /// this arena. The result is true if these numbers differ by 1 and no other arena has either of
    /// them.
    fn keeps_place(&self, index: ArenaIndex, before: usize, after: usize) -> bool {
        let is_first_with = || {
            let prev = self.slots[index].prev;
            prev.is_none_or(|prev| self.slots[prev].free_units() != before)
        };
        before.abs_diff(after) == 1
            && self.last_with[after].is_none()
            && self.last_with[before] == Some(index)
            && is_first_with()
    }

    /// Sets the last arena with `free` free units.
    fn set_last_with(&mut self, free: usize, last: Option<ArenaIndex>) {
        self.last_with[free] = last;
        let bit = 1 << (free % WORD);
        match last {
            Some(_) => self.numbers[free / WORD] |= bit,
            None => self.numbers[free / WORD] &= !bit,
        }
    }

    /// Removes a usable arena from the list. It had `free` free units when it was listed.
    fn delist(&mut self, index: ArenaIndex, free: usize) {
        if self.last_with[free] == Some(index) {
            let before = self.slots[index].prev;
            let last = before.filter(|before| self.slots[*before].free_units() == free);
            self.set_last_with(free, last);
        }
        self.unlink(index);
    }

    /// Lists an arena with a free unit before the others with the same number of free units.
    fn enlist(&mut self, index: ArenaIndex) {
        let free = self.slots[index].free_units();
        match self.last_below(free) {
            Some(fuller) => self.insert_behind(fuller, index),
            None => self.push_front(index),
        }
        self.last_with[free].get_or_insert(index);
        self.numbers[free / WORD] |= 1 << (free % WORD);
    }

    /// Returns the last usable arena that has fewer than `free` free units.
    fn last_below(&self, free: usize) -> Option<ArenaIndex> {
        let mut word = free / WORD;
        let mut bits = self.numbers[word] & ((1 << (free % WORD)) - 1);
        while bits == 0 {
            word = word.checked_sub(1)?;
            bits = self.numbers[word];
        }
        self.last_with[word * WORD + bits.ilog2() as usize]
    }

    /// Returns the first usable arena with at least `free` free units.
    fn first_with(&self, free: usize) -> Option<ArenaIndex> {
        match self.last_below(free) {
            Some(fuller) => self.slots[fuller].next,
            None => self.usable,
        }
    }

    /// Returns the last usable arena, which has the most free units.
    fn emptiest(&self) -> Option<ArenaIndex> {
        self.last_below(MAX_POOLS + 1)
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

    pub(crate) fn arenas(&self) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        let indexed = self.slots.all().iter().enumerate();
        indexed
            .map(|(index, arena)| (ArenaIndex::new(index), arena))
            .filter(|(_, arena)| arena.base().is_some())
    }

    pub(crate) fn usable(&self) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        self.list(self.usable)
    }

    pub(crate) fn unused(&self) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        self.list(self.unused)
    }

    fn list(&self, first: Option<ArenaIndex>) -> impl Iterator<Item = (ArenaIndex, &Arena)> {
        let step = |index: &ArenaIndex| self.slots[*index].next;
        core::iter::successors(first, step).map(|index| (index, &self.slots[index]))
    }

    pub(crate) fn records(&self) -> usize {
        self.slots.all().len()
    }

    pub(crate) fn last_with(&self, free: usize) -> Option<ArenaIndex> {
        self.last_with[free]
    }

    pub(crate) fn counts(&self) -> ArenaCounts {
        self.counts
    }
}
