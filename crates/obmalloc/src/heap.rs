//! The heap, which allocates and frees blocks of size classes.
//!
//! ```text
//!   alloc(class)                                 free(block)
//!   │ the first used pool of the class           │ the block's pool, found by masking its address
//!   │ pop its free list ──────────► block        │ push onto its free list ────► done
//!   ▼ it is empty                                ▼ the count of the pool reached 0
//!   carve a block                                the pool was full: it is used again
//!   or take the next used pool                   the pool is empty: it is retained by its class, or
//!   or free units of the fullest arena             goes to its arena
//!   or units that another class retains          the arena is free: it is retained or unmapped
//!   or map an arena
//! ```

use core::{marker::PhantomData, ptr::NonNull};

use raw_mem::{ArenaSource, MemAlloc, mark_accessible, mark_inaccessible};

pub(crate) mod check;
pub(crate) mod class_set;
pub(crate) mod empty_pools;
pub(crate) mod figures;
pub(crate) mod large;
pub(crate) mod purging;
pub(crate) mod report;
pub(crate) mod self_check;
#[cfg(feature = "serde")]
pub(crate) mod snapshot;
pub(crate) mod spans;
pub(crate) mod stats;
pub(crate) mod sweeps;
pub(crate) mod used_pools;
pub(crate) mod walk;

use self::{
    empty_pools::EmptyPools,
    purging::{Purging, Which},
    self_check::SelfCheck,
    used_pools::UsedPools,
};
use crate::{
    arena::{Origin, pages::PAGE, table::ArenaTable},
    geometry::{
        Geometry, RetainRule,
        eras::Pools16K,
        shape::{BlockStart, Shape},
        size_class::SizeClass,
    },
    large::of_heap::Large,
    pool::{PoolPtr, State, block::BlockPtr, tag::HeapTag},
};

/// A block that a slow path has found.
pub(crate) struct Found {
    pub(crate) block: BlockPtr,
    /// The pool that the block was carved from. `None` if the memory has been used since the pool
    /// became used.
    pub(crate) carved_from: Option<PoolPtr>,
}

/// A heap of blocks, each of which has a [`SizeClass`] or is a [`LargeBlock`](crate::LargeBlock).
///
/// The source `S` maps the arenas of the heap, and the allocator `A` provides memory for its
/// records of the arenas. The geometry `G` defines the sizes and rules.
///
/// To serve requests of any size, combine a heap with another allocator in
/// a [`Pymalloc`](crate::Pymalloc).
///
/// A new heap allocates nothing, so a heap can be a `static`. Dropping a heap unmaps its arenas.
///
/// ```
/// use obmalloc::{Heap, SizeClass};
/// use raw_mem::{Malloc, MmapArenas};
///
/// let mut heap = Heap::new(MmapArenas::new(), Malloc);
/// let class = SizeClass::of(100).ok_or("too large")?;
/// let block = heap.alloc(class).ok_or("out of memory")?;
/// // SAFETY: the block came from this heap.
/// unsafe { heap.free(block) };
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug)]
pub struct Heap<S: ArenaSource, A: MemAlloc, G: Geometry = Pools16K> {
    pub(crate) used: UsedPools,
    pub(crate) arenas: ArenaTable,
    pub(crate) empty: EmptyPools,
    /// The number of arenas that the source allows to stay mapped only because of retained pools.
    pub(crate) arenas_of_pools: usize,
    large: Large,
    pub(crate) source: S,
    lower: A,
    tag: HeapTag,
    /// The place where blocks begin in pools that are carved from now on.
    blocks: BlockStart,
    refused: usize,
    purging: Purging,
    self_check: SelfCheck,
    geometry: PhantomData<G>,
}

// SAFETY: the heap exclusively owns its pools, so all pointers between them move with it.
unsafe impl<S: ArenaSource + Send, A: MemAlloc + Send, G: Geometry> Send for Heap<S, A, G> {}

impl<S: ArenaSource, A: MemAlloc> Heap<S, A> {
    /// Creates a heap without arenas, with the geometry [`Pools16K`].
    #[must_use]
    pub const fn new(source: S, lower: A) -> Self {
        Self::with_geometry(source, lower)
    }
}

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Creates a heap without arenas, with the geometry `G`.
    #[must_use]
    pub const fn with_geometry(source: S, lower: A) -> Self {
        Self::with_tag(source, lower, HeapTag::NONE)
    }

    /// Creates a heap without arenas. [`tag_of`](Self::tag_of) returns `tag` for its blocks.
    #[must_use]
    pub const fn with_tag(source: S, lower: A, tag: HeapTag) -> Self {
        // This constant fails to compile if the sizes of the geometry contradict each other.
        let _ = const { Shape::<G>::ARENA };
        Self {
            used: UsedPools::new(),
            arenas: ArenaTable::new(),
            empty: EmptyPools::NONE,
            arenas_of_pools: 0,
            large: Large::NONE,
            source,
            lower,
            tag,
            blocks: BlockStart::Aligned,
            refused: 0,
            purging: Purging::NEVER,
            self_check: SelfCheck::new(),
            geometry: PhantomData,
        }
    }

    /// Carves all future pools so that their blocks begin at the same offset as in CPython.
    ///
    /// See [`BlockStart::AsInCPython`]. This cannot be undone.
    pub fn begin_blocks_as_in_cpython(&mut self) {
        self.blocks = BlockStart::AsInCPython;
    }

    /// Allocates an uninitialised block of `class`, or returns `None` if no arena can be mapped.
    #[inline]
    #[must_use = "the block leaks unless it is freed"]
    pub fn alloc(&mut self, class: SizeClass<G>) -> Option<BlockPtr> {
        match self.alloc_listed(class) {
            Some(block) => Some(block),
            None => self.alloc_unlisted(class),
        }
    }

    /// Allocates a block of `class` from the free list of the class's first pool.
    ///
    /// If the free list is empty, returns `None`. [`alloc`](Self::alloc) may still find a block in
    /// that case.
    #[inline]
    #[must_use = "the block leaks unless it is freed"]
    pub fn alloc_listed(&self, class: SizeClass<G>) -> Option<BlockPtr> {
        let block = self.used.first(class).take(class);
        self_check::allocated(class, block.as_ref());
        block
    }

    /// Allocates a linked block of at least `size` bytes from the first pool of its class.
    ///
    /// Returns `None` if the free list of this pool is empty, if `size` is 0, or if `size`
    /// exceeds [`linked_threshold`](crate::Sizes::linked_threshold).
    ///
    /// Unless `size` is a compile-time constant, this method is faster
    /// than [`alloc_listed`](Self::alloc_listed), because it does not compute the size class.
    #[inline]
    #[must_use = "the block leaks unless it is freed"]
    pub fn alloc_linked(&self, size: usize) -> Option<BlockPtr> {
        let last = size.wrapping_sub(1);
        if last >= G::SIZES.linked_threshold {
            return None;
        }
        let block = self.used.first_for::<G>(last).take_linked();
        self_check::allocated_for::<G>(size, block.as_ref());
        block
    }

    /// Allocates an unlinked block of at least `size` bytes from the first pool of its class.
    ///
    /// An *unlinked* block is larger than [`linked_threshold`](crate::Sizes::linked_threshold).
    /// While such a block is free, it contains no link to another free block. The header of its
    /// pool shows which blocks are free.
    ///
    /// Returns `None` if the first pool has no free block, or if no class has unlinked blocks for
    /// `size`.
    ///
    /// This is faster than [`alloc_listed`](Self::alloc_listed), which must also handle linked
    /// blocks.
    #[inline]
    #[must_use = "the block leaks unless it is freed"]
    pub fn alloc_unlinked(&self, size: usize) -> Option<BlockPtr> {
        let block = self.used.first_unlinked_for::<G>(size.wrapping_sub(1))?.take_unlinked::<G>();
        self_check::allocated_for::<G>(size, block.as_ref());
        block
    }

    /// Allocates a block of `class` whose first `bytes` bytes are zero.
    ///
    /// `bytes` must not exceed the block size. If the heap knows that the memory is zeroed, it
    /// skips the write.
    #[inline]
    #[must_use = "the block leaks unless it is freed"]
    pub fn alloc_zeroed(&mut self, class: SizeClass<G>, bytes: usize) -> Option<BlockPtr> {
        debug_assert!(bytes <= class.block_size());
        let bytes = bytes.min(class.block_size());
        if let Some(block) = self.alloc_listed(class) {
            block.fill_with_zeros(bytes);
            return Some(block);
        }
        self.alloc_unlisted_zeroed(class, bytes)
    }

    /// Allocates a block of `class` from the second pool in the class's list of used pools.
    ///
    /// Returns `None` if the first pool has not run out of blocks, or if there is no second pool
    /// with a block on its free list. A call of [`alloc`](Self::alloc) may then still succeed, but
    /// it takes longer and may map memory.
    ///
    /// A [span](SizeClass::is_span) is a pool with only one block. If the pools of `class` are
    /// spans, this method allocates the block of the first span in the list that is not in use. It
    /// returns `None` if all spans in the list are in use.
    #[must_use = "the block leaks unless it is freed"]
    pub fn alloc_from_next_pool(&mut self, class: SizeClass<G>) -> Option<BlockPtr> {
        let block = if class.is_span() {
            self.alloc_retained_span(class)?
        } else {
            let first = self.used.first(class);
            let next = first.header().next.get()?;
            if !first.header().has_run_out::<G>() {
                return None;
            }
            let block = next.take(class)?;
            self.used.remove_full(class, first);
            self.purging.note_tightened(1);
            block
        };
        self.visit();
        Some(block)
    }

    /// Allocates a block of `class` that begins at a multiple of `align` bytes. O(arenas).
    ///
    /// Returns `None` in these cases:
    /// - No arena can be mapped.
    /// - `align` is not a power of two, or is more than half the size of an arena.
    /// - No arena has room for a pool of `class` that begins at a multiple of `align`.
    /// - The blocks of `class` are linked (see [`SizeClass::is_linked`]).
    /// - The heap places its blocks at the same offsets as CPython
    ///   (see [`BlockStart::AsInCPython`]).
    #[must_use = "the block leaks unless it is freed"]
    pub fn alloc_aligned(&mut self, class: SizeClass<G>, align: usize) -> Option<BlockPtr> {
        let units = align.div_ceil(G::SIZES.pool_size);
        let is_placed = self.blocks == BlockStart::Aligned && 2 * units <= Shape::<G>::POOLS;
        // The first unit of an arena holds the headers, so the pool begins at unit `units` or later.
        let fits = units + class.units() <= Shape::<G>::POOLS;
        if class.is_linked() || !is_placed || !fits || !align.is_power_of_two() {
            return None;
        }
        if units == 1 && class.block_size().is_multiple_of(align) {
            return self.alloc(class);
        }
        let next = self.used.first(class).free_blocks::<G>().next();
        if next.is_some_and(|next| next.addr().get().is_multiple_of(align)) {
            return self.alloc_listed(class);
        }
        if class.is_span() {
            if let Some(block) = self.alloc_aligned_span(class, align) {
                return Some(block);
            }
        } else {
            self.end_retentions_for(class);
        }
        let pool = self.unused_pool(class, units)?;
        pool.take(class).or_else(|| pool.carve_block::<G>())
    }

    /// Frees `block`, which must not be used again.
    ///
    /// # Safety
    ///
    /// `block` must have been allocated from this heap.
    #[inline]
    pub unsafe fn free(&mut self, block: BlockPtr) {
        // SAFETY: the contract is the same.
        unsafe { self.free_then(block, |_| ()) };
    }

    /// Does the same as [`free`](Self::free). Calls `after_sweep` if the heap checked its clock.
    ///
    /// When a heap checks its clock, it may also return unused memory to the system.
    ///
    /// # Safety
    ///
    /// `block` must have been allocated from this heap.
    #[inline]
    pub unsafe fn free_then(&mut self, block: BlockPtr, after_sweep: impl FnOnce(&mut Self)) {
        let unit = PoolPtr::of_unit_with::<G>(&block);
        if unit.header().is_linked::<G>() {
            return self.put_linked_or_span(unit, block, after_sweep);
        }
        let pool = unit.header().inner_of().unwrap_or(unit);
        self_check::freeing::<G>(pool, &block);
        if pool.put_unlinked::<G>(block) {
            self.pool_event(pool, after_sweep);
        }
    }

    /// Frees `block`, which must be linked or a span. The block must not be used afterwards.
    ///
    /// A linked block or a span always begins in the first unit of its pool, so the header of this
    /// unit is the pool's header. This function is therefore faster than [`free`](Self::free),
    /// which must also handle blocks that begin in a later unit.
    ///
    /// # Safety
    ///
    /// - `block` must have been allocated from this heap.
    /// - `block` must be [linked](SizeClass::is_linked) or a [span](SizeClass::is_span).
    #[inline]
    pub unsafe fn free_linked_or_span(&mut self, block: BlockPtr) {
        // SAFETY: the contract is the same.
        unsafe { self.free_linked_or_span_then(block, |_| ()) };
    }

    /// Frees a linked block or a span. Calls `after_sweep` as [`free_then`](Self::free_then) does.
    ///
    /// # Safety
    ///
    /// The requirements of [`free_linked_or_span`](Self::free_linked_or_span) must be met.
    #[inline]
    pub unsafe fn free_linked_or_span_then(
        &mut self,
        block: BlockPtr,
        after_sweep: impl FnOnce(&mut Self),
    ) {
        let pool = PoolPtr::of_unit_with::<G>(&block);
        self.put_linked_or_span(pool, block, after_sweep);
    }

    /// Frees the block of a [span](SizeClass::is_span) without touching the block's memory.
    ///
    /// Calls `after_sweep` in the same cases as [`free_then`](Self::free_then).
    ///
    /// This takes fewer instructions than `free_then`, which must first find out what kind of block
    /// it frees.
    ///
    /// # Safety
    ///
    /// - `block` must have been allocated from this heap.
    /// - The class of `block` must be a class of spans.
    #[inline]
    pub unsafe fn free_span_then(&mut self, block: BlockPtr, after_sweep: impl FnOnce(&mut Self)) {
        let pool = PoolPtr::of_unit_with::<G>(&block);
        self_check::freeing::<G>(pool, &block);
        if pool.put_span(block) {
            self.pool_event(pool, after_sweep);
        }
    }

    #[inline]
    fn put_linked_or_span(
        &mut self,
        pool: PoolPtr,
        block: BlockPtr,
        after_sweep: impl FnOnce(&mut Self),
    ) {
        self_check::freeing::<G>(pool, &block);
        if pool.put_linked_or_span(block) {
            self.pool_event(pool, after_sweep);
        }
    }

    /// Returns the size of `block` in bytes, which can exceed the requested size.
    ///
    /// # Safety
    ///
    /// `block` must have been allocated from this heap.
    #[inline]
    pub unsafe fn block_size(&self, block: &BlockPtr) -> usize {
        PoolPtr::of::<G>(block).header().class::<G>().map_or(0, SizeClass::block_size)
    }

    /// Returns the tag of the heap that the block at `start` belongs to.
    ///
    /// Any thread may call this function, because the tag of a block in use never changes.
    ///
    /// # Safety
    ///
    /// `start` must lie in a block that is in use, of a heap with the geometry `G`.
    #[inline]
    pub unsafe fn tag_of(start: NonNull<u8>) -> HeapTag {
        // SAFETY: `start` lies in a block in use of a heap with this geometry (contract).
        unsafe { PoolPtr::tag_at::<G>(start) }
    }

    /// Unmaps every arena of the heap. O(arenas).
    ///
    /// # Safety
    ///
    /// No block of this heap may be used afterwards.
    pub unsafe fn reset(&mut self) {
        self.unmap_all();
    }

    /// Unmaps all arenas of the heap that have no block in use, and all large blocks that it
    /// retains.
    pub fn unmap_free_arenas(&mut self) {
        self.end_retentions();
        self.source.retain(self.retained_arenas(), 0);
        while let Some(base) = self.arenas.remove_free::<G>() {
            self.unmap(base);
        }
        self.release_large();
    }

    /// Returns as much unused memory to the system as possible.
    ///
    /// First unmaps every arena that contains no live block, even if the arena source lets the heap
    /// retain it. Then purges every page that no live block touches, which returns the memory of
    /// the page to the system but keeps its addresses. Only some geometries support purging.
    ///
    /// Trimming takes O(pools + free blocks) time, and one system call for each range of pages.
    ///
    /// The result is the number of bytes returned to the system. Some of these bytes may never have
    /// been in memory.
    pub fn trim(&mut self) -> usize {
        let before = self.arenas.counts().current;
        self.unmap_free_arenas();
        let unmapped = before - self.arenas.counts().current;
        unmapped * G::SIZES.arena_size + self.purge_free_pages() + self.source.trim()
    }

    /// Returns the number of arenas that the heap retains because the source allows it.
    ///
    /// The number includes the arenas that the source lets stay mapped only because of retained
    /// pools.
    pub fn retained_arenas(&self) -> usize {
        self.arenas.retained() + self.arenas_of_pools
    }

    /// Returns the source of arenas.
    #[inline]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Returns the number of requests that have failed because no arena could be mapped.
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Allocates a block of `class` when the free list of its first used pool is empty.
    #[cold]
    #[inline(never)]
    fn alloc_unlisted(&mut self, class: SizeClass<G>) -> Option<BlockPtr> {
        self.find_or_carve(class).map(|found| found.block)
    }

    /// Allocates a zeroed block of `class` when the free list of its first used pool is empty.
    #[cold]
    #[inline(never)]
    fn alloc_unlisted_zeroed(&mut self, class: SizeClass<G>, bytes: usize) -> Option<BlockPtr> {
        let Found { block, carved_from } = self.find_or_carve(class)?;
        if !carved_from.is_some_and(|pool| self.arenas.is_zero::<G>(pool)) {
            block.fill_with_zeros(bytes);
        }
        Some(block)
    }

    #[inline(always)]
    fn find_or_carve(&mut self, class: SizeClass<G>) -> Option<Found> {
        self.visit();
        self.check_sometimes();
        if class.is_span() {
            return self.find_or_carve_span(class);
        }
        self.end_retentions_for(class);
        let first = self.used.first(class);
        if first != PoolPtr::NONE {
            if let Some(found) = self.carve(first) {
                return Some(found);
            }
            self.used.remove_full(class, first);
            self.purging.note_tightened(1);
        }
        let mut pool = self.used.first(class);
        if pool == PoolPtr::NONE {
            pool = self.new_pool(class)?;
        }
        match pool.take(class) {
            Some(block) => Some(Found { block, carved_from: None }),
            None => self.carve(pool),
        }
    }

    /// Carves a block from `pool`, whose free list must be empty.
    #[inline(always)]
    fn carve(&mut self, pool: PoolPtr) -> Option<Found> {
        if pool.header().has_uncarved_pages() {
            return self.carve_again(pool);
        }
        Some(Found { block: pool.carve_block::<G>()?, carved_from: Some(pool) })
    }

    /// Allocates a block from `pool`, whose free list must be empty and which must have uncarved
    /// pages (see `arena::uncarved`).
    #[cold]
    fn carve_again(&mut self, pool: PoolPtr) -> Option<Found> {
        if self.arenas.carve_page::<G>(pool) {
            let block = pool.take(pool.header().class::<G>()?)?;
            return Some(Found { block, carved_from: None });
        }
        let before = pool.header().next_offset();
        let size = pool.header().class::<G>().map_or(0, SizeClass::block_size);
        // The page may be purged. Carving writes to it before we note that it is used.
        let end = (before + size).next_multiple_of(PAGE);
        mark_accessible(pool.start::<G>().addr().get() + before, end - before);
        let block = pool.carve_block::<G>()?;
        self.arenas.note_carved::<G>(pool, before);
        Some(Found { block, carved_from: Some(pool) })
    }

    /// Takes a free pool for `class`, or a full pool that has a free block.
    ///
    /// Maps an arena if no arena has a free pool. The pool becomes the first used pool of `class`.
    fn new_pool(&mut self, class: SizeClass<G>) -> Option<PoolPtr> {
        self.unused_pool(class, 1).or_else(|| self.full_pool_with_room(class))
    }

    /// Takes a free pool for `class` that begins at a multiple of `align` units.
    ///
    /// Maps an arena if no arena has one. The pool becomes the first used pool of `class`.
    pub(crate) fn unused_pool(&mut self, class: SizeClass<G>, align: usize) -> Option<PoolPtr> {
        let mut pool = self.take_free_pool(class, align);
        while pool.is_none()
            && let Some(larger) = self.empty.end_larger(class, &mut self.used, &mut self.arenas)
        {
            self.free_pool(larger);
            pool = self.take_free_pool(class, align);
        }
        if pool.is_none() && !self.empty.is_none() {
            self.end_retentions();
            pool = self.take_free_pool(class, align);
        }
        if pool.is_none() && self.map_arena() {
            pool = self.take_free_pool(class, align);
        }
        let pool = pool?;
        pool.become_used(class);
        self.purging.note_tightened(class.units());
        if class.is_span() {
            // We do not call `push_front`, because it removes the first pool from the list if the
            // pool has no free block. The first pool may be a retained span. It must stay in the
            // list even while its block is in use, because the fast path allocates this block
            // without ending the retention.
            self.used.link_first(class, pool);
        } else {
            self.used.push_front(class, pool);
        }
        Some(pool)
    }

    /// Puts the full pools of `class` that have free blocks back into the class's list. O(pools).
    ///
    /// A pool that has run out of blocks leaves its class's list and is marked as full. It returns
    /// to the list only after several of its blocks have been freed, so a full pool can have a few
    /// free blocks. If there is no memory for a new pool, this function makes these free blocks
    /// available.
    ///
    /// All other full pools of the class become *exhausted*. An exhausted pool returns to the list
    /// as soon as one of its blocks is freed. Until the heap maps an arena, every pool of the class
    /// that runs out of blocks becomes exhausted instead of full, so another search would find
    /// nothing.
    ///
    /// Returns the first pool in the list, or `None` if no full pool has a free block.
    #[cold]
    fn full_pool_with_room(&mut self, class: SizeClass<G>) -> Option<PoolPtr> {
        if class.frees_until_used() == 1 || !self.used.note_short(class) {
            return None;
        }
        let pools = self.arenas.arenas().flat_map(|(_, arena)| arena.pools::<G>());
        for pool in pools.inspect(|_| visits::count()) {
            let header = pool.header();
            if header.state() != State::Full || header.class() != Some(class) {
                continue;
            }
            if pool.free_blocks::<G>().next().is_none() {
                header.become_exhausted();
            } else {
                header.become_used_again(class);
                self.used.push_front(class, pool);
            }
        }
        Some(self.used.first(class)).filter(|first| *first != PoolPtr::NONE)
    }

    /// Takes a pool from the fullest arena that has one. If that arena was retained, notifies the
    /// source.
    fn take_free_pool(&mut self, class: SizeClass<G>, align: usize) -> Option<PoolPtr> {
        let retained = self.arenas.retained();
        let origin = Origin { tag: self.tag, blocks: self.blocks };
        let pool = self.arenas.take_pool(origin, class, align);
        if self.arenas.retained() < retained {
            self.source.reuse_retained(1);
        }
        pool
    }

    /// Maps an arena. If that fails, counts a refused request and returns false.
    fn map_arena(&mut self) -> bool {
        self.report_reuse();
        let mapped = match self.arenas.reserve(&self.lower) {
            true => self.source.map_with_contents(Shape::<G>::ARENA).ok(),
            false => None,
        };
        let Some((base, contents)) = mapped else {
            self.refused += 1;
            return false;
        };
        // SAFETY: the source returned an aligned arena that is not in use and has these contents
        // (contract of `ArenaSource`), and a record was reserved above.
        unsafe { self.arenas.add::<G>(base, contents, self.tag) };
        self.used.note_ample();
        self.release_excess_large();
        true
    }

    /// Handles a free that changed the state of `pool`.
    ///
    /// If the pool was full, it returns to its class's list of used pools. If no block of the pool
    /// is in use any more, its class retains it, or it returns to its arena.
    ///
    /// Every 64th slow path of the heap checks the clock, and may then return memory to the system.
    /// If this slow path checks the clock, it also calls `after_sweep`.
    #[cold]
    #[inline(never)]
    fn pool_event(&mut self, pool: PoolPtr, after_sweep: impl FnOnce(&mut Self)) {
        let Some(class) = pool.header().class::<G>() else { return };
        if class.is_span() {
            self.span_emptied(class, pool);
        } else {
            self.shared_pool_event(class, pool);
        }
        if self.visit() {
            after_sweep(self);
        }
    }

    /// Does what [`pool_event`](Self::pool_event) does, for a pool of several blocks.
    fn shared_pool_event(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        self.end_retentions_for(class);
        if pool.header().state().is_full() {
            pool.header().become_used_again(class);
            self.purging.note_loosened(1);
            match G::RULES.retain {
                RetainRule::Unobservable => self.used.push_front(class, pool),
                RetainRule::EachClass => self.used.push_second(class, pool),
            }
        }
        if pool.header().is_empty() {
            self.pool_emptied(class, pool);
        }
    }

    /// Retains the empty `pool` if the geometry allows it. Otherwise returns the pool to its arena.
    fn pool_emptied(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        let is_only = pool.header().next.get().is_none() && pool.header().prev.get().is_none();
        match G::RULES.retain {
            RetainRule::Unobservable => {
                let may_retain = self.arenas.would_be_next::<G>(pool.header().arena());
                if may_retain && is_only {
                    return self.empty.retain(class, pool, &mut self.arenas);
                }
                if !may_retain {
                    // The arena may now have no pool in use except those that other classes retain.
                    self.end_retentions();
                }
            }
            RetainRule::EachClass => {
                if self.may_retain(class, pool, is_only) {
                    return self.empty.retain(class, pool, &mut self.arenas);
                }
            }
        }
        self.used.remove(class, pool);
        self.free_pool(pool);
    }

    /// Decides whether to retain `pool`, which has just become empty. `wants` says whether the
    /// class would retain it.
    ///
    /// If a block of the pool's arena is in use, the arena stays mapped anyway, and the result is
    /// `wants`. Otherwise, only retained pools would keep the arena mapped. The heap then needs the
    /// permission of the source, and the result is false if the source refuses.
    ///
    /// This function also ends the retention of all pools of the heap in two cases: the source
    /// refuses and another pool of the same arena is retained, or retained pools keep more arenas
    /// mapped than the source now permits.
    #[inline]
    pub(crate) fn may_retain(&mut self, class: SizeClass<G>, pool: PoolPtr, wants: bool) -> bool {
        // While the source permits more arenas than retained pools keep mapped, the heap need not
        // ask.
        let is_permitted = self.arenas.pinned() < self.arenas_of_pools;
        match !is_permitted && self.could_free_arena_of(class, pool) {
            true => self.may_pin_arena_of(pool, wants),
            false => wants,
        }
    }

    /// The slow path of [`may_retain`](Self::may_retain), for an arena without a block in use.
    #[cold]
    #[inline(never)]
    fn may_pin_arena_of(&mut self, pool: PoolPtr, wants: bool) -> bool {
        let has_others = self.arenas.has_retained_pools(pool.header().arena());
        if !wants && !has_others {
            return false;
        }
        let pinned = self.arenas.pinned_by_permission::<G>();
        if pinned < self.arenas_of_pools {
            return wants;
        }
        let (had, known) = (self.retained_arenas(), self.arenas_of_pools);
        let granted = self.source.retain(had, self.arenas.retained() + pinned + 1);
        self.arenas_of_pools = granted.saturating_sub(self.arenas.retained()).min(pinned + 1);
        self.arenas.expect_pinned(self.arenas_of_pools.saturating_sub(known));
        self.unmap_retained_beyond(granted - self.arenas_of_pools);
        if self.arenas_of_pools > pinned {
            return wants;
        }
        if has_others || self.arenas_of_pools < pinned {
            self.end_retentions();
        }
        false
    }

    /// Tells the source how many arenas of retained pools are in use again.
    ///
    /// If the source permits it, an arena without a block in use stays mapped as long as size
    /// classes retain pools in it. When the program allocates from one of these pools, the arena is
    /// in use again, and no longer needs the permission. Allocations must be fast, so they do not
    /// tell the source. Instead, the heap calls this function in each sweep, and before it maps an
    /// arena.
    fn report_reuse(&mut self) {
        let pinned = self.arenas.pinned_by_permission::<G>();
        if pinned < self.arenas_of_pools {
            self.source.reuse_retained(self.arenas_of_pools - pinned);
            self.arenas_of_pools = pinned;
        }
    }

    /// Tells the source how many retained arenas were used again, and asks to retain them anew.
    ///
    /// If the source permits it, an arena without a block in use stays mapped as long as size
    /// classes retain pools in it. A loop that allocates and frees one span of this arena uses the
    /// arena again in each iteration. It would take too long to tell the source each time, so the
    /// heap calls this function only when it checks its clock.
    pub(crate) fn renew_permission(&mut self) {
        let (least, most) = self.arenas.take_extremes();
        let used = self.arenas_of_pools.saturating_sub(least);
        if used == 0 {
            return;
        }
        self.source.reuse_retained(used);
        let (free, known) = (self.arenas.retained(), self.arenas_of_pools - used);
        let wanted = most.clamp(known, self.arenas_of_pools);
        let granted = self.source.retain(free + known, free + wanted);
        self.arenas_of_pools = granted.saturating_sub(free).min(wanted);
        self.unmap_retained_beyond(granted - self.arenas_of_pools);
        if self.arenas_of_pools < self.arenas.pinned_by_permission::<G>() {
            self.end_retentions();
        }
    }

    /// Returns true if the arena of `pool` could be unmapped once `pool` and all retained pools of
    /// the arena are free.
    fn could_free_arena_of(&self, class: SizeClass<G>, pool: PoolPtr) -> bool {
        self.arenas.could_be_free::<G>(pool.header().arena(), class.units())
    }

    /// Ends the retention of the pools of `class`, before a slow path uses or changes these pools.
    ///
    /// Under [`RetainRule::Unobservable`], ends the retention of the pools of every class.
    #[inline]
    fn end_retentions_for(&mut self, class: SizeClass<G>) {
        while let Some(pool) = self.empty.end_for(class, &mut self.used, &mut self.arenas) {
            self.free_pool(pool);
        }
    }

    pub(crate) fn end_retentions(&mut self) {
        while let Some(pool) = self.empty.end_any::<G>(&mut self.used, &mut self.arenas) {
            self.free_pool(pool);
        }
        if self.arenas_of_pools > 0 {
            self.source.retain(self.retained_arenas(), self.arenas.retained());
            self.arenas_of_pools = 0;
        }
    }

    /// Returns `pool` to its arena. The pool must be empty and in no list.
    ///
    /// If all pools of the arena are then free, unmaps the arena unless the heap may retain it.
    pub(crate) fn free_pool(&mut self, pool: PoolPtr) {
        self.purging.note_loosened(pool.header().class::<G>().map_or(1, SizeClass::units));
        pool.header().become_free::<G>();
        let (source, of_pools) = (&mut self.source, &mut self.arenas_of_pools);
        let mut may_retain = usize::MAX;
        let unmapped = self.arenas.put_pool::<G>(pool, |retained, pinned| {
            let granted = match G::RULES.retain {
                RetainRule::Unobservable => 0,
                RetainRule::EachClass => {
                    let had = retained + *of_pools;
                    *of_pools = pinned.min(*of_pools);
                    source.retain(had, retained + *of_pools + 1)
                }
            };
            // If the source now allows fewer arenas than before, the heap gives up free arenas
            // before retained pools.
            *of_pools = granted.min(*of_pools);
            may_retain = granted - *of_pools;
            may_retain > retained
        });
        if let Some(base) = unmapped {
            self.unmap(base);
        }
        self.unmap_retained_beyond(may_retain);
    }

    /// Unmaps free arenas until the heap retains at most `most` free arenas.
    ///
    /// We always inline this function, because its name contains `unmap`. In the library for
    /// CPython, the linker collects functions with `unmap` in their names in one part of the code.
    /// The library removes this part from memory once it has started, so a call of a function in it
    /// would load a page again.
    #[inline(always)]
    fn unmap_retained_beyond(&mut self, most: usize) {
        while self.arenas.retained() > most
            && let Some(base) = self.arenas.remove_free::<G>()
        {
            self.unmap(base);
        }
    }

    /// Unmaps the free arenas that the source no longer lets the heap retain.
    pub(crate) fn unmap_excess(&mut self) {
        self.report_reuse();
        let retained = self.retained_arenas();
        if retained == 0 {
            return;
        }
        let granted = self.source.retain(retained, retained);
        self.arenas_of_pools = granted.min(self.arenas_of_pools);
        self.unmap_retained_beyond(granted - self.arenas_of_pools);
    }

    /// Purges free units, and uncarved pages of pools (see `arena::uncarved`), until the source
    /// refuses. Returns the number of purged bytes.
    pub(crate) fn purge(&mut self, which: Which) -> usize {
        let (source, mut pages, mut is_refused) = (&mut self.source, 0, false);
        self.arenas.visit(|arena| {
            let stays = is_refused || which == Which::InArenasInUse && arena.is_free::<G>();
            let Some(base) = arena.base().filter(|_| !stays) else { return };
            pages += arena.purge::<G>(which == Which::Idle, |range| {
                // SAFETY: the pages lie in the arena, which is valid as a whole.
                let start = unsafe { base.add(range.start * PAGE) };
                // SAFETY: the arena came from this source. No block on the pages is in use or on a
                // free list.
                is_refused = unsafe { source.purge(start, range.len() * PAGE) }.is_err();
                if !is_refused {
                    mark_inaccessible(start.addr().get(), range.len() * PAGE);
                }
                !is_refused
            });
        });
        pages * PAGE
    }

    fn unmap(&mut self, base: NonNull<u8>) {
        mark_arena_accessible::<G>(base);
        // SAFETY: the arena came from this source, and nothing refers to it without its record.
        unsafe { self.source.unmap(base, Shape::<G>::ARENA) };
    }

    fn unmap_all(&mut self) {
        self.used = UsedPools::new();
        self.empty = EmptyPools::NONE;
        self.source.retain(self.retained_arenas(), 0);
        self.arenas_of_pools = 0;
        self.arenas.clear(&self.lower, |base| {
            mark_arena_accessible::<G>(base);
            // SAFETY: the arena came from this source, and the lists of pools were cleared above.
            unsafe { self.source.unmap(base, Shape::<G>::ARENA) };
        });
        // SAFETY: the blocks are no longer used (contract of the callers).
        unsafe { self.unmap_all_large() };
    }
}

/// Makes purged pages accessible to the next user of the arena at `base`.
fn mark_arena_accessible<G: Geometry>(base: NonNull<u8>) {
    if Shape::<G>::PURGES {
        mark_accessible(base.addr().get(), G::SIZES.arena_size);
    }
}

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Drop for Heap<S, A, G> {
    fn drop(&mut self) {
        self.unmap_all();
    }
}

/// Counts nothing, because only tests need the number of visited pools.
#[cfg(not(test))]
mod visits {
    #[inline]
    pub(super) fn count() {}
}

/// Counts how many pools the calling thread has visited in searches.
#[cfg(test)]
mod visits {
    use core::cell::Cell;

    std::thread_local! {
        static VISITS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        VISITS.set(VISITS.get() + 1);
    }

    /// Returns the number of visits during `body`.
    pub(super) fn during(body: impl FnOnce()) -> usize {
        let before = VISITS.get();
        body();
        VISITS.get() - before
    }
}

#[cfg(test)]
mod tests {
    use core::{cell::Cell, time::Duration};
    use std::{thread_local, vec::Vec};

    use raw_mem::{
        ArenaSize, LimitedArenas, Limits, Malloc, MallocArenas, MapError, MmapArenas, NoAlloc,
    };

    use super::*;
    use crate::{
        HeaderRule, Native, PurgePolicy, Rules, Sizes,
        geometry::eras::{GiveBackAll, Pools4K, RetainEachClass},
    };

    type TestHeap<G> = Heap<MmapArenas, Malloc, G>;

    fn heap<G: Geometry>() -> TestHeap<G> {
        Heap::with_geometry(MmapArenas::new(), Malloc)
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
            // SAFETY: the tests free each block once, to the heap that allocated it.
            unsafe { heap.free(block) };
            heap.check_invariants();
        }
    }

    #[test]
    fn blocks_whose_size_is_a_multiple_of_their_alignment_share_a_pool() {
        let mut heap = heap::<Native>();
        let class = SizeClass::of(8192).unwrap();
        let blocks: Vec<_> = (0..64).map(|_| heap.alloc_aligned(class, 4096).unwrap()).collect();
        assert!(blocks.iter().all(|block| block.start().addr().get().is_multiple_of(4096)));
        assert_eq!(heap.stats().arenas.current, 1, "64 blocks need 512 KiB");
        drain(&mut heap, blocks);
    }

    /// If the heap cannot map an arena, an ordinary request can get a free block of a full pool. A
    /// request with an alignment of 4096 bytes can get this block only if it begins at a multiple
    /// of 4096 bytes. In this test, the only free block does not.
    #[test]
    fn an_aligned_block_is_aligned_or_refused_when_no_arena_can_be_mapped() {
        let source = LimitedArenas::new(MmapArenas::new(), Limits::hard(1 << 20));
        let mut heap = Heap::<_, _, Native>::with_geometry(source, Malloc);
        let class = SizeClass::of(3072).unwrap();
        let mut blocks: Vec<_> = core::iter::from_fn(|| heap.alloc(class)).collect();
        let is_aligned = |block: &BlockPtr| block.start().addr().get().is_multiple_of(4096);
        let at = blocks.iter().position(|block| !is_aligned(block)).unwrap();
        // SAFETY: the block came from this heap, and is not used again.
        unsafe { heap.free(blocks.swap_remove(at)) };
        assert!(heap.alloc_aligned(class, 4096).as_ref().is_none_or(is_aligned));
        assert!(heap.alloc(class).is_some(), "the block is still free");
    }

    /// Regression test: the heap mapped another arena for each of these requests.
    #[test]
    fn an_aligned_block_that_fits_in_no_arena_is_refused_without_mapping_one() {
        #[derive(Clone, Copy, Debug, Default)]
        struct LargeSpans;

        impl Geometry for LargeSpans {
            const NAME: &'static str = "large spans";
            const SIZES: Sizes = Sizes {
                small_threshold: 256,
                linked_threshold: 256,
                arena_threshold: 15 << 12,
                pool_size: 4 << 10,
                arena_size: 64 << 10,
                ..Sizes::CPYTHON
            };
            const RULES: Rules = Rules {
                headers: HeaderRule::InArena,
                retain: RetainRule::EachClass,
                ..Rules::CPYTHON
            };
        }

        let mut heap = heap::<LargeSpans>();
        let spans = |units: usize| SizeClass::of(units << 12).unwrap();
        for units in 9..=15 {
            assert!(heap.alloc_aligned(spans(units), 32 << 10).is_none(), "{units} units");
        }
        assert_eq!(heap.stats().arenas.current, 0);
        let block = heap.alloc_aligned(spans(8), 32 << 10).unwrap();
        assert!(block.start().addr().get().is_multiple_of(32 << 10));
        heap.check_invariants();
        drain(&mut heap, [block]);
    }

    #[test]
    fn the_block_freed_last_is_allocated_first() {
        let mut heap = heap::<Pools16K>();
        let class = SizeClass::of(64).unwrap();
        let blocks = [(); 3].map(|()| heap.alloc(class).unwrap());
        let starts = blocks.each_ref().map(BlockPtr::start);
        drain(&mut heap, blocks);
        let again = [(); 3].map(|()| heap.alloc(class).unwrap().into_start());
        assert!(again.iter().eq(starts.iter().rev()));
    }

    #[test]
    fn a_full_pool_with_a_freed_block_serves_the_next_request() {
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
    fn an_emptied_pool_serves_any_class() {
        let mut heap = heap::<Pools4K>();
        let block = heap.alloc(SizeClass::of(8).unwrap()).unwrap();
        let start = block.start();
        drain(&mut heap, [block]);
        let other = heap.alloc(SizeClass::of(512).unwrap()).unwrap();
        assert_eq!(other.start(), start);
        assert_eq!(heap.stats().classes()[0].pools, 0);
    }

    #[test]
    fn every_free_arena_but_the_last_is_unmapped() {
        let mut heap = heap::<Pools4K>();
        let blocks = fill(&mut heap, 512, 2);
        drain(&mut heap, blocks);
        assert_eq!(heap.stats().arenas.current, 1);
        assert_eq!(heap.stats().arenas.highwater, 3);
    }

    #[test]
    fn under_the_older_rule_every_free_arena_is_unmapped() {
        let mut heap = heap::<GiveBackAll<Pools4K>>();
        let blocks = fill(&mut heap, 512, 2);
        drain(&mut heap, blocks.into_iter().rev());
        assert_eq!(heap.stats().arenas.current, 0);
        assert!(heap.alloc(SizeClass::of(1).unwrap()).is_some());
    }

    #[test]
    fn free_arenas_are_unmapped_on_demand() {
        let mut heap = heap::<Pools4K>();
        let mut blocks = fill(&mut heap, 512, 1);
        let last = blocks.pop();
        drain(&mut heap, blocks);
        heap.unmap_free_arenas();
        assert_eq!(heap.stats().arenas.current, 1);
        drain(&mut heap, last);
        heap.unmap_free_arenas();
        heap.check_invariants();
        assert_eq!(heap.stats().arenas.current, 0);
        assert!(heap.alloc(SizeClass::of(512).unwrap()).is_some());
    }

    /// `trim` must also unmap the free arenas that the heap itself retains.
    ///
    /// Regression test (mutant 17).
    #[test]
    fn a_trim_unmaps_free_arenas() {
        let mut heap = heap::<Pools4K>();
        let block = heap.alloc(SizeClass::of(512).unwrap());
        drain(&mut heap, block);
        assert_eq!(heap.stats().arenas.current, 1);
        heap.trim();
        heap.check_invariants();
        assert_eq!(heap.stats().arenas.current, 0);
    }

    /// Regression test (mutant 18).
    #[test]
    fn requests_that_find_no_arena_are_counted() {
        let mut heap = Heap::new(MallocArenas::new(NoAlloc), Malloc);
        for refused in 1..=3 {
            assert!(heap.alloc(SizeClass::of(100).unwrap()).is_none());
            assert_eq!((heap.refused(), heap.stats().refused), (refused, refused));
        }
    }

    #[test]
    fn a_reset_unmaps_every_arena() {
        let mut heap = heap::<Pools16K>();
        drop(fill(&mut heap, 256, 3));
        // SAFETY: the blocks are no longer used.
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

    /// A source that lets the heap retain up to `max` arenas.
    ///
    /// It counts how often the heap asks to retain arenas, and how many retained arenas are reused.
    struct Retaining {
        source: MmapArenas,
        max: usize,
        retained: usize,
        asked: usize,
        reused: usize,
    }

    // SAFETY: the source below maps and unmaps every arena.
    unsafe impl ArenaSource for Retaining {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            self.source.map(size)
        }

        unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
            // SAFETY: the arena came from the source below (contract of `unmap`).
            unsafe { self.source.unmap(arena, size) }
        }

        fn retain(&mut self, had: usize, want: usize) -> usize {
            assert_eq!(had, self.retained, "the heap knows what it was granted");
            self.asked += 1;
            self.retained = want.min(self.max);
            self.retained
        }

        fn reuse_retained(&mut self, count: usize) {
            self.retained -= count;
            self.reused += count;
        }
    }

    type RetainingHeap = Heap<Retaining, Malloc, RetainEachClass<Pools4K>>;

    const POOLS: usize = 64;

    /// The number of blocks of 512 bytes in a pool.
    const BLOCKS: usize = 7;

    fn retaining(max: usize) -> RetainingHeap {
        Heap::with_geometry(source(max), Malloc)
    }

    fn source(max: usize) -> Retaining {
        Retaining { source: MmapArenas::new(), max, retained: 0, asked: 0, reused: 0 }
    }

    fn take(heap: &mut RetainingHeap, size: usize, count: usize) -> Vec<BlockPtr> {
        let class = SizeClass::of(size).unwrap();
        let blocks = (0..count).map(|_| heap.alloc(class).unwrap()).collect();
        heap.check_invariants();
        blocks
    }

    fn put(heap: &mut RetainingHeap, blocks: Vec<BlockPtr>) {
        for block in blocks {
            // SAFETY: the tests free each block once, to the heap that allocated it.
            unsafe { heap.free(block) };
            heap.check_invariants();
            assert_eq!(heap.source().retained, heap.retained_arenas());
        }
    }

    #[test]
    fn blocks_of_an_emptied_pool_are_carved_in_ascending_order_again() {
        let mut heap = retaining(0);
        let blocks = take(&mut heap, 512, 4 * BLOCKS);
        let mut starts: Vec<_> = blocks.iter().map(BlockPtr::start).collect();
        put(&mut heap, blocks);
        assert_eq!((heap.empty.count(), heap.stats().bytes.in_use), (1, 0));
        let again = take(&mut heap, 512, 4 * BLOCKS);
        let mut served: Vec<_> = again.iter().map(BlockPtr::start).collect();
        // The retained pool kept its free list. All others were carved again in ascending order.
        assert!(served[BLOCKS..].chunks(BLOCKS).all(|pool| pool.is_sorted()));
        starts.sort();
        served.sort();
        assert_eq!(served, starts);
        put(&mut heap, again);
    }

    #[test]
    fn pools_of_an_arena_in_use_serve_any_class_before_an_arena_is_mapped() {
        let mut heap = retaining(0);
        let mut blocks = take(&mut heap, 512, POOLS * BLOCKS);
        let last = blocks.split_off(blocks.len() - 1);
        put(&mut heap, blocks);
        let other = take(&mut heap, 256, (POOLS - 1) * 15);
        assert_eq!(heap.stats().arenas.current, 1);
        put(&mut heap, other);
        put(&mut heap, last);
    }

    #[test]
    fn free_arenas_but_the_last_are_unmapped_if_the_source_retains_none() {
        let mut heap = retaining(0);
        let blocks = take(&mut heap, 512, 3 * POOLS * BLOCKS);
        put(&mut heap, blocks);
        assert_eq!((heap.stats().arenas.current, heap.retained_arenas()), (1, 0));
    }

    #[test]
    fn a_heap_retains_as_many_arenas_as_its_source_allows() {
        let mut heap = retaining(2);
        let blocks = take(&mut heap, 512, 5 * POOLS * BLOCKS);
        put(&mut heap, blocks);
        assert_eq!((heap.stats().arenas.current, heap.retained_arenas()), (3, 2));
        let blocks = take(&mut heap, 512, 3 * POOLS * BLOCKS);
        assert_eq!((heap.source().reused, heap.retained_arenas()), (2, 0));
        assert_eq!(heap.stats().arenas.allocated, 5);
        put(&mut heap, blocks);
    }

    #[test]
    fn a_source_that_retains_less_makes_the_heap_unmap_the_others() {
        let mut heap = retaining(3);
        let mut blocks = take(&mut heap, 512, 6 * POOLS * BLOCKS);
        let others = blocks.split_off(4 * POOLS * BLOCKS);
        put(&mut heap, blocks);
        assert_eq!((heap.stats().arenas.current, heap.retained_arenas()), (6, 3));
        heap.source.max = 0;
        put(&mut heap, others);
        assert_eq!((heap.stats().arenas.current, heap.retained_arenas()), (1, 0));
    }

    #[test]
    fn retained_pools_keep_no_arena_mapped_once_the_source_refuses() {
        let mut heap = retaining(10);
        // The blocks of each size fill an arena. These are their numbers in a pool.
        let [first, second, third, last] = [(512, BLOCKS), (256, 15), (128, 31), (64, 63)]
            .map(|(size, in_pool)| take(&mut heap, size, POOLS * in_pool));
        [first, second, third].into_iter().for_each(|blocks| put(&mut heap, blocks));
        assert_eq!((heap.stats().arenas.current, heap.arenas.pinned()), (4, 3));
        heap.source.max = 0;
        put(&mut heap, last);
        assert_eq!((heap.stats().arenas.current, heap.arenas.pinned()), (1, 0));
    }

    /// The number of arenas that a [`LimitedHeap`] may have.
    const LIMIT: usize = 32;

    type LimitedHeap = Heap<LimitedArenas<MmapArenas>, Malloc, Native>;

    /// Returns a heap that has reached its limit, and its blocks for each of `sizes`.
    fn without_memory<const N: usize>(sizes: [usize; N]) -> (LimitedHeap, [Vec<BlockPtr>; N]) {
        let source = LimitedArenas::new(MmapArenas::new(), Limits::hard(LIMIT << 20));
        let mut heap = Heap::with_geometry(source, Malloc);
        let mut blocks = sizes.map(|_| Vec::new());
        let mut is_served = true;
        while is_served {
            is_served = false;
            for (size, blocks) in sizes.iter().zip(&mut blocks) {
                let block = heap.alloc(SizeClass::of(*size).unwrap());
                is_served |= block.is_some();
                blocks.extend(block);
            }
        }
        heap.check_invariants();
        (heap, blocks)
    }

    /// Regression test: every request that got no arena visited all pools.
    #[test]
    fn a_heap_without_memory_visits_its_pools_once_for_each_class() {
        let classes = [1024, 512, 3000].map(|size| SizeClass::of(size).unwrap());
        let visits = visits::during(|| {
            let (mut heap, _blocks) = without_memory([1024, 512, 3000]);
            for nth in 0..1000 {
                assert!(heap.alloc(classes[nth % 3]).is_none());
            }
        });
        assert!(visits <= 3 * LIMIT * 64, "{visits} visits");
    }

    /// Regression test: a request was refused right after a block of its class had been freed.
    #[test]
    fn while_there_is_no_memory_requests_get_every_block_that_was_freed() {
        let sizes = [48, 1024, 3000];
        let (mut heap, mut blocks) = without_memory(sizes);
        for nth in 0..3000 {
            let (size, blocks) = (sizes[nth % 3], &mut blocks[nth % 3]);
            let count = 1 + nth / 3 % 5;
            let freed: Vec<_> =
                (0..count).map(|_| blocks.swap_remove(nth * 7919 % blocks.len())).collect();
            let mut starts: Vec<_> = freed.iter().map(BlockPtr::start).collect();
            for block in freed {
                // SAFETY: the block came from this heap, and is freed once.
                unsafe { heap.free(block) };
            }
            let again: Vec<_> =
                (0..count).map(|_| heap.alloc(SizeClass::of(size).unwrap()).unwrap()).collect();
            let mut served: Vec<_> = again.iter().map(BlockPtr::start).collect();
            starts.sort();
            served.sort();
            assert_eq!(served, starts);
            assert!(heap.alloc(SizeClass::of(size).unwrap()).is_none());
            blocks.extend(again);
            if nth % 100 == 0 {
                heap.check_invariants();
            }
        }
        for block in blocks.into_iter().flatten() {
            // SAFETY: as above.
            unsafe { heap.free(block) };
        }
        heap.check_invariants();
        assert_eq!(heap.stats().bytes.in_use, 0);
    }

    #[test]
    fn a_loop_of_spans_asks_the_source_only_when_the_clock_has_advanced() {
        thread_local!(static NOW: Cell<u64> = const { Cell::new(1) });
        let mut heap: Heap<_, _, Native> = Heap::with_geometry(source(100), Malloc);
        let clock = || Duration::from_millis(NOW.get());
        heap.set_purge_policy(PurgePolicy::after(Duration::from_secs(10), clock));
        let class = SizeClass::of(200 << 10).unwrap();
        let mut asked = Vec::new();
        for round in 0..60 {
            let blocks: Vec<_> = (0..100).map(|_| heap.alloc(class).unwrap()).collect();
            for block in blocks {
                // SAFETY: the block came from this heap, and is freed once.
                unsafe { heap.free(block) };
            }
            heap.check_invariants();
            asked.push(heap.source().asked);
            NOW.set(NOW.get() + u64::from(round >= 40));
        }
        assert_eq!(asked[9], asked[39], "the time stands still: {asked:?}");
        let asked = asked[59] - asked[39];
        assert!((1..=20).contains(&asked), "the clock advances 20 times: asked {asked} times");
    }

    #[test]
    fn the_source_learns_of_reused_arenas_before_another_one_is_mapped() {
        let mut heap: Heap<_, _, Native> = Heap::with_geometry(source(100), Malloc);
        // The clock stands still, so the heap does not renew its permission meanwhile.
        let clock = || Duration::from_secs(1);
        heap.set_purge_policy(PurgePolicy::after(Duration::from_secs(10), clock));
        let class = SizeClass::of(200 << 10).unwrap();
        let take = |heap: &mut Heap<_, _, Native>, count| {
            (0..count).map(|_| heap.alloc(class).unwrap()).collect::<Vec<_>>()
        };
        for _ in 0..3 {
            for block in take(&mut heap, 100) {
                // SAFETY: the block came from this heap, and is freed once.
                unsafe { heap.free(block) };
            }
        }
        let (arenas, reused) = (heap.stats().arenas.current, heap.source().reused);
        let retained = heap.empty.count();
        let _in_use = take(&mut heap, retained);
        assert_eq!((heap.stats().arenas.current, heap.source().reused), (arenas, reused));
        while heap.stats().arenas.current == arenas {
            let _in_use = take(&mut heap, 1);
        }
        assert!(heap.source().reused > reused);
    }

    #[test]
    fn the_second_sweep_without_a_use_ends_the_retention_of_a_pool() {
        thread_local!(static NOW: Cell<u64> = const { Cell::new(1) });
        let mut heap: Heap<_, _, Native> = Heap::with_geometry(source(0), Malloc);
        let clock = || Duration::from_secs(NOW.get());
        heap.set_purge_policy(PurgePolicy::after(Duration::from_secs(5), clock));
        let _in_use = heap.alloc(SizeClass::of(100).unwrap()).unwrap();
        let block = heap.alloc(SizeClass::of(500).unwrap()).unwrap();
        // SAFETY: the block came from this heap, and is freed once.
        unsafe { heap.free(block) };
        let retained_after = [1, 3, 5, 7].map(|seconds| {
            NOW.set(seconds);
            while !heap.visit() {}
            heap.empty.count()
        });
        assert_eq!(retained_after, [1, 1, 0, 0]);
    }

    #[test]
    fn a_pool_that_is_used_again_serves_the_next_request_if_the_first_has_run_out() {
        let mut heap: Heap<_, _, Native> = Heap::with_geometry(source(0), Malloc);
        let class = SizeClass::of(512).unwrap();
        let mut blocks = Vec::from([heap.alloc(class).unwrap()]);
        let full = PoolPtr::of::<Native>(&blocks[0]);
        while heap.used.first(class) == full
            || !heap.used.first(class).header().has_run_out::<Native>()
        {
            blocks.push(heap.alloc(class).unwrap());
        }
        let of_full = blocks.into_iter().filter(|block| PoolPtr::of::<Native>(block) == full);
        for block in of_full.take(class.frees_until_used()) {
            // SAFETY: the block came from this heap, and is freed once.
            unsafe { heap.free(block) };
        }
        assert!(heap.alloc_listed(class).is_some());
        heap.check_invariants();
    }

    #[test]
    fn a_class_gets_the_unit_that_it_used_before() {
        let mut heap: Heap<_, _, Native> = Heap::with_geometry(source(0), Malloc);
        let mut second_pools = Vec::new();
        for size in [512, 256] {
            let class = SizeClass::of(size).unwrap();
            let blocks: Vec<_> = (0..2 * class.capacity()).map(|_| heap.alloc(class)).collect();
            let unit = PoolPtr::of::<Native>(blocks.last().unwrap().as_ref().unwrap());
            second_pools.extend(
                blocks.into_iter().flatten().filter(|block| PoolPtr::of::<Native>(block) == unit),
            );
        }
        let [first, .., last] = &second_pools[..] else { unreachable!() };
        let [of_512, of_256] = [first, last].map(PoolPtr::of::<Native>);
        for block in second_pools {
            // SAFETY: the block came from this heap, and is freed once.
            unsafe { heap.free(block) };
        }
        // The unit that served blocks of 512 bytes is lower, but the other one is preferred.
        assert!(of_512.start::<Native>() < of_256.start::<Native>());
        let block = heap.alloc(SizeClass::of(256).unwrap()).unwrap();
        assert_eq!(PoolPtr::of::<Native>(&block), of_256);
        heap.check_invariants();
    }

    #[test]
    fn all_slots_of_a_linked_class_lead_to_its_pools() {
        let mut heap: Heap<_, _, Native> = Heap::with_geometry(source(0), Malloc);
        for size in (513..=1024).step_by(64) {
            let class = SizeClass::of(size).unwrap();
            let kept = heap.alloc(class).unwrap();
            for size in size..=class.block_size() {
                let block = heap.alloc_linked(size).unwrap();
                // SAFETY: the block came from this heap, and is freed once.
                unsafe { heap.free(block) };
            }
            // SAFETY: as above.
            unsafe { heap.free(kept) };
            heap.check_invariants();
        }
    }

    /// Regression test (mutant 8).
    #[test]
    fn the_source_learns_that_retained_arenas_are_unmapped() {
        for arenas in 1..4 {
            let mut heap = retaining(10);
            let blocks = take(&mut heap, 512, arenas * POOLS * BLOCKS);
            put(&mut heap, blocks);
            assert_eq!(heap.retained_arenas(), arenas - 1);
            heap.unmap_free_arenas();
            heap.check_invariants();
            assert_eq!((heap.stats().arenas.current, heap.source().retained), (0, 0));
        }
    }

    #[test]
    fn a_reset_unmaps_retained_arenas() {
        for arenas in [0, 1, 3] {
            let mut heap = retaining(10);
            let blocks = take(&mut heap, 512, arenas * POOLS * BLOCKS);
            put(&mut heap, blocks);
            // SAFETY: no block is in use.
            unsafe { heap.reset() };
            heap.check_invariants();
            assert_eq!((heap.stats().arenas.current, heap.source().retained), (0, 0));
        }
    }
}
