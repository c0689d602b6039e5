//! A pool: one header, then blocks of one size.
//!
//! ```text
//!  0        first                   next_offset          POOL_SIZE
//!  ├────────┬───────┬───────┬─ ─ ─ ─┬───────────────────┬──────┐
//!  │ header │ block │ block │  ...  │ virgin: untouched │ tail │
//!  ├────────┴───────┴───────┴─ ─ ─ ─┴───────────────────┴──────┘
//! ```
//!
//! The header is there under [`HeaderRule::InPools`]; under [`HeaderRule::InArena`] it is with those
//! of the other pools at the arena's beginning, and `first` is 0 in all pools but the first.
//!
//! Virgin blocks are carved when the free list is empty: the first is handed out, and those that
//! begin on the page where it ends are put on the list, so that carving touches no page that the
//! request does not touch.
//!
//! The header counts down to the next event. While a pool is used, [`PoolHeader::put`] sees 0
//! when the last block in use came back: the pool is empty. While it is full the count stands at
//! one, so the first block that comes back is an event as well: the pool is used again. A free
//! has one test for both. While a used pool is resting (see `rest`) it counts one more than is in
//! use, and there is no event.
//!
//! ```text
//!                 a class needs a pool             out of blocks
//!       empty ───────────────────────────► used ──────────────────► full
//!         ▲          last block freed       │ ▲      first block freed │
//!         └─────────────────────────────────┘ └────────────────────────┘
//! ```

use core::{cell::Cell, cmp, ptr::NonNull};

use crate::{
    arena_table::ArenaIndex,
    block::{BlockPtr, FreeList},
    geometry::{Geometry, HeaderRule, Shape},
    heap::HeapTag,
    size_class::SizeClass,
};

/// Bytes of a pool's header and the heap's tag. CPython: `POOL_OVERHEAD`.
pub(crate) const POOL_OVERHEAD: usize = 48;

const _: () = assert!(size_of::<PoolHeader>() + size_of::<HeapTag>() == POOL_OVERHEAD);

/// Bytes of a cache line. The tag of an arena that begins with all headers has one for itself.
pub(crate) const CACHE_LINE: usize = 64;

/// Bytes that carving may touch beyond the block it hands out: to the next multiple of this. No
/// system has smaller pages.
const PAGE: usize = 4096;

/// Which of its states a pool is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// No block is in use; the pool is with its arena.
    Empty,
    /// No block is in use; the pool is with its class.
    Idle,
    /// The pool is in its class's list.
    Used,
    /// Every block is in use, and the pool is in no list.
    Full,
    /// The pool is in its class's list, and stays there when its last block comes back.
    Resting,
}

/// The class of a pool that never had one.
const NO_CLASS: u8 = u8::MAX;

/// A pool's header. It is only ever borrowed shared: what changes is in cells.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PoolHeader {
    free: FreeList,
    /// Blocks to come back until the next event: those in use; one more while the pool is
    /// resting; 1 while it is full.
    until_event: Cell<u32>,
    class: Cell<u8>,
    state: Cell<State>,
    /// Offset of the first block.
    first: u16,
    /// The neighbours in the class's list of used or of idle pools; `next` also links an arena's
    /// empty pools.
    pub(crate) next: Cell<Option<PoolPtr>>,
    pub(crate) prev: Cell<Option<PoolPtr>>,
    arena: ArenaIndex,
    /// Offset of the first virgin block.
    next_offset: Cell<u32>,
}

impl PoolHeader {
    const fn new(arena: ArenaIndex, first: u16) -> Self {
        Self {
            free: FreeList::new(),
            until_event: Cell::new(0),
            class: Cell::new(NO_CLASS),
            state: Cell::new(State::Empty),
            first,
            next: Cell::new(None),
            prev: Cell::new(None),
            arena,
            next_offset: Cell::new(first as u32),
        }
    }

    /// Takes the block that came back last.
    #[inline]
    pub(crate) fn take(&self) -> Option<BlockPtr> {
        let block = self.free.pop()?;
        self.until_event.set(self.until_event.get() + 1);
        Some(block)
    }

    /// Takes `block` back. True when that is an event: see the module's picture.
    #[inline]
    #[must_use]
    pub(crate) fn put(&self, block: BlockPtr) -> bool {
        self.free.push(block);
        let until_event = self.until_event.get() - 1;
        self.until_event.set(until_event);
        until_event == 0
    }

    /// The arena that the pool belongs to.
    #[inline]
    pub(crate) fn arena(&self) -> ArenaIndex {
        self.arena
    }

    /// The pool's state.
    #[inline]
    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// The pool's class, the one it had last if it is empty, or `None` if it never had one.
    #[inline]
    pub(crate) fn class<G: Geometry>(&self) -> Option<SizeClass<G>> {
        SizeClass::from_index(usize::from(self.class.get()))
    }

    /// Offset of the first block.
    pub(crate) fn first_offset(&self) -> usize {
        self.first.into()
    }

    /// The blocks that the pool has if it is of `class`.
    pub(crate) fn capacity<G: Geometry>(&self, class: SizeClass<G>) -> usize {
        (G::POOL_SIZE - self.first_offset()) / class.block_size()
    }

    /// The blocks in use.
    pub(crate) fn in_use<G: Geometry>(&self) -> usize {
        match (self.state.get(), self.class::<G>()) {
            (State::Full, Some(class)) => self.capacity(class),
            (State::Resting, _) => self.until_event.get() as usize - 1,
            _ => self.until_event.get() as usize,
        }
    }

    /// The blocks that were never given out.
    pub(crate) fn virgin<G: Geometry>(&self) -> usize {
        let rest = G::POOL_SIZE - self.next_offset.get() as usize;
        self.class::<G>().map_or(0, |class| rest / class.block_size())
    }

    /// The free list, in the order in which blocks will be taken.
    pub(crate) fn free_blocks(&self) -> impl Iterator<Item = NonNull<u8>> {
        self.free.iter()
    }

    /// There is no block to give, and none to carve.
    pub(crate) fn has_run_out<G: Geometry>(&self) -> bool {
        let end = |class: SizeClass<G>| self.next_offset.get() as usize + class.block_size();
        self.free.is_empty() && self.class().is_none_or(|class| end(class) > G::POOL_SIZE)
    }

    /// The pool leaves its class's list: every block is in use.
    pub(crate) fn become_full(&self) {
        self.state.set(State::Full);
        self.until_event.set(1);
    }

    /// The first block of a full pool of `class` came back.
    pub(crate) fn become_used_again<G: Geometry>(&self, class: SizeClass<G>) {
        self.state.set(State::Used);
        self.until_event.set(self.capacity(class) as u32 - 1);
    }

    /// The last block in use came back, and the pool stays in its list: there is no event any
    /// more.
    pub(crate) fn become_resting(&self) {
        self.state.set(State::Resting);
        self.until_event.set(1);
    }

    /// A resting pool counts its blocks in use again. True when there is none: that event was
    /// put off until now.
    #[must_use]
    pub(crate) fn wake(&self) -> bool {
        self.state.set(State::Used);
        let in_use = self.until_event.get() - 1;
        self.until_event.set(in_use);
        in_use == 0
    }

    /// The last block in use came back. Class and free list stay, for the next request of the
    /// class.
    pub(crate) fn become_empty(&self) {
        self.state.set(State::Empty);
    }

    /// The last block in use came back, and the pool stays with its class. All its blocks are
    /// virgin again.
    pub(crate) fn become_idle(&self) {
        self.state.set(State::Idle);
        self.free.clear();
        self.next_offset.set(self.first.into());
    }

    /// An empty or idle pool begins to serve `class`. If that was its class before, the free list and
    /// the virgin blocks stand as they were left; otherwise all blocks are virgin.
    pub(crate) fn become_used<G: Geometry>(&self, class: SizeClass<G>) {
        debug_assert!(matches!(self.state.get(), State::Empty | State::Idle));
        debug_assert_eq!(self.until_event.get(), 0);
        self.state.set(State::Used);
        if self.class::<G>() != Some(class) {
            self.class.set(class.index() as u8);
            self.free.clear();
            self.next_offset.set(self.first.into());
        }
    }
}

/// The same pointer, standing in a register, where the compiler does not look behind it.
///
/// It would otherwise make the masked address an index of each access to the header. Processors
/// that hand a store on to the next load if both name the same register and distance then take
/// 5 cycles for each: an allocation and a free in turn took 3.7 ns that way, and take 1.1 ns.
#[inline(always)]
fn in_a_register(pool: *mut PoolHeader) -> *mut PoolHeader {
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    let pool = {
        let mut pool = pool;
        #[expect(clippy::pointers_in_nomem_asm_block, reason = "no instruction, so no access")]
        // SAFETY: there is no instruction: what comes out is what went in.
        unsafe {
            core::arch::asm!(
                "/* {0} */",
                inout(reg) pool,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        pool
    };
    pool
}

/// A pool of a mapped arena. Made by carving an arena, or from a block's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct PoolPtr(
    /// # Invariant
    ///
    /// A header that was written when the pool was carved; it stays until its arena is given
    /// back, and every `PoolPtr` to it is gone by then. Valid for reading and writing the whole
    /// pool. The one exception is [`PoolPtr::NONE`], which is never written.
    NonNull<PoolHeader>,
);

/// The first byte of the arena that holds `start`.
#[inline]
fn arena_at<G: Geometry>(start: NonNull<u8>) -> *mut u8 {
    start.as_ptr().map_addr(|address| address & !(G::ARENA_SIZE - 1))
}

/// Where the tag of the heap is that `start` lies in.
#[inline]
fn tag_place<G: Geometry>(start: NonNull<u8>) -> *mut HeapTag {
    match G::HEADERS {
        HeaderRule::InPools => PoolPtr::header_at::<G>(start).wrapping_add(1).cast(),
        HeaderRule::InArena => arena_at::<G>(start).wrapping_add(Shape::<G>::TAG).cast(),
    }
}

/// The header of no pool: its free list is empty forever, so that a class without a pool needs
/// no test of its own.
struct NoPool(PoolHeader);

// SAFETY: it has nothing to give, so no one ever writes to it.
unsafe impl Sync for NoPool {}

static NO_POOL: NoPool = NoPool(PoolHeader::new(ArenaIndex::NONE, 0));

impl PoolPtr {
    /// The pool that stands where a class has none: nothing to take, nothing to carve.
    // SAFETY: the address of a static is not null.
    pub(crate) const NONE: Self =
        Self(unsafe { NonNull::new_unchecked((&raw const NO_POOL.0).cast_mut()) });

    /// Makes a pool of the `POOL_SIZE` bytes at `start`, which belong to `arena`.
    ///
    /// # Safety
    ///
    /// The bytes are aligned to the pool's size, and they and the arena's headers are valid for
    /// reading and writing by this pointer, and stay so until the arena is given back. No pool was
    /// carved at `start` before.
    pub(crate) unsafe fn carve<G: Geometry>(
        start: NonNull<u8>,
        arena: ArenaIndex,
        tag: HeapTag,
    ) -> Self {
        let is_first = start.addr().get().is_multiple_of(G::ARENA_SIZE);
        let first = if is_first { Shape::<G>::BEFORE_FIRST_POOL } else { Shape::<G>::BEFORE_POOL };
        let pool = Self::holding::<G>(start);
        // SAFETY: the caller gives the memory; a header fits its place.
        unsafe { pool.0.write(PoolHeader::new(arena, first as u16)) };
        if is_first || matches!(G::HEADERS, HeaderRule::InPools) {
            // SAFETY: as above, and the tag has a place of its own beside the headers.
            unsafe { tag_place::<G>(start).write(tag) };
        }
        // INVARIANT: the header was written just now.
        pool
    }

    /// The pool that was carved at `start`.
    ///
    /// # Safety
    ///
    /// [`PoolPtr::carve`] was called with `start`, and the arena has not been given back since.
    pub(crate) unsafe fn carved_at<G: Geometry>(start: NonNull<u8>) -> Self {
        // INVARIANT: the caller's promise.
        Self::holding::<G>(start)
    }

    /// The pool of `block`.
    #[inline]
    pub(crate) fn of<G: Geometry>(block: &BlockPtr) -> Self {
        // INVARIANT: the block is in use, so its pool was carved, and is mapped.
        Self::holding::<G>(block.start())
    }

    /// The pool that `start` lies in, carved or about to be.
    #[inline]
    fn holding<G: Geometry>(start: NonNull<u8>) -> Self {
        let header = Self::header_at::<G>(start);
        // SAFETY: no arena is at null.
        Self(unsafe { NonNull::new_unchecked(in_a_register(header)) })
    }

    /// The header of the pool that holds `start`. Of its fields, a thread that does not own the
    /// heap may read those that stay as they are while a block is in use: the others may be
    /// changing.
    #[inline]
    fn header_at<G: Geometry>(start: NonNull<u8>) -> *mut PoolHeader {
        match G::HEADERS {
            HeaderRule::InPools => {
                start.as_ptr().map_addr(|address| address & !(G::POOL_SIZE - 1)).cast()
            }
            HeaderRule::InArena => {
                let pool = start.addr().get() / G::POOL_SIZE % Shape::<G>::POOLS;
                arena_at::<G>(start).cast::<PoolHeader>().wrapping_add(pool)
            }
        }
    }

    /// The tag of the heap that the block at `start` belongs to.
    ///
    /// # Safety
    ///
    /// A heap of geometry `G` has a block in use that holds this address.
    #[inline]
    pub(crate) unsafe fn tag_at<G: Geometry>(start: NonNull<u8>) -> HeapTag {
        // SAFETY: the block in use keeps its arena mapped, and the tag was written before the
        // block was given out and never since.
        unsafe { tag_place::<G>(start).read() }
    }

    /// The class of the block at `start`.
    ///
    /// # Safety
    ///
    /// As for [`PoolPtr::tag_at`].
    #[inline]
    pub(crate) unsafe fn class_at<G: Geometry>(start: NonNull<u8>) -> Option<SizeClass<G>> {
        let header = Self::header_at::<G>(start);
        // SAFETY: the block in use keeps its pool mapped, and a pool's class stays while it has
        // a block in use.
        let class = unsafe { (&raw const (*header).class).cast::<u8>().read() };
        SizeClass::from_index(usize::from(class))
    }

    #[inline]
    pub(crate) fn header(&self) -> &PoolHeader {
        // SAFETY: the invariant; headers are only ever borrowed shared.
        unsafe { self.0.as_ref() }
    }

    /// The pool's first byte.
    pub(crate) fn start<G: Geometry>(self) -> NonNull<u8> {
        let header = self.0.cast::<u8>();
        match G::HEADERS {
            HeaderRule::InPools => header,
            HeaderRule::InArena => {
                let place = header.addr().get() & (G::ARENA_SIZE - 1);
                let pool = place / size_of::<PoolHeader>();
                // SAFETY: the header is one of those that its arena begins with, and there are as
                // many pools as headers.
                unsafe { header.sub(place).add(pool * G::POOL_SIZE) }
            }
        }
    }

    /// Hands out the first virgin block of a pool whose free list is empty, and lists those that
    /// begin on the page where it ends. `None` when no block is virgin.
    pub(crate) fn carve_block<G: Geometry>(self) -> Option<BlockPtr> {
        let header = self.header();
        let size = header.class::<G>()?.block_size();
        let start = header.next_offset.get() as usize;
        let limit = G::POOL_SIZE - size;
        if start > limit {
            return None;
        }
        let mut next = start + size;
        let last = cmp::min(limit, (next - 1) | (PAGE - 1));
        if next <= last {
            let first = self.block_at::<G>(next);
            // SAFETY: from `next` to `last` blocks begin that are virgin, and all inside the pool.
            next += unsafe { header.free.fill(first, size, last - next) };
        }
        header.next_offset.set(next as u32);
        header.until_event.set(header.until_event.get() + 1);
        Some(self.block_at::<G>(start))
    }

    /// The block at `offset`, which is virgin and becomes the caller's.
    fn block_at<G: Geometry>(self, offset: usize) -> BlockPtr {
        // SAFETY: the invariant makes the whole pool this pointer's to write; the offset of a
        // virgin block is inside of it, and the block is nobody else's.
        unsafe { BlockPtr::from_start(self.start::<G>().add(offset)) }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use raw_mem::{ArenaSource, MmapArenas};

    use super::*;
    use crate::{HeadersInArena, Pools4K, Pools16K};

    #[repr(align(16384))]
    struct Memory([u8; 16384]);

    /// Carves an arena that lives as long as `source`.
    fn carve_arena<G: Geometry>(source: &mut MmapArenas) -> Vec<PoolPtr> {
        let arena = source.map(Shape::<G>::ARENA).unwrap();
        let carve = |nth| {
            // SAFETY: the arena is this test's, and each pool is carved once.
            unsafe {
                let start = arena.add(nth * G::POOL_SIZE);
                PoolPtr::carve::<G>(start, ArenaIndex::NONE, HeapTag::NONE)
            }
        };
        (0..Shape::<G>::POOLS).map(carve).collect()
    }

    fn pool<G: Geometry>(memory: &mut Memory, size: usize) -> PoolPtr {
        let start = NonNull::from(&mut memory.0).cast();
        // SAFETY: the memory is borrowed exclusively, as long as a pool and aligned to it.
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
    fn a_new_pool_gives_its_blocks_in_ascending_order_until_it_has_run_out() {
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
    fn carving_writes_to_no_page_but_those_of_the_block_handed_out() {
        for size in [16, 48, 208, 512] {
            let mut memory = Memory([0xa5; 16384]);
            let pool = pool::<Pools16K>(&mut memory, size);
            let mut given = 0;
            while let Some(block) = take::<Pools16K>(pool) {
                given = block.start().addr().get() - pool.start::<Pools16K>().addr().get() + size;
                let touched = (given - 1) / PAGE * PAGE + PAGE;
                // SAFETY: the pool's bytes are this test's, and initialised.
                let rest = unsafe {
                    core::slice::from_raw_parts(
                        pool.0.cast::<u8>().add(touched.min(16384)).as_ptr(),
                        16384_usize.saturating_sub(touched),
                    )
                };
                assert!(rest.iter().all(|byte| *byte == 0xa5), "size {size}, given {given}");
            }
            assert!(given + size > 16384);
        }
    }

    #[test]
    fn a_pool_of_the_same_class_keeps_its_free_list_and_another_class_starts_anew() {
        let mut memory = Memory([0; 16384]);
        let pool = pool::<Pools4K>(&mut memory, 64);
        let blocks: Vec<_> = (0..3).filter_map(|_| take::<Pools4K>(pool)).collect();
        let second = blocks[1].start();
        for block in [0, 2, 1] {
            // SAFETY: each block was taken above, and is put back once.
            let block = unsafe { BlockPtr::from_start(blocks[block].start()) };
            let _ = pool.header().put(block);
        }
        pool.header().become_empty();
        pool.header().become_used(SizeClass::<Pools4K>::of(64).unwrap());
        assert_eq!(take::<Pools4K>(pool).map(BlockPtr::into_start), Some(second));
        // SAFETY: it was taken in the line above.
        let _ = pool.header().put(unsafe { BlockPtr::from_start(second) });
        pool.header().become_empty();
        pool.header().become_used(SizeClass::<Pools4K>::of(32).unwrap());
        let first = take::<Pools4K>(pool).unwrap();
        assert_eq!(
            first.start().addr().get(),
            pool.start::<Pools4K>().addr().get() + POOL_OVERHEAD
        );
    }

    #[test]
    fn headers_in_the_arena_leave_the_pools_to_their_blocks() {
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
            // SAFETY: every block was given out above.
            let block = unsafe { BlockPtr::from_start(arena.add(nth * 256)) };
            assert_eq!(PoolPtr::of::<Together>(&block), pools[nth / 64]);
        }
    }

    #[test]
    fn a_block_knows_its_pool() {
        let mut memory = Memory([0; 16384]);
        let pool = pool::<Pools16K>(&mut memory, 512);
        while let Some(block) = take::<Pools16K>(pool) {
            assert_eq!(PoolPtr::of::<Pools16K>(&block), pool);
        }
    }
}
