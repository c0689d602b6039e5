//! A pool: one header, then blocks of one size.
//!
//! ```text
//!  0        first                   next_offset          pool_size
//!  ├────────┬───────┬───────┬─ ─ ─ ─┬───────────────────┬──────┐
//!  │ header │ block │ block │  ...  │ uncarved memory   │ tail │
//!  ├────────┴───────┴───────┴─ ─ ─ ─┴───────────────────┴──────┘
//! ```
//!
//! Under [`HeaderRule::InPools`] the header is in the pool, as drawn. Under [`HeaderRule::InArena`] it
//! stands with the headers of the other pools at the beginning of the arena, and `first` is 0 in all
//! pools but the first.
//!
//! When the free list is empty, we carve blocks from the uncarved memory. The first one is returned.
//! Those that begin on the page where it ends go to the free list, so carving touches no page that
//! the caller would not touch anyway.
//!
//! ```text
//!                 a class needs a pool             out of blocks
//!       free  ───────────────────────────► used ──────────────────► full
//!         ▲          last block freed       │ ▲      first block freed │
//!         └─────────────────────────────────┘ └────────────────────────┘
//! ```
//!
//! The header counts down to the next event, so a free needs one test for two events. In a used pool
//! the count is the number of blocks in use. [`PoolHeader::put`] brings it to 0 when the last one is
//! freed, and the pool is empty. In a full pool the count is 1, so the first block that is freed
//! brings it to 0 as well, and the pool is used again. A used pool can be *retained* by its class
//! (see `heap::empty_pools`). Then it counts one more than is in use, and there is no event.

use core::{cell::Cell, cmp, ptr::NonNull};

pub(crate) mod arena_index;
pub(crate) mod block;
pub(crate) mod tag;

use self::{
    arena_index::ArenaIndex,
    block::{BlockPtr, FreeList},
    tag::HeapTag,
};
use crate::geometry::{
    Geometry, HeaderRule, RetainRule,
    shape::{HEADER_SIZE, POOL_OVERHEAD, Shape},
    size_class::SizeClass,
};

const _: () = assert!(size_of::<PoolHeader>() == HEADER_SIZE);
const _: () = assert!(HEADER_SIZE + size_of::<HeapTag>() == POOL_OVERHEAD);

/// Carving may touch memory beyond the returned block up to the next multiple of this. No system has
/// smaller pages.
const PAGE: usize = 4096;

/// The state of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// No block is in use. The pool is in its arena's list.
    Free,
    /// A block is in use. The pool is in its class's list.
    Used,
    /// Every block is in use. The pool is in no list.
    Full,
    /// The pool is in its class's list, and stays there even if no block is in use.
    Retained,
}

/// The class of a pool that has none.
const NO_CLASS: u8 = u8::MAX;

/// The header of a pool. It is only borrowed shared, so what changes is in cells.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PoolHeader {
    free: FreeList,
    /// How many blocks must be freed until the next event: the number in use, one more in a retained
    /// pool, and 1 in a full one.
    until_event: Cell<u32>,
    class: Cell<u8>,
    state: Cell<State>,
    /// Offset of the first block.
    first: u16,
    /// The neighbours in the class's list. In a free pool, `next` is the next free pool of the arena.
    pub(crate) next: Cell<Option<PoolPtr>>,
    pub(crate) prev: Cell<Option<PoolPtr>>,
    arena: ArenaIndex,
    /// Offset of the uncarved memory.
    next_offset: Cell<u32>,
}

impl PoolHeader {
    const fn new(arena: ArenaIndex, first: u16) -> Self {
        Self {
            free: FreeList::new(),
            until_event: Cell::new(0),
            class: Cell::new(NO_CLASS),
            state: Cell::new(State::Free),
            first,
            next: Cell::new(None),
            prev: Cell::new(None),
            arena,
            next_offset: Cell::new(first as u32),
        }
    }

    /// Takes the block that was freed last.
    #[inline]
    pub(crate) fn take(&self) -> Option<BlockPtr> {
        let block = self.free.pop()?;
        self.until_event.set(self.until_event.get() + 1);
        Some(block)
    }

    /// Puts `block` on the free list. Returns true if this is an event (see the module's page).
    #[inline]
    #[must_use]
    pub(crate) fn put(&self, block: BlockPtr) -> bool {
        self.free.push(block);
        let until_event = self.until_event.get() - 1;
        self.until_event.set(until_event);
        until_event == 0
    }

    /// Returns the arena that the pool belongs to.
    #[inline]
    pub(crate) fn arena(&self) -> ArenaIndex {
        self.arena
    }

    /// Returns the pool's state.
    #[inline]
    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// Returns the pool's class. In a free pool this is the last class, or `None`.
    #[inline]
    pub(crate) fn class<G: Geometry>(&self) -> Option<SizeClass<G>> {
        SizeClass::from_index(usize::from(self.class.get()))
    }

    /// Returns the offset of the first block.
    pub(crate) fn first_offset(&self) -> usize {
        self.first.into()
    }

    /// Returns how many blocks of `class` the pool has room for.
    pub(crate) fn capacity<G: Geometry>(&self, class: SizeClass<G>) -> usize {
        (G::SIZES.pool_size - self.first_offset()) / class.block_size()
    }

    /// Returns the number of blocks in use.
    pub(crate) fn in_use<G: Geometry>(&self) -> usize {
        match (self.state.get(), self.class::<G>()) {
            (State::Full, Some(class)) => self.capacity(class),
            (State::Retained, _) => self.until_event.get() as usize - 1,
            _ => self.until_event.get() as usize,
        }
    }

    /// Returns how many blocks the uncarved memory has room for.
    pub(crate) fn uncarved<G: Geometry>(&self) -> usize {
        let bytes = G::SIZES.pool_size - self.next_offset.get() as usize;
        self.class::<G>().map_or(0, |class| bytes / class.block_size())
    }

    /// Iterates over the free list, in the order in which blocks will be taken.
    pub(crate) fn free_blocks(&self) -> impl Iterator<Item = NonNull<u8>> {
        self.free.iter()
    }

    /// Returns true if no block is free and none can be carved.
    pub(crate) fn has_run_out<G: Geometry>(&self) -> bool {
        let end = |class: SizeClass<G>| self.next_offset.get() as usize + class.block_size();
        self.free.is_empty() && self.class().is_none_or(|class| end(class) > G::SIZES.pool_size)
    }

    /// Records that every block is in use. The pool has left its class's list.
    pub(crate) fn become_full(&self) {
        self.state.set(State::Full);
        self.until_event.set(1);
    }

    /// Records that the first block of a full pool of `class` was freed.
    pub(crate) fn become_used_again<G: Geometry>(&self, class: SizeClass<G>) {
        self.state.set(State::Used);
        self.until_event.set(self.capacity(class) as u32 - 1);
    }

    /// Records that the last block was freed and the pool stays in its list. There are no events
    /// until [`end_retention`](Self::end_retention).
    pub(crate) fn become_retained(&self) {
        self.state.set(State::Retained);
        self.until_event.set(1);
    }

    /// Makes a retained pool a used one. Returns true if no block is in use, which is the event that
    /// was suppressed.
    #[must_use]
    pub(crate) fn end_retention(&self) -> bool {
        self.state.set(State::Used);
        let in_use = self.until_event.get() - 1;
        self.until_event.set(in_use);
        in_use == 0
    }

    /// Records that the last block was freed and the pool goes to its arena. Under
    /// [`RetainRule::Unobservable`] it keeps its class and free list, because CPython does: the next
    /// request of the class gets the block that was freed last.
    ///
    /// Otherwise all of its memory is uncarved again. Blocks will be carved in ascending order, so
    /// blocks that are allocated together are adjacent. Walking a tree built from such blocks takes
    /// 8 % less time in Python than walking one in the order in which the last tree was freed.
    pub(crate) fn become_free<G: Geometry>(&self) {
        self.state.set(State::Free);
        if G::RULES.retain == RetainRule::EachClass {
            self.class.set(NO_CLASS);
        }
    }

    /// Makes a free pool serve `class`. If it served that class before, it keeps its free list;
    /// otherwise all of its memory is uncarved.
    pub(crate) fn become_used<G: Geometry>(&self, class: SizeClass<G>) {
        debug_assert_eq!(self.state.get(), State::Free);
        debug_assert_eq!(self.until_event.get(), 0);
        self.state.set(State::Used);
        if self.class::<G>() != Some(class) {
            self.class.set(class.index() as u8);
            self.free.clear();
            self.next_offset.set(self.first.into());
        }
    }
}

/// Moves `pool` into a register and hides where it came from from the compiler.
///
/// The compiler would otherwise use the masked address as the index of each access to the header.
/// Some processors forward a store to the next load only if both name the same register and offset.
/// On these, the indexed form costs 5 cycles per access: an allocation and a free in turn took
/// 3.7 ns with it, and 1.1 ns without.
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
#[inline(always)]
fn in_a_register(mut pool: *mut PoolHeader) -> *mut PoolHeader {
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "no instruction, so no access")]
    // SAFETY: there is no instruction, so the register holds the same pointer afterwards.
    unsafe {
        core::arch::asm!(
            "/* {0} */",
            inout(reg) pool,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    pool
}

/// Returns `pool`. Other processors have not been measured.
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
#[inline(always)]
fn in_a_register(pool: *mut PoolHeader) -> *mut PoolHeader {
    pool
}

/// A pool of a mapped arena, found by carving the arena or from the address of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct PoolPtr(
    /// # Invariant
    ///
    /// The header was written when the pool was carved. It stays until the arena is unmapped, and no
    /// `PoolPtr` to it exists by then. The pointer is valid for reading and writing the whole pool.
    /// The one exception is [`PoolPtr::NONE`], which is never written.
    NonNull<PoolHeader>,
);

/// Returns the first byte of the arena that contains `start`.
#[inline]
fn arena_at<G: Geometry>(start: NonNull<u8>) -> *mut u8 {
    start.as_ptr().map_addr(|address| address & !(G::SIZES.arena_size - 1))
}

/// Returns the place of the tag of the heap that `start` belongs to.
#[inline]
fn tag_place<G: Geometry>(start: NonNull<u8>) -> *mut HeapTag {
    match G::RULES.headers {
        HeaderRule::InPools => PoolPtr::header_at::<G>(start).wrapping_add(1).cast(),
        HeaderRule::InArena => arena_at::<G>(start).wrapping_add(Shape::<G>::TAG).cast(),
    }
}

/// The header of [`PoolPtr::NONE`]. Its free list is always empty, so the fast path needs no test
/// for a class without a pool.
struct NoPool(PoolHeader);

// SAFETY: it has no block to take, so nothing ever writes to it.
unsafe impl Sync for NoPool {}

static NO_POOL: NoPool = NoPool(PoolHeader::new(ArenaIndex::NONE, 0));

impl PoolPtr {
    /// A pool without blocks, which stands in for the pool of a class that has none.
    // SAFETY: the address of a static is not null.
    pub(crate) const NONE: Self =
        Self(unsafe { NonNull::new_unchecked((&raw const NO_POOL.0).cast_mut()) });

    /// Makes a pool of the `pool_size` bytes at `start`, which belong to `arena`.
    ///
    /// # Safety
    ///
    /// - `start` must be aligned to the pool size.
    /// - The pool and the headers of its arena must be valid for reading and writing through `start`
    ///   until the arena is unmapped.
    /// - No pool was carved at `start` before.
    pub(crate) unsafe fn carve<G: Geometry>(
        start: NonNull<u8>,
        arena: ArenaIndex,
        tag: HeapTag,
    ) -> Self {
        let is_first = start.addr().get().is_multiple_of(G::SIZES.arena_size);
        let first = if is_first { Shape::<G>::BEFORE_FIRST_POOL } else { Shape::<G>::BEFORE_POOL };
        let pool = Self::containing::<G>(start);
        // SAFETY: the caller owns the memory, and a header fits its place.
        unsafe { pool.0.write(PoolHeader::new(arena, first as u16)) };
        if is_first || matches!(G::RULES.headers, HeaderRule::InPools) {
            // SAFETY: as above. The tag has a place of its own beside the headers.
            unsafe { tag_place::<G>(start).write(tag) };
        }
        // INVARIANT: the header was written above.
        pool
    }

    /// Returns the pool that was carved at `start`.
    ///
    /// # Safety
    ///
    /// [`PoolPtr::carve`] was called with `start`, and the arena has not been unmapped since.
    pub(crate) unsafe fn carved_at<G: Geometry>(start: NonNull<u8>) -> Self {
        // INVARIANT: the header was written when the pool was carved (contract of this function).
        Self::containing::<G>(start)
    }

    /// Returns the pool of `block`.
    #[inline]
    pub(crate) fn of<G: Geometry>(block: &BlockPtr) -> Self {
        // INVARIANT: the block is in use, so its pool was carved and is mapped.
        Self::containing::<G>(block.start())
    }

    /// Returns the pool that contains `start`, which was carved or is about to be.
    #[inline]
    fn containing<G: Geometry>(start: NonNull<u8>) -> Self {
        let header = Self::header_at::<G>(start);
        // SAFETY: no arena is at address 0.
        Self(unsafe { NonNull::new_unchecked(in_a_register(header)) })
    }

    /// Returns the header of the pool that contains `start`. A thread that does not own the heap may
    /// only read the fields that do not change while a block is in use.
    #[inline]
    fn header_at<G: Geometry>(start: NonNull<u8>) -> *mut PoolHeader {
        match G::RULES.headers {
            HeaderRule::InPools => {
                start.as_ptr().map_addr(|address| address & !(G::SIZES.pool_size - 1)).cast()
            }
            HeaderRule::InArena => {
                let pool = start.addr().get() / G::SIZES.pool_size % Shape::<G>::POOLS;
                arena_at::<G>(start).cast::<PoolHeader>().wrapping_add(pool)
            }
        }
    }

    /// Returns the tag of the heap that the block at `start` belongs to.
    ///
    /// # Safety
    ///
    /// `start` must lie in a block in use of a heap with the geometry `G`.
    #[inline]
    pub(crate) unsafe fn tag_at<G: Geometry>(start: NonNull<u8>) -> HeapTag {
        // SAFETY: the block keeps its arena mapped. The tag was written before the block was
        // allocated and does not change.
        unsafe { tag_place::<G>(start).read() }
    }

    #[inline]
    pub(crate) fn header(&self) -> &PoolHeader {
        // SAFETY: by the invariant, the header is valid. Headers are only borrowed shared.
        unsafe { self.0.as_ref() }
    }

    /// Returns the pool's first byte.
    pub(crate) fn start<G: Geometry>(self) -> NonNull<u8> {
        let header = self.0.cast::<u8>();
        match G::RULES.headers {
            HeaderRule::InPools => header,
            HeaderRule::InArena => {
                let offset = header.addr().get() & (G::SIZES.arena_size - 1);
                let pool = offset / size_of::<PoolHeader>();
                // SAFETY: the header is one of those at the beginning of its arena, which has as
                // many pools as headers.
                unsafe { header.sub(offset).add(pool * G::SIZES.pool_size) }
            }
        }
    }

    /// Carves and returns the first uncarved block of a pool whose free list is empty. Blocks that
    /// begin on the page where it ends go to the free list. Returns `None` if no block is uncarved.
    pub(crate) fn carve_block<G: Geometry>(self) -> Option<BlockPtr> {
        let header = self.header();
        let size = header.class::<G>()?.block_size();
        let start = header.next_offset.get() as usize;
        let limit = G::SIZES.pool_size - size;
        if start > limit {
            return None;
        }
        let mut next = start + size;
        let last = cmp::min(limit, (next - 1) | (PAGE - 1));
        if next <= last {
            let first = self.block_at::<G>(next);
            // SAFETY: uncarved blocks of this pool begin at the offsets from `next` to `last`.
            next += unsafe { header.free.fill(first, size, last - next) };
        }
        header.next_offset.set(next as u32);
        header.until_event.set(header.until_event.get() + 1);
        Some(self.block_at::<G>(start))
    }

    /// Returns the uncarved block at `offset`. The caller owns it.
    fn block_at<G: Geometry>(self, offset: usize) -> BlockPtr {
        // SAFETY: by the invariant, the pointer is valid for the whole pool. The offset lies inside
        // of it, and nothing else uses an uncarved block.
        unsafe { BlockPtr::from_start(self.start::<G>().add(offset)) }
    }
}

impl<G: Geometry> SizeClass<G> {
    /// Returns the class of the block that contains `start`.
    ///
    /// Threads that do not own the heap may call this, because the class of a block does not change
    /// while the block is in use.
    ///
    /// # Safety
    ///
    /// `start` must lie in a block in use of a heap with the geometry `G`.
    #[inline]
    pub unsafe fn at(start: NonNull<u8>) -> Option<Self> {
        let header = PoolPtr::header_at::<G>(start);
        // SAFETY: the block keeps its pool mapped, and the class of a pool does not change while one
        // of its blocks is in use.
        let class = unsafe { (&raw const (*header).class).cast::<u8>().read() };
        Self::from_index(usize::from(class))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use raw_mem::{ArenaSource, MmapArenas};

    use super::*;
    use crate::geometry::eras::{HeadersInArena, Pools4K, Pools16K};

    #[repr(align(16384))]
    struct Memory([u8; 16384]);

    /// Carves all pools of an arena, which stays mapped as long as `source` exists.
    fn carve_arena<G: Geometry>(source: &mut MmapArenas) -> Vec<PoolPtr> {
        let arena = source.map(Shape::<G>::ARENA).unwrap();
        let carve = |nth| {
            // SAFETY: the test owns the arena, and carves each pool once.
            unsafe {
                let start = arena.add(nth * G::SIZES.pool_size);
                PoolPtr::carve::<G>(start, ArenaIndex::NONE, HeapTag::NONE)
            }
        };
        (0..Shape::<G>::POOLS).map(carve).collect()
    }

    fn pool<G: Geometry>(memory: &mut Memory, size: usize) -> PoolPtr {
        let start = NonNull::from(&mut memory.0).cast();
        // SAFETY: the memory is borrowed exclusively, has the size of a pool, and is aligned to it.
        let pool = unsafe { PoolPtr::carve::<G>(start, ArenaIndex::NONE, HeapTag::NONE) };
        pool.header().become_used(SizeClass::<G>::of(size).unwrap());
        pool
    }

    fn take<G: Geometry>(pool: PoolPtr) -> Option<BlockPtr> {
        pool.header().take().or_else(|| pool.carve_block::<G>())
    }

    fn offsets<G: Geometry>(pool: PoolPtr) -> Vec<usize> {
        core::iter::from_fn(|| take::<G>(pool))
            .map(|block| block.start().addr().get() - pool.start::<G>().addr().get())
            .collect()
    }

    #[test]
    fn a_new_pool_returns_its_blocks_in_ascending_order() {
        for size in [16, 48, 80, 512] {
            let mut memory = Memory([0; 16384]);
            let pool = pool::<Pools16K>(&mut memory, size);
            let expected: Vec<_> =
                (0..(16384 - 48) / size).map(|nth| POOL_OVERHEAD + nth * size).collect();
            assert_eq!(offsets::<Pools16K>(pool), expected);
            assert!(pool.header().has_run_out::<Pools16K>());
        }
    }

    #[test]
    fn carving_writes_only_to_pages_of_the_returned_block() {
        for size in [16, 48, 208, 512] {
            let mut memory = Memory([0xa5; 16384]);
            let pool = pool::<Pools16K>(&mut memory, size);
            let mut given = 0;
            while let Some(block) = take::<Pools16K>(pool) {
                given = block.start().addr().get() - pool.start::<Pools16K>().addr().get() + size;
                let touched = (given - 1) / PAGE * PAGE + PAGE;
                // SAFETY: the test owns the pool, whose bytes are initialised.
                let untouched = unsafe {
                    core::slice::from_raw_parts(
                        pool.0.cast::<u8>().add(touched.min(16384)).as_ptr(),
                        16384_usize.saturating_sub(touched),
                    )
                };
                assert!(untouched.iter().all(|byte| *byte == 0xa5), "size {size}, given {given}");
            }
            assert!(given + size > 16384);
        }
    }

    #[test]
    fn a_pool_keeps_its_free_list_for_its_class_and_is_uncarved_for_another() {
        let mut memory = Memory([0; 16384]);
        let pool = pool::<Pools4K>(&mut memory, 64);
        let blocks: Vec<_> = (0..3).filter_map(|_| take::<Pools4K>(pool)).collect();
        let second = blocks[1].start();
        for block in [0, 2, 1] {
            // SAFETY: each block was taken above, and is put back once.
            let block = unsafe { BlockPtr::from_start(blocks[block].start()) };
            let _ = pool.header().put(block);
        }
        pool.header().become_free::<Pools4K>();
        pool.header().become_used(SizeClass::<Pools4K>::of(64).unwrap());
        assert_eq!(take::<Pools4K>(pool).map(BlockPtr::into_start), Some(second));
        // SAFETY: the block was taken above.
        let _ = pool.header().put(unsafe { BlockPtr::from_start(second) });
        pool.header().become_free::<Pools4K>();
        pool.header().become_used(SizeClass::<Pools4K>::of(32).unwrap());
        let first = take::<Pools4K>(pool).unwrap();
        assert_eq!(
            first.start().addr().get(),
            pool.start::<Pools4K>().addr().get() + POOL_OVERHEAD
        );
    }

    #[test]
    fn with_headers_in_the_arena_pools_hold_only_blocks() {
        type Together = HeadersInArena<Pools16K>;
        let mut source = MmapArenas::new();
        let pools = carve_arena::<Together>(&mut source);
        let arena = pools[0].start::<Together>();
        for (nth, &pool) in pools.iter().enumerate() {
            assert_eq!(pool.0.addr().get(), arena.addr().get() + nth * 40);
            assert_eq!(pool.start::<Together>().addr().get(), arena.addr().get() + nth * 16384);
            pool.header().become_used(SizeClass::<Together>::of(256).unwrap());
            let offsets = offsets::<Together>(pool);
            let first = if nth == 0 { 6 * 512 } else { 0 };
            assert_eq!(offsets, (first..16384).step_by(256).collect::<Vec<_>>());
            assert_eq!(pool.header().in_use::<Together>(), offsets.len());
        }
        for nth in 6 * 2..64 * 64 {
            // SAFETY: every block was allocated above.
            let block = unsafe { BlockPtr::from_start(arena.add(nth * 256)) };
            assert_eq!(PoolPtr::of::<Together>(&block), pools[nth / 64]);
        }
    }

    #[test]
    fn the_pool_of_a_block_is_found_from_its_address() {
        let mut memory = Memory([0; 16384]);
        let pool = pool::<Pools16K>(&mut memory, 512);
        while let Some(block) = take::<Pools16K>(pool) {
            assert_eq!(PoolPtr::of::<Pools16K>(&block), pool);
        }
    }
}
