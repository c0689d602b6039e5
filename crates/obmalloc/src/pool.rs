//! A pool: a header and blocks of one size.
//!
//! ```text
//!  0        first                   next_offset          pool_bytes
//!  ├────────┬───────┬───────┬─ ─ ─ ─┬───────────────────┬──────┐
//!  │ header │ block │ block │  ...  │ uncarved memory   │ tail │
//!  ├────────┴───────┴───────┴─ ─ ─ ─┴───────────────────┴──────┘
//! ```
//!
//! An arena is divided into units of equal size. A pool occupies one or more adjacent units. The
//! first unit of a pool contains the pool's header, and the headers of the pool's other units point
//! to this header.
//!
//! The *free list* of a pool contains its free blocks. Blocks of up to `Sizes::linked_threshold`
//! bytes are *linked*, so each free block contains a link to the next one. Larger free blocks
//! contain no links (decision 0020). The header of their pool stores the address of the block that
//! was freed last, and a bit for each other free block.
//!
//! When the free list of a pool is empty, the heap *carves* unused memory of the pool, which means
//! that it divides the memory into blocks. It carves one block, and all further blocks that begin
//! on the page in which this block ends. The program will use the first block anyway, so carving
//! touches no additional page. There is one exception in our own geometry: if a size class takes a
//! free pool that already had blocks before, the heap carves the memory of all these earlier blocks
//! at once.
//!
//! If a page of a pool holds only free blocks, the heap can remove these blocks from the free list.
//! The page is then *uncarved*, which means that it is no longer divided into blocks. The heap can
//! return an uncarved page to the system. The arena's record has a bit for each uncarved page (see
//! `arena::uncarved`), and a flag in the pool's header shows whether the pool has such pages.
//!
//! ```text
//!                 a class needs a pool             out of blocks
//!       free  ───────────────────────────► used ──────────────────► full
//!         ▲          last block freed       │ ▲    enough blocks freed │
//!         └─────────────────────────────────┘ └────────────────────────┘
//! ```
//!
//! Freeing a block can change the state of its pool. Each free decrements the counter `until_event`
//! in the pool's header, and the state changes only if the counter reaches 0, so `free` needs a
//! single test. In a used pool, the counter is the number of blocks in use, so 0 means that the
//! pool is empty. In a full pool, the counter is the number of frees after which the pool is used
//! again. It starts at 1 if the geometry behaves like CPython. In our own geometry, it starts at 4
//! to 16, or at 1 if the pool has fewer than 8 blocks.

use core::{cell::Cell, cmp, mem::offset_of, ptr::NonNull};

pub(crate) mod arena_index;
pub(crate) mod block;
pub(crate) mod free_bits;
pub(crate) mod tag;
pub(crate) mod watched;

use self::{
    arena_index::ArenaIndex,
    block::{BlockPtr, FreeList},
    free_bits::FreeBits,
    tag::HeapTag,
    watched::{Byte, Count, decrement},
};
use crate::{
    arena::pages::PAGE,
    geometry::{
        Geometry, HeaderRule, MAX_CLASSES, RetainRule,
        shape::{BlockStart, POOL_OVERHEAD, Shape},
        size_class::SizeClass,
    },
};

const _: () = assert!(size_of::<PoolHeader>() == POOL_OVERHEAD);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// The header was never written, so none of its other fields is meaningful.
    Uncarved,
    /// No block is in use. The arena counts the pool's units as free.
    Free,
    /// A block is in use. The pool is in its class's list of used pools.
    Used,
    /// Nearly every block is in use. The pool is in no list until enough blocks are freed.
    Full,
    /// The pool stays in its class's list of used pools even when no block is in use.
    Retained,
    /// Every block is in use. The pool is in no list until a block is freed.
    ///
    /// If a pool runs out of blocks while there is no memory for another pool of its class, it
    /// becomes `Exhausted` instead of `Full`. As soon as one of its blocks is freed, the pool
    /// returns to the list of used pools, where the next request finds the block.
    Exhausted,
}

impl State {
    /// Returns true if the pool is in no list because it has few free blocks or none.
    pub(crate) fn is_full(self) -> bool {
        matches!(self, Self::Full | Self::Exhausted)
    }

    const fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Free,
            2 => Self::Used,
            3 => Self::Full,
            4 => Self::Retained,
            5 => Self::Exhausted,
            _ => Self::Uncarved,
        }
    }
}

const NO_CLASS: u8 = u8::MAX;

/// The value of `class` in the header of a unit that is not the first one of its pool.
const INNER_UNIT: u8 = u8::MAX - 1;

const _: () = assert!(MAX_CLASSES <= INNER_UNIT as usize);

/// The bit of `next_offset` that is set if the pool has uncarved pages. Offsets never reach it.
const HAS_UNCARVED_PAGES: u32 = 1 << 31;

/// The header of a pool. Every field that changes is a cell, because all references to headers are
/// shared.
///
/// Only the thread that owns the heap writes to a pool header. Other threads may read some fields
/// to count the live blocks. These fields are atomic, to avoid data races (see [`watched`]).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PoolHeader {
    /// The free list of a pool of linked blocks.
    ///
    /// If the blocks of the pool are not linked, this field contains only the block that was freed
    /// last, or no block. The field `free_bits` has a bit for each other free block.
    free: FreeList,
    /// The number of frees after which the pool's state changes.
    ///
    /// | state | value |
    /// | --- | --- |
    /// | used | blocks in use |
    /// | full | frees until the pool is used again, 1 in CPython |
    /// | retained | blocks in use + 1, so no free changes the state |
    /// | exhausted | 1 |
    until_event: Count,
    class: Byte,
    state: Byte,
    /// The offset of the first block if the blocks are linked, in bytes.
    first: u16,
    /// The neighbours in the class's list. In a free pool, `next` links to the arena's next free
    /// pool.
    ///
    /// In a unit that is not the first one of its pool, `next` points to the pool's header.
    pub(crate) next: Cell<Option<PoolPtr>>,
    pub(crate) prev: Cell<Option<PoolPtr>>,
    arena: ArenaIndex,
    /// The offset of the memory that no block has used yet, in bytes.
    ///
    /// The bit [`HAS_UNCARVED_PAGES`] is set if the arena's record has uncarved pages of the pool.
    next_offset: Count,
    /// The free blocks of a pool whose blocks are not linked, except the block in `free`.
    ///
    /// With [`HeaderRule::InPools`], all blocks are linked. The field is therefore not needed for
    /// free blocks, and contains the heap's tag instead.
    free_bits: FreeBits,
}

impl PoolHeader {
    const fn new(arena: ArenaIndex, first: u16) -> Self {
        Self {
            free: FreeList::new(),
            until_event: Count::new(0),
            class: Byte::new(NO_CLASS),
            state: Byte::new(State::Free as u8),
            first,
            next: Cell::new(None),
            prev: Cell::new(None),
            arena,
            next_offset: Count::new(first as u32),
            free_bits: FreeBits::new(),
        }
    }

    /// Writes a new header to `place`.
    ///
    /// The state is written last and separately, because another thread may read it at the same
    /// time.
    ///
    /// # Safety
    ///
    /// - `place` must be aligned and valid for writes.
    /// - Until `state` is set, other threads must read no other field.
    unsafe fn write_to(self, place: NonNull<Self>) {
        let place = place.as_ptr();
        // SAFETY: the place is valid for writes (contract), and no thread reads these fields yet.
        unsafe {
            (&raw mut (*place).free).write(self.free);
            (&raw mut (*place).until_event).write(self.until_event);
            (&raw mut (*place).class).write(self.class);
            (&raw mut (*place).first).write(self.first);
            (&raw mut (*place).next).write(self.next);
            (&raw mut (*place).prev).write(self.prev);
            (&raw mut (*place).arena).write(self.arena);
            (&raw mut (*place).next_offset).write(self.next_offset);
            (&raw mut (*place).free_bits).write(self.free_bits);
        }
        // SAFETY: every byte is a valid state, so the field can be referred to before it is set.
        unsafe { &(*place).state }.set(self.state.get());
    }

    /// Takes the free block of a span, which is its only block. Does not read the block's memory.
    ///
    /// The caller must mark the span as full.
    pub(crate) fn take_only(&self) -> Option<BlockPtr> {
        self.free.take_only()
    }

    /// Counts a freed block. Returns true if the caller must change the pool's state.
    #[inline]
    fn count_freed(&self) -> bool {
        // SAFETY: the block was in use, so the count is not 0. Only the owner frees a block.
        unsafe { decrement::<_, { offset_of!(Self, until_event) }>(self) }
    }

    /// Returns true if the blocks of this header's pool are linked. The pool must be in use.
    #[inline]
    pub(crate) fn is_linked<G: Geometry>(&self) -> bool {
        Shape::<G>::SMALL_ONLY || usize::from(self.class.get()) < Shape::<G>::LINKED_CLASSES
    }

    #[inline]
    pub(crate) fn arena(&self) -> ArenaIndex {
        self.arena
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        State::of(self.state.get())
    }

    /// Returns true if no block of a used pool is in use.
    pub(crate) fn is_empty(&self) -> bool {
        self.until_event.get() == 0
    }

    /// Returns the pool's class. A free pool keeps the class that used it last.
    #[inline]
    pub(crate) fn class<G: Geometry>(&self) -> Option<SizeClass<G>> {
        SizeClass::from_index(usize::from(self.class.get()))
    }

    /// Returns the offset of the first block.
    pub(crate) fn first_offset<G: Geometry>(&self) -> usize {
        first_offset_in(self.class::<G>(), self.first)
    }

    pub(crate) fn capacity<G: Geometry>(&self, class: SizeClass<G>) -> usize {
        let bytes = class.bytes_for_blocks() - first_offset_in(Some(class), self.first);
        if class.is_span() { 1 } else { SizeClass::<G>::number_at(class.index(), bytes) }
    }

    pub(crate) fn in_use<G: Geometry>(&self) -> usize {
        let count = self.until_event.get() as usize;
        match self.class::<G>() {
            Some(class) => in_use_of(self.state(), class, count, self.capacity(class)),
            None => count,
        }
    }

    /// Returns the offset of the memory that no block has used yet, in bytes.
    pub(crate) fn next_offset(&self) -> usize {
        (self.next_offset.get() & !HAS_UNCARVED_PAGES) as usize
    }

    /// Returns true if the record of the arena has uncarved pages of this pool.
    pub(crate) fn has_uncarved_pages(&self) -> bool {
        self.next_offset.get() & HAS_UNCARVED_PAGES != 0
    }

    /// Records whether the arena's record contains uncarved pages of this pool.
    pub(crate) fn note_uncarved_pages(&self, has_any: bool) {
        let flag = if has_any { HAS_UNCARVED_PAGES } else { 0 };
        self.next_offset.set(self.next_offset() as u32 | flag);
    }

    /// Returns the number of blocks after `next_offset`, which have never been used.
    pub(crate) fn uncarved<G: Geometry>(&self) -> usize {
        let next = self.next_offset();
        self.class::<G>().map_or(0, |class| (class.bytes_for_blocks() - next) / class.block_size())
    }

    fn has_no_free_block<G: Geometry>(&self) -> bool {
        self.free.is_empty() && (Shape::<G>::SMALL_ONLY || self.free_bits.is_empty())
    }

    fn clear_free_blocks<G: Geometry>(&self) {
        self.free.clear();
        if !Shape::<G>::SMALL_ONLY {
            self.free_bits.clear();
        }
    }

    /// Returns true if no block is free and none can be carved.
    pub(crate) fn has_run_out<G: Geometry>(&self) -> bool {
        let end = |class: SizeClass<G>| self.next_offset() + class.block_size();
        self.has_no_free_block::<G>()
            && !self.has_uncarved_pages()
            && self.class().is_none_or(|class| end(class) > class.bytes_for_blocks())
    }

    /// Makes the pool full. The caller must have removed the pool from its class's list.
    pub(crate) fn become_full<G: Geometry>(&self, class: SizeClass<G>) {
        self.state.set(State::Full as u8);
        self.until_event.set(class.frees_until_used() as u32);
    }

    /// Marks the pool, which must have no free block and must be in no list, as exhausted.
    pub(crate) fn become_exhausted(&self) {
        self.state.set(State::Exhausted as u8);
        self.until_event.set(1);
    }

    /// Makes a full or exhausted pool used. The caller must put it into its class's list.
    pub(crate) fn become_used_again<G: Geometry>(&self, class: SizeClass<G>) {
        let in_use = self.in_use::<G>();
        debug_assert!(in_use < self.capacity(class));
        self.state.set(State::Used as u8);
        self.until_event.set(in_use as u32);
    }

    /// Retains an empty pool. A free then changes no state even if the pool becomes empty.
    pub(crate) fn become_retained(&self) {
        self.state.set(State::Retained as u8);
        self.until_event.set(1);
    }

    /// Ends the retention of a pool. Returns true if no block of the pool is in use.
    #[must_use]
    pub(crate) fn end_retention(&self) -> bool {
        self.state.set(State::Used as u8);
        let in_use = self.until_event.get() - 1;
        self.until_event.set(in_use);
        in_use == 0
    }

    /// Makes an empty pool free. [`RetainRule::Unobservable`] preserves its free list, as in
    /// CPython.
    ///
    /// Under [`RetainRule::EachClass`], this function clears the free list. When the pool is used
    /// again, it then provides its blocks in the order of their addresses, not in the order in
    /// which the old blocks were freed. Successive requests therefore get adjacent blocks, which
    /// makes a Python program that walks a tree of objects 8 % faster.
    ///
    /// While the pool is free, the field `next_offset` still shows how much of the pool was divided
    /// into blocks. When the pool is reused, [`PoolPtr::become_used`] divides this part into blocks
    /// at once, because memory usually backs it already. This need not be true of a span, which is
    /// a pool with a single block, because the program may never have touched some pages of this
    /// block. For a span, this function therefore sets the field to 0.
    pub(crate) fn become_free<G: Geometry>(&self) {
        self.state.set(State::Free as u8);
        if G::RULES.retain == RetainRule::EachClass {
            self.clear_free_blocks::<G>();
            self.note_uncarved_pages(false);
            if self.class::<G>().is_none_or(SizeClass::is_span) {
                self.forget_used_memory();
            }
        }
    }

    /// Makes the unit of this header part of `pool`, which begins at a lower unit.
    pub(crate) fn become_inner(&self, pool: PoolPtr) {
        self.class.set(INNER_UNIT);
        self.next.set(Some(pool));
        self.forget_used_memory();
    }

    /// Records that the pool, which is free or becomes free, may not be backed by memory.
    pub(crate) fn forget_used_memory(&self) {
        self.next_offset.set(0);
    }

    /// Detaches the unit of this header from the pool that it was part of.
    pub(crate) fn leave_pool(&self) {
        self.class.set(NO_CLASS);
        self.next.set(None);
    }

    /// Returns the number of units that this header describes, including its own unit.
    pub(crate) fn units_in_use<G: Geometry>(&self) -> usize {
        let class = self.class::<G>().filter(|_| self.state() != State::Free);
        class.map_or(1, SizeClass::units)
    }

    /// Returns the pool of this unit if the unit is not its first one.
    #[inline]
    pub(crate) fn inner_of(&self) -> Option<PoolPtr> {
        if self.class.get() == INNER_UNIT { self.next.get() } else { None }
    }

    fn forget_blocks<G: Geometry>(&self) {
        self.clear_free_blocks::<G>();
        self.next_offset.set(self.first_offset::<G>() as u32);
    }
}

/// Returns the number of blocks in use in a pool whose [count](PoolHeader::until_event) is `count`.
///
/// The result is inaccurate, but never underflows, if another thread read `state` and `count` while
/// the owner was changing them.
fn in_use_of<G: Geometry>(
    state: State,
    class: SizeClass<G>,
    count: usize,
    capacity: usize,
) -> usize {
    match state {
        State::Full => (capacity + count).saturating_sub(class.frees_until_used()),
        State::Exhausted => (capacity + count).saturating_sub(1),
        State::Retained => count.saturating_sub(1),
        State::Uncarved | State::Free | State::Used => count,
    }
}

/// Returns the offset of the first block in a pool of `class` whose linked blocks begin at `first`.
///
/// Blocks that are not linked begin at the start of their pool, because a span may fill its pool.
fn first_offset_in<G: Geometry>(class: Option<SizeClass<G>>, first: u16) -> usize {
    let is_linked = Shape::<G>::SMALL_ONLY || class.is_none_or(SizeClass::is_linked);
    if is_linked { first.into() } else { Shape::<G>::BEFORE_POOL }
}

/// Returns `pool` unchanged, but forces the compiler to keep the pointer in a register.
///
/// If the compiler does not keep the pointer to a pool's header in a register, it computes the
/// address of the header anew for each access. When the code reads a field that it has just
/// written, the processor then notices only late that both accesses have the same address, so the
/// read takes longer. By keeping the pointer in a register, `in_a_register` reduces the time for
/// allocating and freeing one block from 3.7 ns to 1.1 ns.
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
#[inline(always)]
fn in_a_register(mut pool: *mut PoolHeader) -> *mut PoolHeader {
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "no instruction, so no access")]
    // SAFETY: the assembly is empty, so the register still holds the same pointer.
    unsafe {
        core::arch::asm!(
            "/* {0} */",
            inout(reg) pool,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    pool
}

/// Returns `pool` unchanged. We have not measured on this target whether a register would be
/// faster.
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
#[inline(always)]
fn in_a_register(pool: *mut PoolHeader) -> *mut PoolHeader {
    pool
}

/// The figures that another thread has read from the header of a pool with blocks.
pub(crate) struct Watched<G> {
    pub(crate) class: SizeClass<G>,
    /// The number of blocks in use. It never exceeds the capacity of the pool.
    pub(crate) in_use: usize,
}

/// A pointer to the header of a pool in a mapped arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct PoolPtr(
    /// # Invariant
    ///
    /// - The pointer points to an initialised pool header.
    /// - The header stays mapped as long as any copy of this pointer is in use.
    /// - The pointer is valid for reads and writes of the header and of the whole pool.
    ///
    /// The exception is [`PoolPtr::NONE`], which points to a static header that never changes.
    NonNull<PoolHeader>,
);

#[inline]
fn arena_at<G: Geometry>(start: NonNull<u8>) -> *mut u8 {
    start.as_ptr().map_addr(|address| address & !(G::SIZES.arena_size - 1))
}

#[inline]
fn tag_place<G: Geometry>(start: NonNull<u8>) -> *mut HeapTag {
    match G::RULES.headers {
        HeaderRule::InPools => {
            let header = PoolPtr::header_at::<G>(start).cast::<u8>();
            header.wrapping_add(offset_of!(PoolHeader, free_bits)).cast()
        }
        HeaderRule::InArena => arena_at::<G>(start).wrapping_add(Shape::<G>::TAG).cast(),
    }
}

/// The header of a pool without blocks. With it, the fast path need not test for a missing pool.
struct NoPool(PoolHeader);

// SAFETY: the free list is empty and gets no block, so nothing ever writes to the header.
unsafe impl Sync for NoPool {}

static NO_POOL: NoPool = NoPool(PoolHeader::new(ArenaIndex::NONE, 0));

impl PoolPtr {
    /// The pool that stands for the first pool of a class without used pools.
    // SAFETY: the address of a static is not null.
    pub(crate) const NONE: Self =
        Self(unsafe { NonNull::new_unchecked((&raw const NO_POOL.0).cast_mut()) });

    /// Writes `tag` into the new arena at `base`, if the geometry has one tag for each arena.
    ///
    /// # Safety
    ///
    /// - The arena at `base` must be valid for reads and writes.
    /// - The arena must not contain a pool yet.
    pub(crate) unsafe fn tag_arena<G: Geometry>(base: NonNull<u8>, tag: HeapTag) {
        if matches!(G::RULES.headers, HeaderRule::InArena) {
            // SAFETY: the arena is valid for writing (contract), and nothing else is in it yet.
            unsafe { tag_place::<G>(base).write(tag) };
        }
    }

    /// Writes `tag` to the mapping of a large block, at the offset that the tag has in an arena.
    ///
    /// # Safety
    ///
    /// `start` must be aligned like an arena, and be valid for writes of a page.
    pub(crate) unsafe fn tag_large<G: Geometry>(start: NonNull<u8>, tag: HeapTag) {
        // SAFETY: the tag lies in the first page (assertion below), which is writable (contract).
        unsafe { tag_place::<G>(start).write(tag) };
        const { assert!(Shape::<G>::TAG + size_of::<HeapTag>() <= PAGE) };
    }

    /// Writes the header of a new pool at `start`, in the arena with the index `arena`.
    ///
    /// # Safety
    ///
    /// - `start` must point to the first byte of the new pool, and must be a multiple of
    ///   `pool_size`.
    /// - The pool, its header, and the tag, which identifies the pool's heap, must be valid for
    ///   reads and writes until the arena is unmapped. With [`HeaderRule::InPools`], the pool
    ///   begins with its header and the tag. With [`HeaderRule::InArena`], the arena begins with
    ///   the headers of all its pools and one tag.
    /// - This must be the first call for `start` since the arena was mapped.
    pub(crate) unsafe fn carve<G: Geometry>(
        start: NonNull<u8>,
        arena: ArenaIndex,
        tag: HeapTag,
        blocks: BlockStart,
    ) -> Self {
        let is_first = start.addr().get().is_multiple_of(G::SIZES.arena_size);
        let first = blocks.offset::<G>(is_first);
        let pool = Self::containing::<G>(start);
        // SAFETY: the header is valid for writing (contract of `carve`), and belongs to one pool.
        unsafe { PoolHeader::new(arena, first as u16).write_to(pool.0) };
        if matches!(G::RULES.headers, HeaderRule::InPools) {
            // SAFETY: the tag is valid for writing (contract of `carve`), and overlaps nothing.
            unsafe { tag_place::<G>(start).write(tag) };
        }
        // INVARIANT: the header was written above.
        pool
    }

    /// Reads how many blocks of a pool are in use, while its owner thread may be using the pool.
    ///
    /// Returns `None` if no pool in use begins at index `unit` of the arena at `base`.
    ///
    /// # Safety
    ///
    /// - `G` must have the rule [`HeaderRule::InArena`], so that the headers of all pools are at
    ///   the start of the arena.
    /// - `base` must point to the start of a mapped arena with geometry `G`.
    /// - `unit` must be less than the number of pool headers in the arena.
    /// - The pool header with the index `unit` must be initialised, or all its bytes must be zero.
    pub(crate) unsafe fn watch<G: Geometry>(base: NonNull<u8>, unit: usize) -> Option<Watched<G>> {
        // SAFETY: the header lies in the arena (contract).
        let header = unsafe { base.cast::<PoolHeader>().add(unit) };
        // SAFETY: the field lies in the header, and every byte is a valid state.
        let state = State::of(unsafe { &(*header.as_ptr()).state }.watch());
        if matches!(state, State::Uncarved | State::Free) {
            return None;
        }
        // SAFETY: the header was written before its state. All fields that change are atomic, or
        // are in cells that are not accessed here.
        let header = unsafe { header.as_ref() };
        let class = SizeClass::<G>::from_index(usize::from(header.class.watch()))?;
        let count = header.until_event.get() as usize;
        let capacity = header.capacity(class);
        let in_use = in_use_of(state, class, count, capacity).min(capacity);
        let fits = unit + class.units() <= Shape::<G>::POOLS;
        fits.then_some(Watched { class, in_use })
    }

    /// Returns the pool that was carved at `start`.
    ///
    /// # Safety
    ///
    /// A pool must have been carved at `start`, and its arena must still be mapped.
    pub(crate) unsafe fn carved_at<G: Geometry>(start: NonNull<u8>) -> Self {
        // INVARIANT: the header was written when the pool was carved (contract of `carved_at`).
        Self::containing::<G>(start)
    }

    /// Returns the pool of `block`.
    #[inline]
    pub(crate) fn of<G: Geometry>(block: &BlockPtr) -> Self {
        let unit = Self::of_unit_with::<G>(block);
        if Shape::<G>::SMALL_ONLY { unit } else { unit.header().inner_of().unwrap_or(unit) }
    }

    /// Returns the unit in which `block` begins. If the block is linked or a span, this is its
    /// pool.
    #[inline]
    pub(crate) fn of_unit_with<G: Geometry>(block: &BlockPtr) -> Self {
        // INVARIANT: the block is in use, so its pool was carved and its arena is mapped.
        Self::containing::<G>(block.start())
    }

    /// Returns the header of the pool that contains `start` and belongs to a block in use.
    ///
    /// Any thread may call this function, and may read the fields that do not change while a block
    /// is in use.
    ///
    /// # Safety
    ///
    /// `start` must lie in a block that is in use, of a heap with the geometry `G`.
    #[inline]
    unsafe fn header_of_block<G: Geometry>(start: NonNull<u8>) -> *const PoolHeader {
        let unit = Self::header_at::<G>(start);
        // SAFETY: while a block is in use, its units stay mapped and keep their classes.
        let class = unsafe { (&raw const (*unit).class).cast::<u8>().read() };
        if Shape::<G>::SMALL_ONLY || class != INNER_UNIT {
            return unit;
        }
        // SAFETY: the unit is not the first one of its pool, so `next` leads to the pool.
        let pool = unsafe { (&raw const (*unit).next).cast::<Option<PoolPtr>>().read() };
        pool.map_or(unit, |pool| pool.0.as_ptr())
    }

    /// Returns the unit that contains `start`. The unit's header must be written before it is read.
    #[inline]
    fn containing<G: Geometry>(start: NonNull<u8>) -> Self {
        let header = Self::header_at::<G>(start);
        // SAFETY: no arena is at address 0.
        Self(unsafe { NonNull::new_unchecked(in_a_register(header)) })
    }

    /// Returns a pointer to the header of the unit that contains `start`.
    ///
    /// Threads other than the owner may only read fields that do not change while a block is in
    /// use.
    #[inline]
    fn header_at<G: Geometry>(start: NonNull<u8>) -> *mut PoolHeader {
        match G::RULES.headers {
            HeaderRule::InPools => {
                start.as_ptr().map_addr(|address| address & !(G::SIZES.pool_size - 1)).cast()
            }
            HeaderRule::InArena => {
                // The header of unit `n` begins at byte `n * POOL_OVERHEAD` of the arena. With
                // headers of 48 bytes, this is `n * 16 * 3`, and `STEP` is 16. We derive `n * 16`
                // directly from the address, which saves a shift. For example, for an address in
                // unit 5 of 16 KiB, we divide the address by 1024 and mask the result, which gives
                // 5 * 16 = 80. The header begins at byte 80 * 3 = 240.
                const STEP: usize = 1 << POOL_OVERHEAD.trailing_zeros();
                let units = start.addr().get() / (G::SIZES.pool_size / STEP);
                let unit = units & ((Shape::<G>::POOLS - 1) * STEP);
                arena_at::<G>(start).wrapping_add(unit * (POOL_OVERHEAD / STEP)).cast()
            }
        }
    }

    /// Returns the tag of the heap that owns the block at `start`.
    ///
    /// # Safety
    ///
    /// `start` must lie in a block that is in use, of a heap with the geometry `G`.
    #[inline]
    pub(crate) unsafe fn tag_at<G: Geometry>(start: NonNull<u8>) -> HeapTag {
        // SAFETY: the arena of a block in use (contract of `tag_at`) is mapped, and keeps its tag.
        unsafe { tag_place::<G>(start).read() }
    }

    #[inline]
    pub(crate) fn header(&self) -> &PoolHeader {
        // SAFETY: the header is valid (invariant of `PoolPtr`), and has no mutable reference.
        unsafe { self.0.as_ref() }
    }

    /// Returns the number of the unit in its arena at which the pool begins.
    pub(crate) fn unit<G: Geometry>(self) -> usize {
        let header = self.0.addr().get();
        match G::RULES.headers {
            HeaderRule::InPools => header / G::SIZES.pool_size % Shape::<G>::POOLS,
            HeaderRule::InArena => (header & (G::SIZES.arena_size - 1)) / size_of::<PoolHeader>(),
        }
    }

    pub(crate) fn start<G: Geometry>(self) -> NonNull<u8> {
        let header = self.0.cast::<u8>();
        match G::RULES.headers {
            HeaderRule::InPools => header,
            HeaderRule::InArena => {
                let offset = header.addr().get() & (G::SIZES.arena_size - 1);
                let pool = offset / size_of::<PoolHeader>();
                // SAFETY: an arena has as many pools as headers, so this pool lies in the arena.
                unsafe { header.sub(offset).add(pool * G::SIZES.pool_size) }
            }
        }
    }

    /// Makes a free pool used by `class`.
    ///
    /// A new pool is divided into blocks one page at a time, so that a page is backed by physical
    /// memory only when one of its blocks is needed. If the pool was in use before, memory usually
    /// backs the part up to `next_offset` already. Under [`RetainRule::EachClass`], this function
    /// therefore divides this part into blocks of `class` at once.
    pub(crate) fn become_used<G: Geometry>(self, class: SizeClass<G>) {
        let header = self.header();
        debug_assert_eq!(header.state(), State::Free);
        debug_assert_eq!(header.until_event.get(), 0);
        header.state.set(State::Used as u8);
        let used = cmp::min(header.next_offset(), class.bytes_for_blocks());
        let carves_again = G::RULES.retain == RetainRule::EachClass;
        if carves_again || header.class::<G>() != Some(class) {
            header.class.set(class.index() as u8);
            header.forget_blocks::<G>();
        }
        let first = header.next_offset();
        let blocks = used.saturating_sub(first) / class.block_size();
        if carves_again && blocks > 0 && !class.is_span() {
            header.next_offset.set((first + blocks * class.block_size()) as u32);
            self.list_blocks::<G>(first, (blocks - 1) * class.block_size());
        }
    }

    /// Takes a free block. The blocks of the pool must be linked.
    #[inline]
    pub(crate) fn take_linked(self) -> Option<BlockPtr> {
        let block = self.header().free.pop()?;
        self.header().until_event.increment();
        Some(block)
    }

    /// Takes a free block. `class` must be the class of the pool.
    ///
    /// Linked blocks are taken in the reverse of the order in which they were freed. In any other
    /// pool, the header stores the address of only the block that was freed last. This block is
    /// taken first, and then the free block with the lowest address.
    #[inline]
    pub(crate) fn take<G: Geometry>(self, class: SizeClass<G>) -> Option<BlockPtr> {
        if class.is_linked() { self.take_linked() } else { self.take_unlinked::<G>() }
    }

    /// Takes a free block of a pool whose blocks are not linked. See [`take`](Self::take).
    #[inline]
    pub(crate) fn take_unlinked<G: Geometry>(self) -> Option<BlockPtr> {
        let header = self.header();
        let block = match header.free.take_only() {
            Some(latest) => latest,
            None => self.take_marked::<G>()?,
        };
        header.until_event.increment();
        Some(block)
    }

    /// Takes the block with the lowest address that is marked in `free_bits`.
    #[inline]
    fn take_marked<G: Geometry>(self) -> Option<BlockPtr> {
        let number = self.header().free_bits.take_lowest()?;
        let size = self.header().class::<G>()?.block_size();
        Some(self.block_at::<G>(number * size))
    }

    /// Frees `block`, which must be a linked block or the span of this pool.
    ///
    /// Returns true if the caller must now change the state of the pool, for one of two reasons: a
    /// [`State::Used`] pool has no block in use any more, or enough blocks of a [`State::Full`]
    /// pool have been freed to make it used again.
    ///
    /// Writes a link to the block. The link of a span is never read, because a span has no other
    /// block.
    #[inline]
    #[must_use]
    pub(crate) fn put_linked_or_span(self, block: BlockPtr) -> bool {
        self.header().free.push(block);
        self.header().count_freed()
    }

    /// Frees the block of this span. Does not touch the block's memory.
    ///
    /// The result is that of [`put_linked_or_span`](Self::put_linked_or_span).
    #[inline]
    #[must_use]
    pub(crate) fn put_span(self, block: BlockPtr) -> bool {
        let earlier = self.header().free.replace_only(block);
        debug_assert!(earlier.is_none(), "a span has one block");
        self.header().count_freed()
    }

    /// Frees a `block` of this pool that is not linked. Does not touch the block's memory.
    ///
    /// The result is that of [`put_linked_or_span`](Self::put_linked_or_span).
    #[inline]
    #[must_use]
    pub(crate) fn put_unlinked<G: Geometry>(self, block: BlockPtr) -> bool {
        if let Some(earlier) = self.header().free.replace_only(block) {
            self.header().free_bits.insert(self.number_of::<G>(earlier.start()));
        }
        self.header().count_freed()
    }

    /// Returns the number of the block at `start`, counted from 0. The block must not be linked.
    #[inline]
    fn number_of<G: Geometry>(self, start: NonNull<u8>) -> usize {
        let offset = start.addr().get() - self.start::<G>().addr().get();
        SizeClass::<G>::number_at(usize::from(self.header().class.get()), offset)
    }

    /// Iterates over the free blocks in the order in which they will be taken.
    pub(crate) fn free_blocks<G: Geometry>(&self) -> impl Iterator<Item = NonNull<u8>> {
        let header = self.header();
        let class = header.class::<G>().filter(|class| !class.is_linked());
        let linked = class.is_none().then(|| header.free.iter());
        let latest = class.and_then(|_| header.free.first());
        let marked = class.into_iter().flat_map(move |class| {
            let numbers = header.free_bits.iter();
            numbers.map(move |nth| self.block_at::<G>(nth * class.block_size()).into_start())
        });
        linked.into_iter().flatten().chain(latest).chain(marked)
    }

    /// Removes the free blocks for which `stays` returns false. O(free blocks).
    ///
    /// The caller must record that their memory is uncarved.
    pub(crate) fn retain_listed<G: Geometry>(self, stays: impl Fn(NonNull<u8>) -> bool) {
        let header = self.header();
        if header.is_linked::<G>() {
            return header.free.retain(stays);
        }
        let stay = FreeBits::new();
        let staying = self.free_blocks::<G>().filter(|block| stays(*block));
        staying.for_each(|block| stay.insert(self.number_of::<G>(block)));
        header.free.clear();
        header.free_bits.replace(stay);
    }

    /// Carves a block, or returns `None` if no memory is left. The free list must be empty.
    ///
    /// Blocks that begin on the page where the returned block ends are carved too, and go to the
    /// free list.
    ///
    /// The arena's record must not contain uncarved pages of this pool.
    pub(crate) fn carve_block<G: Geometry>(self) -> Option<BlockPtr> {
        let header = self.header();
        let class = header.class::<G>()?;
        let size = class.block_size();
        let start = header.next_offset();
        let limit = class.bytes_for_blocks() - size;
        if start > limit {
            return None;
        }
        let mut next = start + size;
        let last = cmp::min(limit, (next - 1) | (PAGE - 1));
        if next <= last {
            next += self.list_adjacent(class, next, last - next);
        }
        header.next_offset.set(next as u32);
        header.until_event.increment();
        Some(self.block_at::<G>(start))
    }

    /// Divides memory before `next_offset` into adjacent blocks, and puts them on the empty free
    /// list.
    ///
    /// The first block begins at `offset`, and the last block begins at most `span` bytes after the
    /// first. Before the call, none of these blocks may be in use or on the free list. The heap
    /// records which memory of a pool is not divided into blocks, in the header's field
    /// `next_offset` and in the arena's record of uncarved pages. This function does not change
    /// these records, so the caller must record that the memory is now divided into blocks.
    pub(crate) fn list_blocks<G: Geometry>(self, offset: usize, span: usize) {
        let header = self.header();
        if let Some(class) = header.class::<G>() {
            debug_assert!(offset + span + class.block_size() <= header.next_offset());
            self.list_adjacent(class, offset, span);
        }
    }

    /// Makes adjacent blocks free, and returns their total size. No block of the pool may be free.
    ///
    /// The first block begins `offset` bytes after the start of the pool, and the other blocks
    /// follow it directly. The last block begins at most `span` bytes after the first one. The
    /// caller must make sure that none of these blocks is in use.
    fn list_adjacent<G: Geometry>(self, class: SizeClass<G>, offset: usize, span: usize) -> usize {
        let (header, size) = (self.header(), class.block_size());
        debug_assert!(header.has_no_free_block::<G>());
        if class.is_linked() {
            let first = self.block_at::<G>(offset);
            // SAFETY: the pool is valid (invariant of `PoolPtr`), and nothing uses these blocks.
            return unsafe { header.free.fill(first, size, span) };
        }
        let (first, count) = (offset / size, span / size + 1);
        header.free_bits.fill(first, count);
        count * size
    }

    /// Returns the uncarved block at `offset`. The caller must record that the block is carved.
    fn block_at<G: Geometry>(self, offset: usize) -> BlockPtr {
        // SAFETY: the pool is valid at `offset` (invariant of `PoolPtr`), and the block is unused.
        unsafe { BlockPtr::from_start(self.start::<G>().add(offset)) }
    }
}

impl<G: Geometry> SizeClass<G> {
    /// Returns the size class of the block at `start`. Any thread may call this function.
    ///
    /// # Safety
    ///
    /// `start` must lie in a block that is in use, of a heap with the geometry `G`.
    #[inline]
    pub unsafe fn at(start: NonNull<u8>) -> Option<Self> {
        // SAFETY: `start` lies in a block in use of this geometry (contract of `at`), and the
        // header is the one of the block's pool.
        unsafe { Self::of_header(PoolPtr::header_of_block::<G>(start)) }
    }

    /// Returns the size class of the linked block at `start`. This is faster than [`at`](Self::at).
    ///
    /// # Safety
    ///
    /// - The requirements of [`at`](Self::at) must be met.
    /// - The class of the block must be [linked](Self::is_linked).
    #[inline]
    pub unsafe fn at_linked(start: NonNull<u8>) -> Option<Self> {
        // SAFETY: a pool of linked blocks is one unit, so this is the header of the block's pool.
        unsafe { Self::of_header(PoolPtr::header_at::<G>(start)) }
    }

    /// Returns the class in the header of a pool.
    ///
    /// # Safety
    ///
    /// A block of the pool must be in use.
    #[inline]
    unsafe fn of_header(header: *const PoolHeader) -> Option<Self> {
        // SAFETY: while a block is in use (contract), its pool stays mapped and keeps its class.
        let class = unsafe { (&raw const (*header).class).cast::<u8>().read() };
        Self::from_index(usize::from(class))
    }
}

impl<G: Geometry> Shape<G> {
    /// Returns the first byte of the pool that contains `start`.
    ///
    /// Any thread may call this function.
    ///
    /// # Safety
    ///
    /// `start` must lie in a block that is in use, of a heap with the geometry `G`.
    #[inline]
    pub unsafe fn pool_at(start: NonNull<u8>) -> NonNull<u8> {
        // SAFETY: `start` lies in a block in use of this geometry (contract).
        let header = unsafe { PoolPtr::header_of_block::<G>(start) };
        // INVARIANT: the pool of a block in use was carved, and its arena is mapped.
        // SAFETY: no arena is at address 0.
        PoolPtr(unsafe { NonNull::new_unchecked(header.cast_mut()) }).start::<G>()
    }

    /// Returns the offset of the first block in the pool that contains `start`, in bytes.
    ///
    /// Any thread may call this function.
    ///
    /// # Safety
    ///
    /// `start` must lie in a block that is in use, of a heap with the geometry `G`.
    #[inline]
    pub unsafe fn first_block_at(start: NonNull<u8>) -> usize {
        // SAFETY: `start` lies in a block in use of this geometry (contract).
        let header = unsafe { PoolPtr::header_of_block::<G>(start) };
        // SAFETY: while a block is in use, its pool stays mapped. The field never changes.
        let first = unsafe { (&raw const (*header).first).read() };
        // SAFETY: a block of the pool is in use (contract).
        first_offset_in(unsafe { SizeClass::<G>::of_header(header) }, first)
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

    /// Carves all pools of a new arena, which stays mapped as long as `source` exists.
    fn carve_arena<G: Geometry>(source: &mut MmapArenas) -> Vec<PoolPtr> {
        let arena = source.map(Shape::<G>::ARENA).unwrap();
        let carve = |nth| {
            // SAFETY: the test owns the arena, and carves each pool once.
            unsafe {
                let start = arena.add(nth * G::SIZES.pool_size);
                PoolPtr::carve::<G>(start, ArenaIndex::NONE, HeapTag::NONE, BlockStart::Aligned)
            }
        };
        (0..Shape::<G>::POOLS).map(carve).collect()
    }

    fn pool<G: Geometry>(memory: &mut Memory, size: usize) -> PoolPtr {
        let start = NonNull::from(&mut memory.0).cast();
        // SAFETY: the test owns the memory, which has the size and alignment of a pool.
        let pool = unsafe {
            PoolPtr::carve::<G>(start, ArenaIndex::NONE, HeapTag::NONE, BlockStart::Aligned)
        };
        pool.become_used(SizeClass::<G>::of(size).unwrap());
        pool
    }

    fn take<G: Geometry>(pool: PoolPtr) -> Option<BlockPtr> {
        pool.take::<G>(pool.header().class::<G>()?).or_else(|| pool.carve_block::<G>())
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
            let _ = pool.put_linked_or_span(block);
        }
        pool.header().become_free::<Pools4K>();
        pool.become_used(SizeClass::<Pools4K>::of(64).unwrap());
        assert_eq!(take::<Pools4K>(pool).map(BlockPtr::into_start), Some(second));
        // SAFETY: the block was taken above.
        let _ = pool.put_linked_or_span(unsafe { BlockPtr::from_start(second) });
        pool.header().become_free::<Pools4K>();
        pool.become_used(SizeClass::<Pools4K>::of(32).unwrap());
        let first = take::<Pools4K>(pool).unwrap();
        assert_eq!(
            first.start().addr().get(),
            pool.start::<Pools4K>().addr().get() + POOL_OVERHEAD
        );
    }

    #[test]
    fn a_free_pool_of_our_own_geometry_has_no_blocks_and_keeps_its_class() {
        let mut memory = Memory([0; 16384]);
        let pool = pool::<RetainEachClass<Pools4K>>(&mut memory, 64);
        let class = pool.header().class::<Pools4K>();
        let block = take::<Pools4K>(pool).unwrap();
        let _ = pool.put_linked_or_span(block);
        pool.header().become_free::<RetainEachClass<Pools4K>>();
        assert_eq!(pool.header().class::<Pools4K>(), class);
        assert_eq!(pool.free_blocks::<RetainEachClass<Pools4K>>().count(), 0);
    }

    #[test]
    fn the_memory_that_a_pool_used_before_is_carved_at_once() {
        type Own = RetainEachClass<Pools16K>;
        let mut memory = Memory([0; 16384]);
        let pool = pool::<Own>(&mut memory, 512);
        let free_all = |blocks: Vec<BlockPtr>| {
            blocks.into_iter().for_each(|block| _ = pool.put_linked_or_span(block));
            pool.header().become_free::<Own>();
        };
        free_all((0..10).map(|_| take::<Own>(pool).unwrap()).collect());
        assert!((8192..=8192 + 512).contains(&pool.header().next_offset()), "two pages are used");
        for size in [64, 512, 256] {
            let used = pool.header().next_offset();
            pool.become_used(SizeClass::<Own>::of(size).unwrap());
            let carved = pool.free_blocks::<Own>().count();
            assert!((used - size + 1..=used).contains(&(POOL_OVERHEAD + carved * size)));
            free_all((0..carved).map(|_| take::<Own>(pool).unwrap()).collect());
        }
        pool.header().forget_used_memory();
        pool.become_used(SizeClass::<Own>::of(64).unwrap());
        assert_eq!(pool.free_blocks::<Own>().count(), 0);
    }

    #[test]
    fn with_headers_in_the_arena_pools_hold_only_blocks() {
        type Together = HeadersInArena<Pools16K>;
        let mut source = MmapArenas::new();
        let pools = carve_arena::<Together>(&mut source);
        let arena = pools[0].start::<Together>();
        for (nth, &pool) in pools.iter().enumerate() {
            assert_eq!(pool.0.addr().get(), arena.addr().get() + nth * 48);
            assert_eq!(pool.start::<Together>().addr().get(), arena.addr().get() + nth * 16384);
            pool.become_used(SizeClass::<Together>::of(256).unwrap());
            let offsets = offsets::<Together>(pool);
            let first = if nth == 0 { 7 * 512 } else { 0 };
            assert_eq!(offsets, (first..16384).step_by(256).collect::<Vec<_>>());
            assert_eq!(pool.header().in_use::<Together>(), offsets.len());
        }
        for nth in 7 * 2..64 * 64 {
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
