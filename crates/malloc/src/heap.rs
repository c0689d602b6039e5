//! The heap behind every exported function. No other module knows which heap it is.

use std::{ptr::NonNull, time::Duration};

use obmalloc::{ArenaTotals, BlockPtr, Blocks, Shape, SizeClass};
use raw_mem::{HugePages, Limits, MemAlloc, MemoryPressure, preserving_errno};
use thread_heap::{HeapsStats, PerThread, ThreadGeometry, ThreadMalloc};

use crate::{debug, in_force};

/// The alignment of every block, which suits the largest fundamental type of C.
pub(crate) const MIN_ALIGN: usize = 16;

/// How much memory the heap has mapped and in use.
#[derive(Debug)]
pub(crate) struct Figures {
    /// The arenas and pools of the heaps that could be counted.
    pub(crate) pools: HeapsStats,
    /// The number of blocks with a mapping of their own.
    pub(crate) large_blocks: usize,
    /// The size of these blocks, in bytes.
    pub(crate) large_bytes: usize,
}

/// Allocates a block of `size` bytes. `align` must be a power of two.
///
/// If the result is `None`, `errno` is `ENOMEM`.
#[inline]
pub(crate) fn alloc(size: usize, align: usize) -> Option<NonNull<u8>> {
    let listed = if align <= MIN_ALIGN { ThreadMalloc.alloc_listed(size) } else { None };
    match listed {
        Some(block) => Some(block),
        None => alloc_of_any_class(size, align),
    }
}

/// Serves a request that [`ThreadMalloc::alloc_listed`] has not served.
///
/// This function is not inlined, so that [`alloc`] stays small. Neither function needs a stack
/// frame.
#[inline(never)]
fn alloc_of_any_class(size: usize, align: usize) -> Option<NonNull<u8>> {
    let listed = if align <= MIN_ALIGN { PerThread.alloc_unlinked(size) } else { None };
    match listed {
        Some(block) => Some(BlockPtr::into_start(block)),
        None => alloc_unlisted(size, align),
    }
}

/// Allocates a block of any size.
///
/// This function is not inlined. Its callers therefore need no stack frame when a free list serves
/// the request.
#[inline(never)]
fn alloc_unlisted(size: usize, align: usize) -> Option<NonNull<u8>> {
    if debug::is_on() {
        return debug::alloc(size, align).or_else(refuse);
    }
    let class = if align <= MIN_ALIGN { SizeClass::of(size.max(1)) } else { None };
    let block = match class {
        Some(class) => PerThread.alloc(class).map(BlockPtr::into_start),
        None => ThreadMalloc.alloc_aligned(size, align),
    };
    block.or_else(refuse)
}

/// Allocates a block of `size` zeroed bytes, like [`alloc`].
#[inline]
pub(crate) fn alloc_zeroed(size: usize, align: usize) -> Option<NonNull<u8>> {
    let listed = if align <= MIN_ALIGN { ThreadMalloc.alloc_listed(size) } else { None };
    match listed {
        Some(block) => {
            // SAFETY: the new block has that many bytes.
            unsafe { block.write_bytes(0, size) };
            Some(block)
        }
        None => alloc_unlisted_zeroed(size, align),
    }
}

/// Allocates a zeroed block of any size, like [`alloc_unlisted`].
#[inline(never)]
fn alloc_unlisted_zeroed(size: usize, align: usize) -> Option<NonNull<u8>> {
    if debug::is_on() {
        return debug::alloc_zeroed(size, align).or_else(refuse);
    }
    ThreadMalloc.alloc_aligned_zeroed(size, align).or_else(refuse)
}

/// Frees the block at `ptr`. `errno` is unchanged.
///
/// # Safety
///
/// - `ptr` must be a live block of this heap.
/// - The block must not be used again.
#[inline]
pub(crate) unsafe fn free(ptr: NonNull<u8>) {
    if !ThreadMalloc.holds(ptr) {
        // SAFETY: the contract is the same.
        return unsafe { free_elsewhere(ptr) };
    }
    // SAFETY: the block is live, and not used again (contract).
    unsafe { ThreadMalloc.free(Some(ptr)) };
}

/// Returns how many bytes the program may use at `ptr`. This is at least the requested size.
///
/// # Safety
///
/// - In debug mode, `ptr` must be a live block of this heap.
/// - Otherwise, `ptr` must be a live block of this heap, or point outside of the heap's memory.
#[inline]
pub(crate) unsafe fn usable_size(ptr: NonNull<u8>) -> usize {
    if !ThreadMalloc.holds(ptr) {
        // SAFETY: the contract is the same.
        return unsafe { usable_size_elsewhere(ptr) };
    }
    // SAFETY: `ptr` points into the memory of this heap, so it is a live block (contract).
    unsafe { ThreadMalloc.usable_size(ptr) }
}

/// Resizes the block at `ptr` to `size` bytes and keeps its contents. The block may move.
///
/// If the result is `None`, the block is unchanged and `errno` is `ENOMEM`.
///
/// # Safety
///
/// - `ptr` must point to a live block of this heap.
/// - If the function returns a different address, the caller must not use the old block again.
#[inline]
pub(crate) unsafe fn resize(ptr: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
    if !ThreadMalloc.holds(ptr) {
        // SAFETY: the contract is the same.
        return unsafe { resize_elsewhere(ptr, size) };
    }
    // SAFETY: the block is live, and is not used again if the result is another block (contract).
    unsafe { ThreadMalloc.realloc(Some(ptr), size) }.or_else(refuse)
}

/// Frees a block that does not lie in the memory of the threads' heaps.
///
/// # Safety
///
/// - The requirements of [`free`] must be met.
#[cold]
#[inline(never)]
unsafe fn free_elsewhere(ptr: NonNull<u8>) {
    if !debug::is_on() {
        abort("free", ptr);
    }
    // SAFETY: the contract is the same.
    preserving_errno(|| unsafe { debug::free(ptr) });
}

/// Returns the size of a block that does not lie in the memory of the threads' heaps.
///
/// # Safety
///
/// - The requirements of [`usable_size`] must be met.
#[cold]
#[inline(never)]
unsafe fn usable_size_elsewhere(ptr: NonNull<u8>) -> usize {
    if !debug::is_on() {
        if in_force::free_of_program().is_some() {
            // The block is the program's, and we cannot find out its size.
            return 0;
        }
        abort("measure", ptr);
    }
    // SAFETY: the contract is the same.
    unsafe { debug::size(ptr) }
}

/// Resizes a block that does not lie in the memory of the threads' heaps.
///
/// # Safety
///
/// - The requirements of [`resize`] must be met.
#[cold]
#[inline(never)]
unsafe fn resize_elsewhere(ptr: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
    if !debug::is_on() {
        abort("resize", ptr);
    }
    // SAFETY: the contract is the same.
    unsafe { debug::resize(ptr, size) }.or_else(refuse)
}

/// Opens the heap of the calling thread, which also registers the fork handlers of the heap.
///
/// Our fork handlers must be registered before those of others, as the module `fork` explains.
pub(crate) fn open() {
    preserving_errno(|| {
        if let Some(block) = alloc(1, MIN_ALIGN) {
            // SAFETY: the block is live and not used again.
            unsafe { free(block) };
        }
    });
}

/// Sets when free memory is returned to the system automatically. `None` means never.
pub(crate) fn set_decay(decay: Option<Duration>) {
    PerThread.set_decay(decay);
}

/// Makes the heap use huge pages from now on, in the way that `huge` specifies.
pub(crate) fn use_huge_pages(huge: HugePages) {
    PerThread.use_huge_pages(huge);
}

/// Returns all free memory to the system whenever memory is short.
pub(crate) fn trim_when_short() {
    PerThread.trim_when_short(MemoryPressure::of_process());
}

/// Returns unused memory to the system, and returns the size of that memory in bytes.
pub(crate) fn trim() -> usize {
    preserving_errno(|| PerThread.flush())
}

/// Counts the memory of the calling thread, of ended threads, and of all large blocks.
pub(crate) fn figures() -> Figures {
    let (large_blocks, large_bytes) = PerThread.large_blocks();
    Figures { pools: PerThread.stats_of_all(), large_blocks, large_bytes }
}

/// The size of an arena in bytes.
pub(crate) const ARENA: usize = Shape::<ThreadGeometry>::ARENA.bytes();

/// Counts the memory of all threads, without stopping them.
pub(crate) fn figures_of_process() -> thread_heap::Figures {
    PerThread.figures()
}

/// Like [`figures_of_process`], but without the size classes. This needs little stack.
pub(crate) fn totals_of_process() -> thread_heap::Figures<ArenaTotals> {
    PerThread.totals()
}

/// Like [`figures_of_process`], but returns `None` if a thread is mapping memory.
pub(crate) fn try_figures_of_process() -> Option<thread_heap::Figures> {
    PerThread.try_figures()
}

/// Limits the memory of the process.
pub(crate) fn set_limits(limits: Limits) {
    PerThread.set_limits(limits);
}

/// Sets `errno` to `ENOMEM` and returns `None`, because a request is refused.
#[cold]
#[inline(never)]
pub(crate) fn refuse<T>() -> Option<T> {
    // SAFETY: the C library's `errno` exists as long as its thread runs.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    None
}

/// Ends the process, because `ptr` is not a block of this heap.
#[cold]
#[inline(never)]
fn abort(action: &str, ptr: NonNull<u8>) -> ! {
    let why = "it did not come from this allocator";
    host::abort(format_args!("cannot {action} the memory at {ptr:p}: {why}"))
}
