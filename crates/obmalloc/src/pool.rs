//! A pool, which consists of a header and blocks of one size.
//!
//! ```text
//!  0        first                   next_offset          pool_size
//!  ├────────┬───────┬───────┬─ ─ ─ ─┬───────────────────┬──────┐
//!  │ header │ block │ block │  ...  │ uncarved memory   │ tail │
//!  ├────────┴───────┴───────┴─ ─ ─ ─┴───────────────────┴──────┘
//! ```
//!
//! Under [`HeaderRule::InPools`] each pool begins with its header, as drawn. Under
//! [`HeaderRule::InArena`] the headers of all pools are at the beginning of the arena. The offset
//! `first` of the first block is then 0 in every pool except the first pool of the arena.
//!
//! When the free list of a pool is empty, we carve blocks from the uncarved memory of the pool. The
//! first of these blocks is returned to the caller, who will touch the page on which the block
//! ends. All other blocks that begin on the same page are carved as well and go to the free list.
//! Carving therefore touches no page that the caller would not touch anyway.
//!
//! ```text
//!                 a class needs a pool             out of blocks
//!       free  ───────────────────────────► used ──────────────────► full
//!         ▲          last block freed       │ ▲      first block freed │
//!         └─────────────────────────────────┘ └────────────────────────┘
//! ```
//!
//! Freeing a block can change the state of its pool in two ways: a used pool becomes empty, or a
//! full pool becomes used again. The header of each pool has a count that reaches 0 at both of
//! these events, so `free` needs only one test. [`PoolHeader::put`] decrements the count. In a used
//! pool the count is the number of blocks in use, so it reaches 0 when the last of these blocks is
//! freed. In a full pool the count is 1, so it reaches 0 when the first block is freed.
//!
//! A used pool can be *retained* by its class (see `heap::empty_pools`). In a retained pool the
//! count is one more than the number of blocks in use. It therefore never reaches 0, and no event
//! occurs.

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

/// Carving may touch memory behind the returned block, up to the next multiple of this size. No
/// system has pages smaller than this, so the touched memory is on the same page as the end of the
/// returned block.
const PAGE: usize = 4096;

/// The state of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// No block of the pool is in use. The pool is in its arena's list of free pools.
    Free,
    /// A block of the pool is in use. The pool is in its class's list of used pools.
    Used,
    /// Every block of the pool is in use. The pool is in no list.
    Full,
    /// The pool is in its class's list of used pools, and stays there even if none of its blocks is
    /// in use.
    Retained,
}

/// The value of `class` in a pool that has no size class.
const NO_CLASS: u8 = u8::MAX;

/// The header of a pool. We only make shared references to a header, never mutable ones, so every
/// field that changes is a cell.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PoolHeader {
    free: FreeList,
    /// How many more blocks must be freed until the pool becomes empty or, if it is full, used
    /// again. In a used pool this is the number of blocks in use, and in a full pool it is 1. In a
    /// retained pool it is one more than the number of blocks in use, so it does not reach 0.
    until_event: Cell<u32>,
    class: Cell<u8>,
    state: Cell<State>,
    /// The offset of the first block from the start of the pool, in bytes.
    first: u16,
    /// The next and the previous pool in the list of this pool's class. In a free pool, `next` is
    /// instead the next pool in the arena's list of free pools.
    pub(crate) next: Cell<Option<PoolPtr>>,
    pub(crate) prev: Cell<Option<PoolPtr>>,
    arena: ArenaIndex,
    /// The offset of the uncarved memory from the start of the pool, in bytes.
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

    /// Takes the block that was freed last off the free list. Returns `None` if the free list is
    /// empty.
    #[inline]
    pub(crate) fn take(&self) -> Option<BlockPtr> {
        let block = self.free.pop()?;
        self.until_event.set(self.until_event.get() + 1);
        Some(block)
    }

    /// Puts `block` on the free list. Returns true if the pool has become empty or was full before.
    /// In both cases the caller must change the state of the pool.
    #[inline]
    #[must_use]
    pub(crate) fn put(&self, block: BlockPtr) -> bool {
        self.free.push(block);
        let until_event = self.until_event.get() - 1;
        self.until_event.set(until_event);
        until_event == 0
    }

    /// Returns the index of the arena that the pool belongs to.
    #[inline]
    pub(crate) fn arena(&self) -> ArenaIndex {
        self.arena
    }

    /// Returns the pool's state.
    #[inline]
    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// Returns the pool's class. A free pool still has the class that it had before it became free,
    /// or `None` if no class has used it yet.
    #[inline]
    pub(crate) fn class<G: Geometry>(&self) -> Option<SizeClass<G>> {
        SizeClass::from_index(usize::from(self.class.get()))
    }

    /// Returns the offset of the first block from the start of the pool.
    pub(crate) fn first_offset(&self) -> usize {
        self.first.into()
    }

    /// Returns how many blocks of `class` the pool has room for.
    pub(crate) fn capacity<G: Geometry>(&self, class: SizeClass<G>) -> usize {
        (G::SIZES.pool_size - self.first_offset()) / class.block_size()
    }

    /// Returns the number of blocks of the pool that are in use.
    pub(crate) fn in_use<G: Geometry>(&self) -> usize {
        match (self.state.get(), self.class::<G>()) {
            (State::Full, Some(class)) => self.capacity(class),
            (State::Retained, _) => self.until_event.get() as usize - 1,
            _ => self.until_event.get() as usize,
        }
    }

    /// Returns how many more blocks can be carved from the uncarved memory.
    pub(crate) fn uncarved<G: Geometry>(&self) -> usize {
        let bytes = G::SIZES.pool_size - self.next_offset.get() as usize;
        self.class::<G>().map_or(0, |class| bytes / class.block_size())
    }

    /// Iterates over the blocks of the free list, in the order in which they will be taken.
    pub(crate) fn free_blocks(&self) -> impl Iterator<Item = NonNull<u8>> {
        self.free.iter()
    }

    /// Returns true if no block of the pool is free and no further block can be carved.
    pub(crate) fn has_run_out<G: Geometry>(&self) -> bool {
        let end = |class: SizeClass<G>| self.next_offset.get() as usize + class.block_size();
        self.free.is_empty() && self.class().is_none_or(|class| end(class) > G::SIZES.pool_size)
    }

    /// Records that every block of the pool is in use. The caller must have removed the pool from
    /// its class's list.
    pub(crate) fn become_full(&self) {
        self.state.set(State::Full);
        self.until_event.set(1);
    }

    /// Records that one block of a full pool of `class` was freed, so all blocks but this one are
    /// in use. The caller must put the pool back into its class's list.
    pub(crate) fn become_used_again<G: Geometry>(&self, class: SizeClass<G>) {
        self.state.set(State::Used);
        self.until_event.set(self.capacity(class) as u32 - 1);
    }

    /// Records that the last block in use was freed and the pool stays in its class's list. Until
    /// [`end_retention`](Self::end_retention) is called, [`put`](Self::put) returns false for this
    /// pool, even if the pool becomes empty again.
    pub(crate) fn become_retained(&self) {
        self.state.set(State::Retained);
        self.until_event.set(1);
    }

    /// Turns a retained pool into a used one. Returns true if no block of the pool is in use. While
    /// the pool was retained, [`put`](Self::put) did not report that the pool had become empty, so
    /// the caller must now treat the pool as one that has just become empty.
    #[must_use]
    pub(crate) fn end_retention(&self) -> bool {
        self.state.set(State::Used);
        let in_use = self.until_event.get() - 1;
        self.until_event.set(in_use);
        in_use == 0
    }

    /// Records that the last block in use was freed and the pool goes back to its arena.
    ///
    /// Under [`RetainRule::Unobservable`] the pool keeps its class and its free list, as in
    /// CPython. If the pool is later used for the same class again, the first request gets the
    /// block that was freed last.
    ///
    /// Under [`RetainRule::EachClass`] the pool keeps its class, but all of its memory becomes
    /// uncarved. When the pool is used again, blocks are carved in ascending order of address, so
    /// blocks that are allocated one after the other are adjacent. If the pool kept its free list,
    /// they would be in the order in which the previous blocks were freed. In Python, walking a
    /// tree takes 8 % less time if its blocks are adjacent than if they are in that order.
    pub(crate) fn become_free<G: Geometry>(&self) {
        self.state.set(State::Free);
        if G::RULES.retain == RetainRule::EachClass {
            self.forget_blocks();
        }
    }

    /// Makes a free pool a used pool of `class`. If the pool already has this class, its free list
    /// and its uncarved memory stay as they are. Otherwise the pool gets the class, and all of its
    /// memory becomes uncarved.
    pub(crate) fn become_used<G: Geometry>(&self, class: SizeClass<G>) {
        debug_assert_eq!(self.state.get(), State::Free);
        debug_assert_eq!(self.until_event.get(), 0);
        self.state.set(State::Used);
        if self.class::<G>() != Some(class) {
            self.class.set(class.index() as u8);
            self.forget_blocks();
        }
    }

    /// Makes all memory of a pool without a block in use uncarved.
    fn forget_blocks(&self) {
        self.free.clear();
        self.next_offset.set(self.first.into());
    }
}

/// Returns `pool` unchanged, but forces the compiler to keep the pointer in a register and hides
/// from it how the pointer was computed.
///
/// The pointer to a header is computed by masking the address of a block. Without this function,
/// the compiler does not keep the address of the header in one register. It uses the masked address
/// as an index in each access to the header instead. Some processors forward a store to the next
/// load from the same address without delay only if both instructions name the same register and
/// offset. On such a processor, the indexed form costs 5 cycles per access. An allocation followed
/// by a free took 3.7 ns with indexed accesses, and takes 1.1 ns with this function.
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
#[inline(always)]
fn in_a_register(mut pool: *mut PoolHeader) -> *mut PoolHeader {
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "no instruction, so no access")]
    // SAFETY: the assembly contains no instruction, so the register holds the same pointer
    // afterwards.
    unsafe {
        core::arch::asm!(
            "/* {0} */",
            inout(reg) pool,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    pool
}

/// Returns `pool` unchanged. This version is for processors on which nobody has measured whether
/// keeping the pointer in a register makes a difference.
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
#[inline(always)]
fn in_a_register(pool: *mut PoolHeader) -> *mut PoolHeader {
    pool
}

/// A pointer to a pool of a mapped arena. It is created when the pool is carved, or is computed
/// from the address of a block in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct PoolPtr(
    /// # Invariant
    ///
    /// The pointer leads to the header of a pool, which was written when the pool was carved and
    /// exists until the arena is unmapped. When the arena is unmapped, no `PoolPtr` to one of its
    /// pools exists any more. The pointer is valid for reading and writing the whole pool. The only
    /// exception is [`PoolPtr::NONE`], which leads to a static header that nothing ever writes to.
    NonNull<PoolHeader>,
);

/// Returns a pointer to the first byte of the arena that contains `start`.
#[inline]
fn arena_at<G: Geometry>(start: NonNull<u8>) -> *mut u8 {
    start.as_ptr().map_addr(|address| address & !(G::SIZES.arena_size - 1))
}

/// Returns a pointer to the tag of the heap that owns the memory at `start`.
#[inline]
fn tag_place<G: Geometry>(start: NonNull<u8>) -> *mut HeapTag {
    match G::RULES.headers {
        HeaderRule::InPools => PoolPtr::header_at::<G>(start).wrapping_add(1).cast(),
        HeaderRule::InArena => arena_at::<G>(start).wrapping_add(Shape::<G>::TAG).cast(),
    }
}

/// The type of the header that [`PoolPtr::NONE`] points to. The free list of this header is always
/// empty. For a class without a pool, an allocation therefore finds an empty free list, and the
/// fast path does not need to test whether the class has a pool.
struct NoPool(PoolHeader);

// SAFETY: the free list of the header is empty and no block is ever put on it, so nothing ever
// writes to the header, and threads may share it.
unsafe impl Sync for NoPool {}

static NO_POOL: NoPool = NoPool(PoolHeader::new(ArenaIndex::NONE, 0));

impl PoolPtr {
    /// A pool without blocks, which stands for "no pool" in the list of a class that has no used
    /// pool.
    // SAFETY: the address of a static is not null.
    pub(crate) const NONE: Self =
        Self(unsafe { NonNull::new_unchecked((&raw const NO_POOL.0).cast_mut()) });

    /// Writes the header of the pool that consists of the `pool_size` bytes at `start`, and returns
    /// the pool. The bytes must be part of the arena with the index `arena`.
    ///
    /// # Safety
    ///
    /// - `start` must be aligned to the pool size.
    /// - The pool and the place of its header must be valid for reading and writing through `start`
    ///   until the arena is unmapped. Under [`HeaderRule::InArena`] this place is at the beginning
    ///   of the arena.
    /// - No pool may have been carved at `start` since the arena was mapped.
    pub(crate) unsafe fn carve<G: Geometry>(
        start: NonNull<u8>,
        arena: ArenaIndex,
        tag: HeapTag,
    ) -> Self {
        let is_first = start.addr().get().is_multiple_of(G::SIZES.arena_size);
        let first = if is_first { Shape::<G>::BEFORE_FIRST_POOL } else { Shape::<G>::BEFORE_POOL };
        let pool = Self::containing::<G>(start);
        // SAFETY: the caller guarantees that the headers of the arena are valid for writing, and no
        // other pool has its header here.
        unsafe { pool.0.write(PoolHeader::new(arena, first as u16)) };
        if is_first || matches!(G::RULES.headers, HeaderRule::InPools) {
            // SAFETY: the caller guarantees that the place of the tag, which is beside the headers,
            // is valid for writing. No header and no block overlaps this place.
            unsafe { tag_place::<G>(start).write(tag) };
        }
        // INVARIANT: the header was written above.
        pool
    }

    /// Returns the pool that was carved at `start`.
    ///
    /// # Safety
    ///
    /// [`PoolPtr::carve`] must have been called with `start`, and the arena must not have been
    /// unmapped since.
    pub(crate) unsafe fn carved_at<G: Geometry>(start: NonNull<u8>) -> Self {
        // INVARIANT: the header was written when the pool was carved (contract of this function).
        Self::containing::<G>(start)
    }

    /// Returns the pool that `block` belongs to.
    #[inline]
    pub(crate) fn of<G: Geometry>(block: &BlockPtr) -> Self {
        // INVARIANT: the block is in use, so its pool was carved and its arena is mapped.
        Self::containing::<G>(block.start())
    }

    /// Returns the pool that contains `start`. The header of the pool must already be written, or
    /// the caller must write it before it uses the result.
    #[inline]
    fn containing<G: Geometry>(start: NonNull<u8>) -> Self {
        let header = Self::header_at::<G>(start);
        // SAFETY: no arena is at address 0.
        Self(unsafe { NonNull::new_unchecked(in_a_register(header)) })
    }

    /// Returns a pointer to the header of the pool that contains `start`. A thread that does not
    /// own the heap must access only those fields of the header that do not change while a block of
    /// the pool is in use, and must only read them.
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
    /// `start` must lie in a block that is in use, of a heap with the geometry `G`.
    #[inline]
    pub(crate) unsafe fn tag_at<G: Geometry>(start: NonNull<u8>) -> HeapTag {
        // SAFETY: `start` lies in a block in use (contract of `tag_at`), and an arena stays mapped
        // while one of its blocks is in use. The tag was written before the block was allocated,
        // and does not change.
        unsafe { tag_place::<G>(start).read() }
    }

    #[inline]
    pub(crate) fn header(&self) -> &PoolHeader {
        // SAFETY: the header is valid (invariant of `PoolPtr`). No code makes a mutable reference
        // to a header, so a shared reference is always allowed.
        unsafe { self.0.as_ref() }
    }

    /// Returns a pointer to the pool's first byte.
    pub(crate) fn start<G: Geometry>(self) -> NonNull<u8> {
        let header = self.0.cast::<u8>();
        match G::RULES.headers {
            HeaderRule::InPools => header,
            HeaderRule::InArena => {
                let offset = header.addr().get() & (G::SIZES.arena_size - 1);
                let pool = offset / size_of::<PoolHeader>();
                // SAFETY: the header is one of the headers at the beginning of an arena. The arena
                // has as many pools as headers, so the pool whose number is the number of the
                // header lies inside the arena.
                unsafe { header.sub(offset).add(pool * G::SIZES.pool_size) }
            }
        }
    }

    /// Carves and returns the first uncarved block of a pool whose free list is empty. All further
    /// blocks that begin on the page where the returned block ends are carved as well, and go to
    /// the free list. Returns `None` if the uncarved memory has no room for a block.
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
            // SAFETY: uncarved blocks of this pool begin at `next`, and then every `size` bytes up
            // to `last`. Nothing else uses them.
            next += unsafe { header.free.fill(first, size, last - next) };
        }
        header.next_offset.set(next as u32);
        header.until_event.set(header.until_event.get() + 1);
        Some(self.block_at::<G>(start))
    }

    /// Returns the uncarved block at `offset`, whose owner is now the caller. The caller must
    /// record that the block is carved.
    fn block_at<G: Geometry>(self, offset: usize) -> BlockPtr {
        // SAFETY: the pointer is valid for the whole pool (invariant of `PoolPtr`), and the offset
        // lies inside the pool. Nothing else uses an uncarved block.
        unsafe { BlockPtr::from_start(self.start::<G>().add(offset)) }
    }
}

impl<G: Geometry> SizeClass<G> {
    /// Returns the size class of the block that contains `start`.
    ///
    /// Any thread may call this function, even while another thread uses the heap, because the
    /// class of a block does not change while the block is in use.
    ///
    /// # Safety
    ///
    /// `start` must lie in a block that is in use, of a heap with the geometry `G`.
    #[inline]
    pub unsafe fn at(start: NonNull<u8>) -> Option<Self> {
        let header = PoolPtr::header_at::<G>(start);
        // SAFETY: a pool stays mapped, and its class does not change, while one of its blocks is in
        // use.
        let class = unsafe { (&raw const (*header).class).cast::<u8>().read() };
        Self::from_index(usize::from(class))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use raw_mem::{ArenaSource, MmapArenas};

    use super::*;
    use crate::geometry::eras::{HeadersInArena, Pools4K, Pools16K, RetainEachClass};

    #[repr(align(16384))]
    struct Memory([u8; 16384]);

    /// Carves all pools of a new arena. The arena stays mapped as long as `source` exists.
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
        // SAFETY: the test borrows the memory exclusively. The memory has the size of a pool and is
        // aligned to it.
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
    fn a_free_pool_of_our_own_geometry_is_uncarved_and_keeps_its_class() {
        let mut memory = Memory([0; 16384]);
        let pool = pool::<RetainEachClass<Pools4K>>(&mut memory, 64);
        let class = pool.header().class::<Pools4K>();
        let block = take::<Pools4K>(pool).unwrap();
        let _ = pool.header().put(block);
        pool.header().become_free::<RetainEachClass<Pools4K>>();
        assert_eq!(pool.header().class::<Pools4K>(), class);
        assert_eq!(pool.header().free_blocks().count(), 0);
        assert_eq!(pool.header().uncarved::<Pools4K>(), (4096 - POOL_OVERHEAD) / 64);
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
