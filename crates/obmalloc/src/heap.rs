//! The heap: the fast paths, and what happens when a list runs dry.
//!
//! ```text
//!   alloc(class)                                 free(block)
//!   │ first used pool of the class               │ the block's pool, by masking its address
//!   │ pop its free list ──────────► block        │ push on its free list ───────► done
//!   ▼ it is empty                                ▼ an event: the count reached 0
//!   carve a virgin block                         the pool was full: it is used again
//!   or the next used pool                        the pool is empty: it rests, becomes idle, or
//!   or an idle pool of the class                 goes to its arena
//!   or a free pool of the fullest arena          the arena is empty: to the source
//!   or an idle pool of another class
//!   or a new arena
//! ```

use core::{marker::PhantomData, ptr, ptr::NonNull};

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    arena_table::ArenaTable,
    block::BlockPtr,
    geometry::{Geometry, Pools16K, RestRule, Shape},
    idle::IdlePools,
    pool::{PoolPtr, State},
    rest::Resting,
    size_class::SizeClass,
    used_pools::UsedPools,
};

/// A word of the host's, kept with every pool or arena of a heap: from any block of the heap the host
/// finds what it belongs to. The heap gives it no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapTag(pub *const ());

impl HeapTag {
    /// The tag of a heap whose host needs none.
    pub const NONE: Self = Self(ptr::null());
}

/// A heap of small blocks, for one owner at a time.
///
/// `S` gives it arenas, `A` memory for the arenas' records, and `G` is its geometry. It asks for
/// nothing before the first block, so it can be made in a `static`. Dropping it gives every arena
/// back, whatever is in use.
///
/// It knows blocks and size classes only. [`Pymalloc`](crate::Pymalloc) makes an allocator of any
/// size of it.
///
/// ```
/// use obmalloc::{Heap, SizeClass};
/// use raw_mem::{Malloc, MmapArenas};
///
/// let mut heap: Heap<_, _> = Heap::new(MmapArenas::new(), Malloc);
/// let class = SizeClass::of(100).unwrap();
/// let block = heap.alloc(class).unwrap();
/// // SAFETY: the block came from this heap just now.
/// unsafe { heap.free(block) };
/// ```
#[derive(Debug)]
pub struct Heap<S: ArenaSource, A: MemAlloc, G: Geometry = Pools16K> {
    pub(crate) used: UsedPools,
    pub(crate) arenas: ArenaTable,
    pub(crate) resting: Resting,
    pub(crate) idle: IdlePools,
    source: S,
    lower: A,
    tag: HeapTag,
    refused: usize,
    geometry: PhantomData<G>,
}

// SAFETY: pools, and the pointers between them, belong to the heap and move with it.
unsafe impl<S: ArenaSource + Send, A: MemAlloc + Send, G: Geometry> Send for Heap<S, A, G> {}

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// A heap without arenas.
    pub const fn new(source: S, lower: A) -> Self {
        Self::with_tag(source, lower, HeapTag::NONE)
    }

    /// A heap without arenas, whose blocks will lead to `tag`.
    pub const fn with_tag(source: S, lower: A, tag: HeapTag) -> Self {
        // A geometry that makes no sense is refused here, at compile time.
        let _ = const { Shape::<G>::ARENA };
        Self {
            used: UsedPools::new(),
            arenas: ArenaTable::new(),
            resting: Resting::NONE,
            idle: IdlePools::new(),
            source,
            lower,
            tag,
            refused: 0,
            geometry: PhantomData,
        }
    }

    /// Takes a block of `class`, uninitialised. `None` when no arena can be had; nothing has
    /// changed then.
    #[inline]
    pub fn alloc(&mut self, class: SizeClass<G>) -> Option<BlockPtr> {
        match self.alloc_listed(class) {
            Some(block) => Some(block),
            None => self.alloc_unlisted(class),
        }
    }

    /// Takes a block of `class` if one is on the free list of the pool that serves the class, as
    /// it is most of the time. `None` tells nothing about memory: ask
    /// [`alloc`](Self::alloc) then, out of the fast path.
    #[inline]
    pub fn alloc_listed(&self, class: SizeClass<G>) -> Option<BlockPtr> {
        self.used.first(class).header().take()
    }

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// The block came from this heap.
    #[inline]
    pub unsafe fn free(&mut self, block: BlockPtr) {
        let pool = PoolPtr::of::<G>(&block);
        if pool.header().put(block) {
            self.pool_event(pool);
        }
    }

    /// The bytes of `block`: the size of its class.
    ///
    /// # Safety
    ///
    /// The block came from this heap.
    #[inline]
    pub unsafe fn block_size(&self, block: &BlockPtr) -> usize {
        PoolPtr::of::<G>(block).header().class::<G>().map_or(0, SizeClass::block_size)
    }

    /// The tag of the heap that the block at `start` belongs to.
    ///
    /// This may be asked by a thread that is not the heap's owner: only what never changes while
    /// the block is in use is read.
    ///
    /// # Safety
    ///
    /// `start` lies in a block in use of a heap with the geometry `G`.
    #[inline]
    pub unsafe fn tag_of(start: NonNull<u8>) -> HeapTag {
        // SAFETY: the caller's promise.
        unsafe { PoolPtr::tag_at::<G>(start) }
    }

    /// Gives every arena back, whatever is in use. O(arenas).
    ///
    /// # Safety
    ///
    /// No block of this heap is used any more.
    pub unsafe fn reset(&mut self) {
        self.release_all();
    }

    /// Gives the arenas back that have no block in use: for a heap that is about to rest.
    pub fn give_back_empty_arena(&mut self) {
        self.settle_all();
        self.disband_all();
        if let Some(base) = self.arenas.retire_empty::<G>() {
            // SAFETY: it came from this source, has left the table, and none of its pools is in
            // use or in a list.
            unsafe { self.source.unmap(base, Shape::<G>::ARENA) };
        }
    }

    /// Gives back what memory can go: for an owner that will not be here for a while.
    pub fn trim(&mut self) {
        self.give_back_empty_arena();
        self.source.trim();
    }

    /// Arenas without a block in use that the heap keeps because its source would rather see them
    /// kept.
    pub fn arenas_at_rest(&self) -> usize {
        self.arenas.at_rest()
    }

    /// Where the arenas come from.
    #[inline]
    pub fn source(&self) -> &S {
        &self.source
    }

    pub(crate) fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// Requests that failed because no arena could be had.
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// The first used pool has nothing on its free list.
    #[cold]
    #[inline(never)]
    fn alloc_unlisted(&mut self, class: SizeClass<G>) -> Option<BlockPtr> {
        self.settle_for(class);
        let first = self.used.first(class);
        if first != PoolPtr::NONE {
            if let Some(block) = first.carve_block::<G>() {
                return Some(block);
            }
            self.used.retire(class, first);
        }
        let mut pool = self.used.first(class);
        if pool == PoolPtr::NONE {
            pool = self.new_pool(class)?;
        }
        pool.header().take().or_else(|| pool.carve_block::<G>())
    }

    /// Gives a free pool to `class`, which has none.
    fn new_pool(&mut self, class: SizeClass<G>) -> Option<PoolPtr> {
        let pool = match self.free_pool(class) {
            Some(pool) => pool,
            None => self.new_arena()?,
        };
        pool.header().become_used(class);
        self.used.push_front(class, pool);
        Some(pool)
    }

    /// A pool that has no block in use, for `class`; resting ones are looked at last.
    fn free_pool(&mut self, class: SizeClass<G>) -> Option<PoolPtr> {
        let pool = self.pool_at_hand(class);
        if pool.is_some() || self.resting.count() == 0 {
            return pool;
        }
        self.settle_all();
        self.pool_at_hand(class)
    }

    /// An idle pool of `class`, a free one of the fullest arena, or an idle one of another class.
    fn pool_at_hand(&mut self, class: SizeClass<G>) -> Option<PoolPtr> {
        let at_rest = self.arenas.at_rest();
        let mut pool = self.take_idle(class);
        if pool.is_none() {
            pool = self.arenas.take_pool::<G>(self.tag);
        }
        if pool.is_none() {
            pool = self.take_any_idle();
        }
        let woken = at_rest - self.arenas.at_rest();
        if woken > 0 {
            self.source.kept_no_longer(woken, true);
        }
        pool
    }

    /// Maps an arena, as none is usable, and takes its first pool.
    fn new_arena(&mut self) -> Option<PoolPtr> {
        let mapped = match self.arenas.reserve(&self.lower) {
            true => self.source.map(Shape::<G>::ARENA).ok(),
            false => None,
        };
        let Some(base) = mapped else {
            self.refused += 1;
            return None;
        };
        // SAFETY: a source gives ARENA_SIZE bytes, aligned and nobody's; a record was reserved,
        // and this is called when no arena is usable.
        unsafe { self.arenas.enter::<G>(base) };
        self.arenas.take_pool::<G>(self.tag)
    }

    /// The first block of a full pool came back, or the last block of a used one.
    #[cold]
    #[inline(never)]
    fn pool_event(&mut self, pool: PoolPtr) {
        let Some(class) = pool.header().class::<G>() else { return };
        self.settle_for(class);
        if pool.header().state() == State::Full {
            pool.header().become_used_again(class);
            self.used.push_front(class, pool);
        } else {
            self.pool_emptied(class, pool);
        }
    }

    /// Takes an emptied pool out of its class's list: it stays idle with the class, or goes to its
    /// arena.
    pub(crate) fn retire_empty(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        self.used.unlink(class, pool);
        match G::REST {
            RestRule::EachClass => self.make_idle(class, pool),
            RestRule::Unseen => {
                self.give_to_arena(pool);
            }
        }
    }

    /// Gives a pool without a block in use, which is in no list, to its arena, and the arena to
    /// the source if it can go. True if it went.
    pub(crate) fn give_to_arena(&mut self, pool: PoolPtr) -> bool {
        pool.header().become_empty();
        let Some(base) = self.arenas.give_pool::<G>(pool) else { return false };
        // SAFETY: it came from this source, has left the table, and none of its pools is in use or
        // in a list.
        unsafe { self.source.unmap(base, Shape::<G>::ARENA) };
        true
    }

    fn release_all(&mut self) {
        self.used = UsedPools::new();
        self.resting = Resting::NONE;
        self.idle = IdlePools::new();
        if self.arenas.at_rest() > 0 {
            self.source.kept_no_longer(self.arenas.at_rest(), false);
        }
        self.arenas.clear(&self.lower, |base| {
            // SAFETY: it came from this source, has left the table, and its pools are forgotten.
            unsafe { self.source.unmap(base, Shape::<G>::ARENA) };
        });
    }
}

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Drop for Heap<S, A, G> {
    fn drop(&mut self) {
        self.release_all();
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use raw_mem::{Malloc, MallocArenas, MmapArenas, NoAlloc};

    use super::*;
    use crate::{GiveBackAll, Pools4K};

    type TestHeap<G> = Heap<MmapArenas, Malloc, G>;

    fn heap<G: Geometry>() -> TestHeap<G> {
        Heap::new(MmapArenas::new(), Malloc)
    }

    fn fill<G: Geometry>(heap: &mut TestHeap<G>, size: usize, arenas: usize) -> Vec<BlockPtr> {
        let class = SizeClass::of(size).unwrap();
        let mut blocks = Vec::new();
        while heap.stats().arenas.current <= arenas {
            blocks.push(heap.alloc(class).unwrap());
        }
        blocks
    }

    fn drain<G: Geometry>(heap: &mut TestHeap<G>, blocks: impl IntoIterator<Item = BlockPtr>) {
        for block in blocks {
            // SAFETY: the tests free what they took from this heap, once.
            unsafe { heap.free(block) };
            heap.check_invariants();
        }
    }

    #[test]
    fn the_block_freed_last_is_given_first() {
        let mut heap = heap::<Pools16K>();
        let class = SizeClass::of(64).unwrap();
        let blocks = [(); 3].map(|()| heap.alloc(class).unwrap());
        let starts = blocks.each_ref().map(BlockPtr::start);
        drain(&mut heap, blocks);
        let again = [(); 3].map(|()| heap.alloc(class).unwrap().into_start());
        assert!(again.iter().eq(starts.iter().rev()));
    }

    #[test]
    fn a_full_pool_that_gets_a_block_back_serves_the_next_request() {
        let mut heap = heap::<Pools4K>();
        let class = SizeClass::of(512).unwrap();
        let mut blocks: Vec<_> = (0..15).map(|_| heap.alloc(class).unwrap()).collect();
        heap.check_invariants();
        let first = blocks.remove(0);
        let start = first.start();
        drain(&mut heap, [first]);
        assert_eq!(heap.alloc(class).map(BlockPtr::into_start), Some(start));
    }

    #[test]
    fn an_emptied_pool_serves_any_other_class() {
        let mut heap = heap::<Pools4K>();
        let block = heap.alloc(SizeClass::of(8).unwrap()).unwrap();
        let start = block.start();
        drain(&mut heap, [block]);
        let other = heap.alloc(SizeClass::of(512).unwrap()).unwrap();
        assert_eq!(other.start(), start);
        assert_eq!(heap.stats().classes()[0].pools, 0);
    }

    #[test]
    fn every_arena_but_the_last_is_given_back_when_its_blocks_are() {
        let mut heap = heap::<Pools4K>();
        let blocks = fill(&mut heap, 512, 2);
        drain(&mut heap, blocks);
        assert_eq!(heap.stats().arenas.current, 1);
        assert_eq!(heap.stats().arenas.highwater, 3);
    }

    #[test]
    fn the_older_rule_gives_every_arena_back() {
        let mut heap = heap::<GiveBackAll<Pools4K>>();
        let blocks = fill(&mut heap, 512, 2);
        drain(&mut heap, blocks.into_iter().rev());
        assert_eq!(heap.stats().arenas.current, 0);
        assert!(heap.alloc(SizeClass::of(1).unwrap()).is_some());
    }

    #[test]
    fn a_heap_that_rests_keeps_no_empty_arena() {
        let mut heap = heap::<Pools4K>();
        let mut blocks = fill(&mut heap, 512, 1);
        let last = blocks.pop();
        drain(&mut heap, blocks);
        heap.give_back_empty_arena();
        assert_eq!(heap.stats().arenas.current, 1);
        drain(&mut heap, last);
        heap.give_back_empty_arena();
        heap.check_invariants();
        assert_eq!(heap.stats().arenas.current, 0);
        assert!(heap.alloc(SizeClass::of(512).unwrap()).is_some());
    }

    /// mutants 17: `trim` gave back only what its source retained.
    #[test]
    fn a_trimmed_heap_keeps_no_empty_arena() {
        let mut heap = heap::<Pools4K>();
        let block = heap.alloc(SizeClass::of(512).unwrap());
        drain(&mut heap, block);
        assert_eq!(heap.stats().arenas.current, 1);
        heap.trim();
        heap.check_invariants();
        assert_eq!(heap.stats().arenas.current, 0);
    }

    /// mutants 18: the figure was never looked at.
    #[test]
    fn each_request_that_finds_no_arena_is_counted_as_refused() {
        let mut heap: Heap<_, _> = Heap::new(MallocArenas::new(NoAlloc), Malloc);
        for refused in 1..=3 {
            assert!(heap.alloc(SizeClass::of(100).unwrap()).is_none());
            assert_eq!((heap.refused(), heap.stats().refused), (refused, refused));
        }
    }

    #[test]
    fn a_reset_gives_every_arena_back_at_once() {
        let mut heap = heap::<Pools16K>();
        drop(fill(&mut heap, 256, 3));
        // SAFETY: the blocks are not used any more.
        unsafe { heap.reset() };
        heap.check_invariants();
        assert_eq!(heap.stats().arenas.current, 0);
        assert!(heap.alloc(SizeClass::of(256).unwrap()).is_some());
        heap.check_invariants();
    }

    #[test]
    fn a_block_leads_to_the_tag_of_its_heap() {
        let host = 1_u8;
        let tag = HeapTag((&raw const host).cast());
        let mut heap: Heap<_, _> = Heap::with_tag(MmapArenas::new(), Malloc, tag);
        let block = heap.alloc(SizeClass::of(100).unwrap()).unwrap();
        // SAFETY: the block is in use, in a heap of this geometry.
        let found = unsafe { Heap::<MmapArenas, Malloc, Pools16K>::tag_of(block.start()) };
        assert_eq!(found, tag);
    }
}
