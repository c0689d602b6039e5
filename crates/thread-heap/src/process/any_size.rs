//! Requests of any size and alignment.
//!
//! ```text
//!   size ─┬─ at most 1 KiB ────────► a block of a pool of one unit
//!         ├─ at most 480 KiB ──────► a block of a larger pool, or a span
//!         └─ all others ───────────► a block with its own mapping
//! ```
//!
//! The tag of a block tells us how to free the block. If the block lies in an arena, the tag
//! identifies the heap that owns the block. A block with its own mapping belongs to no heap, and
//! has the tag [`HeapTag::LARGE`].
//!
//! The tag of a block is stored at a fixed offset after a multiple of the arena size. To find this
//! multiple, we round down the address of the byte before the block. We cannot round down the
//! block's own address, because a block with its own mapping may itself begin at a multiple of the
//! arena size, and its tag then follows the previous multiple. Every other block lies after the
//! headers of its arena, so the byte before the block is in the same arena as the block.

use std::ptr::NonNull;

use obmalloc::{BlockPtr, Blocks, Geometry, HeapTag, LargeBlock, NewLarge, Shape, SizeClass};
use raw_mem::{MAX_REQUEST, MemAlloc, calloc_size};

use super::{
    heaps::{CurrentParts, HEAPS},
    per_thread::{self, PerThread},
    slot,
};
use crate::{
    before_refusal,
    heaps::{OwnHeap, ThreadHeap},
    parts::ThreadGeometry,
};

type Class = SizeClass<ThreadGeometry>;
type Heap = OwnHeap<CurrentParts>;

/// The alignment of every block, in bytes.
const ALIGN: usize = ThreadGeometry::SIZES.alignment;

/// From this size in bytes, a large block with old data is zeroed by a purge.
///
/// A purge returns the pages of the block to the system, which supplies zeroed pages when the
/// program uses them again. Pages that the program never uses then need no memory. Smaller blocks
/// are overwritten with zeroes instead, which is faster if the program uses the whole block.
const PURGED_FROM: usize = 32 << 20;

/// At most this many bytes are purged at once.
const PURGED_AT_ONCE: usize = 32 << 20;

/// A multiple of every page size, in bytes.
const PAGE_SIZES: usize = 1 << 16;

/// The largest alignment of blocks of a class, in bytes.
const CLASS_ALIGN: usize = ThreadGeometry::SIZES.pool_size;

/// An allocator for requests of any size, on top of the heaps of the process's threads.
///
/// All values of this type denote the same allocator. Any thread may free any of its blocks. The
/// allocator can also free blocks that were allocated through [`PerThread`] or
/// an [`OwnedHeap`](crate::OwnedHeap).
///
/// ```
/// use thread_heap::{ThreadMalloc, raw_mem::MemAlloc};
///
/// let block = ThreadMalloc.malloc(100_000);
/// // SAFETY: the block came from this allocator, and is replaced by the result.
/// let block = unsafe { ThreadMalloc.realloc(block, 10_000_000) };
/// // SAFETY: the block came from this allocator, and is not used again.
/// unsafe { ThreadMalloc.free(block) };
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadMalloc;

impl ThreadMalloc {
    /// Allocates `size` bytes, aligned to 16 bytes, from a free list.
    ///
    /// If this returns `None`, [`malloc`](MemAlloc::malloc) may still find memory.
    #[inline]
    pub fn alloc_listed(self, size: usize) -> Option<NonNull<u8>> {
        PerThread.prepare();
        // A request for 0 bytes is served by the smallest class.
        PerThread.alloc_linked(size.max(1)).map(BlockPtr::into_start)
    }

    /// Allocates `size` bytes at a multiple of `align` bytes.
    ///
    /// Even a request for 0 bytes gets a block of its own. The function returns `None` if memory is
    /// exhausted or if `align` is invalid. Every `align` of up to 16 is valid, because all blocks
    /// are aligned to 16 bytes. A larger `align` must be a power of two.
    #[inline]
    pub fn alloc_aligned(self, size: usize, align: usize) -> Option<NonNull<u8>> {
        if align <= ALIGN {
            return self.malloc(size);
        }
        aligned(size, align, Contents::Any)
    }

    /// Allocates `size` zeroed bytes at a multiple of `align` bytes. See [`alloc_aligned`].
    ///
    /// [`alloc_aligned`]: Self::alloc_aligned
    #[inline]
    pub fn alloc_aligned_zeroed(self, size: usize, align: usize) -> Option<NonNull<u8>> {
        if align <= ALIGN {
            return self.calloc(1, size);
        }
        aligned(size, align, Contents::Zero)
    }

    /// Returns the number of bytes that can be used at `start`.
    ///
    /// # Safety
    ///
    /// - `start` must be a live block of this allocator.
    #[inline]
    pub unsafe fn usable_size(self, start: NonNull<u8>) -> usize {
        // SAFETY: the block is live (contract).
        match unsafe { Block::at(start) } {
            Block::OfClass(class) => class.block_size(),
            // SAFETY: as above.
            Block::Large(block) => unsafe { block.size::<ThreadGeometry>() },
        }
    }

    /// Returns true if a block that begins at `start` could belong to this allocator. Takes no
    /// lock.
    #[inline]
    pub fn holds(self, start: NonNull<u8>) -> bool {
        // The map has an entry for the address of a large block's header, which lies before the
        // block.
        HEAPS.holds(start.addr().get() - 1)
    }

    /// Returns the number of bytes that can be used at `start`, or `None` if another allocator
    /// provided it.
    ///
    /// # Safety
    ///
    /// - If `start` lies in memory of the process's heaps, it must be a live block.
    pub unsafe fn usable_size_if_ours(self, start: NonNull<u8>) -> Option<usize> {
        // SAFETY: the block came from the process's heaps (contract).
        self.holds(start).then(|| unsafe { self.usable_size(start) })
    }
}

impl PerThread {
    /// Allocates a block with its own mapping. See [`Heaps::alloc_large`].
    ///
    /// [`Heaps::alloc_large`]: crate::Heaps::alloc_large
    pub fn alloc_large(self, size: usize, align: usize) -> Option<NewLarge> {
        if !LargeBlock::may_exist::<ThreadGeometry>(size) {
            return None;
        }
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        if let Some(mut owner) = unsafe { slot::owner() }
            && let Some(block) = owner.reuse_large(size, align)
        {
            return Some(NewLarge { block, is_zeroed: false });
        }
        map_large(size, align)
    }

    /// Allocates a block with its own mapping, and makes its first `size` bytes zero.
    ///
    /// A block that was used before may contain old data. If it is very large, we return its pages
    /// to the system instead of overwriting them, and the system supplies zeroed pages. The parts
    /// of the block that the program never uses then need no memory.
    pub fn alloc_zeroed_large(self, size: usize, align: usize) -> Option<LargeBlock> {
        let NewLarge { block, is_zeroed } = self.alloc_large(size, align)?;
        if !is_zeroed {
            // SAFETY: the block is new, and has at least `size` bytes.
            unsafe { clear(block.start(), size) };
        }
        Some(block)
    }

    /// Frees a large block. See [`Heaps::free_large`](crate::Heaps::free_large).
    ///
    /// # Safety
    ///
    /// - `block` must have come from [`alloc_large`](Self::alloc_large), and must not be used
    ///   afterwards.
    pub unsafe fn free_large(self, block: LargeBlock) {
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        match unsafe { slot::owner() } {
            // SAFETY: the contract is the same.
            Some(mut owner) => unsafe { owner.free_large(block) },
            // SAFETY: as above.
            None => unsafe { HEAPS.free_large(block) },
        }
    }

    /// Resizes a large block to `room` bytes, or to `size` bytes if there is too little memory.
    ///
    /// The bytes beyond `size` are room for the block to grow later, so `room` must be at least
    /// `size`. The block may move. If the function returns `None`, the block is unchanged.
    /// See [`LargeBlock::resize`].
    ///
    /// # Safety
    ///
    /// - `block` must have come from [`alloc_large`](Self::alloc_large).
    /// - Only the returned block may be used afterwards.
    pub unsafe fn resize_large(
        self,
        block: LargeBlock,
        size: usize,
        room: usize,
    ) -> Option<LargeBlock> {
        // SAFETY: the block is in use (contract).
        let can_move = unsafe { block.can_move::<ThreadGeometry>() };
        if !can_move || !LargeBlock::may_exist::<ThreadGeometry>(size) {
            return None;
        }
        // SAFETY: the contract is the same. A call that fails leaves the block unchanged.
        let resize = |size| unsafe { HEAPS.resize_large(block, size) };
        if room > size
            && let Some(resized) = resize(room)
        {
            return Some(resized);
        }
        resize(size).or_else(|| self.retry(|| resize(size)))
    }

    /// Retries a request that has failed. The first retry follows a flush, and the second one
    /// follows the program's callback.
    #[cold]
    fn retry<T>(self, request: impl Fn() -> Option<T>) -> Option<T> {
        // We forget earlier refusals, so that the callback is called only if a limit refuses the
        // first retry.
        before_refusal::note(None);
        self.flush();
        request().or_else(|| if HEAPS.ask_before_refusal() { request() } else { None })
    }

    /// Returns the number and the size in bytes of all large blocks of the process.
    pub fn large_blocks(self) -> (usize, usize) {
        HEAPS.large_blocks()
    }

    /// Allocates a block of `class` at a multiple of `align` bytes. See [`Heap::alloc_aligned`].
    ///
    /// [`Heap::alloc_aligned`]: obmalloc::Heap::alloc_aligned
    pub fn alloc_aligned(self, class: Class, align: usize) -> Option<BlockPtr> {
        per_thread::with_heap(|owner| owner.alloc_aligned(class, align))?
    }
}

/// The required contents of a new block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    Any,
    Zero,
}

/// A block in use.
enum Block {
    OfClass(Class),
    Large(LargeBlock),
}

impl Block {
    /// Returns the class of the block at `start`, or the large block.
    ///
    /// # Safety
    ///
    /// - `start` must be a live block of [`ThreadMalloc`].
    #[inline]
    unsafe fn at(start: NonNull<u8>) -> Self {
        // SAFETY: the block is live (contract).
        if unsafe { tag_of(start) } != HeapTag::LARGE {
            // SAFETY: the block is live, and is not large.
            if let Some(class) = unsafe { Class::at(start) } {
                return Self::OfClass(class);
            }
        }
        // SAFETY: only large blocks are tagged in this way.
        Self::Large(unsafe { LargeBlock::from_start(start) })
    }
}

/// Returns the tag that the block at `start` leads to.
///
/// # Safety
///
/// - `start` must be a live block of [`ThreadMalloc`].
#[inline]
unsafe fn tag_of(start: NonNull<u8>) -> HeapTag {
    // SAFETY: the byte lies in the arena or the mapping of the block, after the tag.
    unsafe { Heap::tag_of(start.sub(1)) }
}

/// Frees a block that does not belong to the calling thread's heap.
///
/// # Safety
///
/// - `block` must come from [`ThreadMalloc`] and must not be used again.
/// - The calling thread's slot must point to `heap`.
#[cold]
#[inline(never)]
unsafe fn free_elsewhere(heap: &'static ThreadHeap<CurrentParts>, block: BlockPtr) {
    // SAFETY: the block is live (contract).
    if unsafe { tag_of(block.start()) } == HeapTag::LARGE {
        // SAFETY: the block is large.
        unsafe { free_large(block.into_start()) }
    } else {
        // SAFETY: the block belongs to another heap of the process.
        unsafe { per_thread::free_elsewhere(heap, block) };
    }
}

/// Allocates a large block if the calling thread's heap retains none of this size.
#[cold]
fn map_large(size: usize, align: usize) -> Option<NewLarge> {
    let alloc = || match per_thread::with_heap(|owner| owner.alloc_large(size, align)) {
        Some(new) => new,
        None => HEAPS.alloc_large(size, align),
    };
    alloc().or_else(|| PerThread.retry(alloc))
}

/// Frees the large block at `start`.
///
/// # Safety
///
/// - `start` must be a live large block that is no longer used.
#[cold]
#[inline(never)]
unsafe fn free_large(start: NonNull<u8>) {
    // SAFETY: the block is large, and is no longer used (contract).
    unsafe { PerThread.free_large(LargeBlock::from_start(start)) };
}

/// Allocates a block with a greater alignment than all blocks have.
#[cold]
#[inline(never)]
fn aligned(size: usize, align: usize, contents: Contents) -> Option<NonNull<u8>> {
    if !align.is_power_of_two() {
        return None;
    }
    // A block of a class begins at a multiple of the largest power of two that divides its size.
    let rounded = size.max(1).checked_next_multiple_of(align)?;
    match Class::of(rounded) {
        Some(class) if align <= CLASS_ALIGN => of_class(class, size, contents),
        Some(class) if 2 * align <= Shape::<ThreadGeometry>::ARENA.bytes() => {
            let start = PerThread.alloc_aligned(class, align)?.into_start();
            if contents == Contents::Zero {
                // SAFETY: the block is new, and has at least `size` bytes.
                unsafe { start.write_bytes(0, size) };
            }
            Some(start)
        }
        _ => large(size, align, contents),
    }
}

fn of_class(class: Class, size: usize, contents: Contents) -> Option<NonNull<u8>> {
    let block = match contents {
        Contents::Any => PerThread.alloc_listed(class).or_else(|| PerThread.alloc(class)),
        Contents::Zero => PerThread.alloc_zeroed(class, size),
    };
    block.map(BlockPtr::into_start)
}

fn large(size: usize, align: usize, contents: Contents) -> Option<NonNull<u8>> {
    if size > MAX_REQUEST {
        return None;
    }
    let block = match contents {
        Contents::Any => PerThread.alloc_large(size, align)?.block,
        Contents::Zero => PerThread.alloc_zeroed_large(size, align)?,
    };
    Some(block.start())
}

/// Makes `size` bytes at `start` zero.
///
/// # Safety
///
/// - `start` must point to a large block of this process that has at least `size` bytes.
/// - The caller must own the block exclusively.
unsafe fn clear(start: NonNull<u8>, size: usize) {
    let (first, end) = (start.addr().get(), start.addr().get() + size);
    let (whole, behind) = (first.next_multiple_of(PAGE_SIZES), end / PAGE_SIZES * PAGE_SIZES);
    if size < PURGED_FROM || whole >= behind {
        // SAFETY: the block has at least `size` bytes, and belongs to the caller (contract).
        return unsafe { start.write_bytes(0, size) };
    }
    let (before, len) = (whole - first, behind - whole);
    // Other threads may need the lock that a purge takes, so we purge one part after the other.
    let purged = (0..len).step_by(PURGED_AT_ONCE).all(|at| {
        let part = PURGED_AT_ONCE.min(len - at);
        // SAFETY: these pages lie in the block, and their contents are not needed (contract).
        unsafe { HEAPS.purge_large(start.add(before + at), part) }
    });
    let cleared = if purged { before } else { before + len };
    // SAFETY: both parts lie in the block.
    unsafe {
        start.write_bytes(0, cleared);
        start.add(before + len).write_bytes(0, end - behind);
    }
}

/// Allocates `size` bytes. It is not inlined, so a request that a free list can serve needs no
/// stack frame.
#[inline(never)]
fn unlisted(size: usize) -> Option<NonNull<u8>> {
    match Class::of(size.max(1)) {
        Some(class) => of_class(class, size, Contents::Any),
        None => large(size, ALIGN, Contents::Any),
    }
}

/// Allocates `size` zeroed bytes. The size must exceed `small_threshold`.
#[inline(never)]
fn zeroed_above(size: usize) -> Option<NonNull<u8>> {
    match Class::of(size) {
        Some(class) => of_class(class, size, Contents::Zero),
        None => large(size, ALIGN, Contents::Zero),
    }
}

/// Returns true if a block of `class` stays in place when it is resized to `size` bytes.
///
/// The block stays if a new one would have the same class, or if over three quarters remain in use.
fn stays(class: Class, size: usize) -> bool {
    let has = class.block_size();
    size <= has && (4 * size > 3 * has || Class::of(size.max(1)) == Some(class))
}

/// Returns the size to request when a block grows from `old` to `new` bytes.
///
/// A block that grows by less than a quarter is likely to grow again, so we add an eighth.
fn with_room(old: usize, new: usize) -> usize {
    let grows_a_little = new > old && new - old < old / 4;
    if grows_a_little { new.saturating_add(new / 8).min(MAX_REQUEST) } else { new }
}

/// Moves a block to a new block of at least `size` bytes.
///
/// If there is no memory for a new block, the old block is unchanged. A block that was to shrink
/// (`size <= old`) can then stay where it is, so the function returns `start`. For a block that was
/// to grow, the function returns `None`.
///
/// # Safety
///
/// - `start` must point to a live block of [`ThreadMalloc`] that has at least `old` bytes.
/// - If the function returns a new block, the caller must not use the old block again.
#[inline(never)]
unsafe fn move_to(start: NonNull<u8>, old: usize, size: usize) -> Option<NonNull<u8>> {
    PerThread.visit_heap();
    let room = with_room(old, size);
    let mut new = ThreadMalloc.malloc(room);
    if new.is_none() && room > size {
        new = ThreadMalloc.malloc(size);
    }
    let Some(new) = new else { return (size <= old).then_some(start) };
    // SAFETY: both blocks are live, have this many bytes, and do not overlap.
    unsafe { new.copy_from_nonoverlapping(start, old.min(size)) };
    // SAFETY: the block is live, and is not used again (contract).
    unsafe { ThreadMalloc.free(Some(start)) };
    Some(new)
}

// SAFETY: blocks come from the heaps of the process's threads or have their own mappings. They
// have their size and are aligned to 16 bytes. Any thread may free a block.
unsafe impl MemAlloc for ThreadMalloc {
    #[inline]
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        match self.alloc_listed(size) {
            Some(start) => Some(start),
            None => unlisted(size),
        }
    }

    #[inline]
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let bytes = calloc_size(count, size)?;
        if bytes > ThreadGeometry::SIZES.small_threshold {
            return zeroed_above(bytes);
        }
        let start = self.malloc(bytes)?;
        // SAFETY: the block is new, and has at least this many bytes.
        unsafe { start.write_bytes(0, bytes) };
        Some(start)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        let Some(start) = ptr else { return self.malloc(size) };
        if size > MAX_REQUEST {
            return None;
        }
        // SAFETY: the block is live (contract).
        match unsafe { Block::at(start) } {
            Block::OfClass(class) if stays(class, size) => Some(start),
            // SAFETY: the block is live (contract), and only the result is used afterwards.
            Block::OfClass(class) => unsafe { move_to(start, class.block_size(), size) },
            Block::Large(block) => {
                if Class::of(size.max(1)).is_none() {
                    // SAFETY: the block is live (contract). Only the result is used afterwards.
                    let resized = unsafe { PerThread.resize_large(block, size, size) };
                    if let Some(resized) = resized {
                        return Some(resized.start());
                    }
                }
                // SAFETY: the block is live (contract).
                let old = unsafe { block.size::<ThreadGeometry>() };
                // SAFETY: as above. Only the result is used afterwards.
                unsafe { move_to(start, old, size) }
            }
        }
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        let Some(start) = ptr else { return };
        let heap = slot::get();
        // SAFETY: the block is live (contract).
        let tag = unsafe { tag_of(start) };
        // SAFETY: the caller gives up the block (contract).
        let block = unsafe { BlockPtr::from_start(start) };
        if tag == heap.tag() {
            // SAFETY: the block belongs to the heap in the slot of this thread, which owns it.
            unsafe { heap.free_own(block) };
        } else {
            // SAFETY: `heap` is the heap in the slot, and the block does not belong to it.
            unsafe { free_elsewhere(heap, block) };
        }
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the block is live (contract).
        Some(unsafe { Self::usable_size(*self, ptr) })
    }
}
