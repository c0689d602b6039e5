//! The heap behind every exported function. No other module knows which heap it is.
//!
//! ```text
//!   up to 512 bytes    a block of the calling thread's heap
//!   above              pages of its own
//! ```
//!
//! Blocks of the pools are naturally aligned, so an aligned request is rounded up to a multiple of
//! its alignment. A request of 0 bytes gets the smallest block.

mod pages;

use std::ptr::NonNull;

use obmalloc::{BlockPtr, Blocks, SizeClass};
use raw_mem::preserving_errno;
use thread_heap::{HeapsStats, PerThread, ThreadGeometry};

/// The alignment of every block, which suits the largest fundamental type of C.
pub(crate) const MIN_ALIGN: usize = 16;

/// A block that is resized stays where it is if more than this fraction of it is needed.
const NEEDED_TO_STAY: (usize, usize) = (1, 2);

/// What the heap has mapped and in use.
#[derive(Debug)]
pub(crate) struct Figures {
    /// The arenas and pools of the heaps that could be counted.
    pub(crate) pools: HeapsStats,
    /// The number of blocks with pages of their own.
    pub(crate) large_blocks: usize,
    /// The size of these pages, in bytes.
    pub(crate) large_bytes: usize,
}

#[inline]
fn class(size: usize, align: usize) -> Option<SizeClass<ThreadGeometry>> {
    if align <= MIN_ALIGN {
        return SizeClass::of(size);
    }
    let last = align - 1;
    SizeClass::of(size.checked_add(last)? & !last)
}

/// Allocates a block of `size` bytes. `align` must be a power of two.
///
/// If the result is `None`, `errno` is `ENOMEM`.
#[inline]
pub(crate) fn alloc(size: usize, align: usize) -> Option<NonNull<u8>> {
    PerThread.prepare();
    match class(size, align).and_then(|class| PerThread.alloc_listed(class)) {
        Some(block) => Some(block.into_start()),
        None => alloc_unlisted(size, align),
    }
}

/// Allocates a block of `size` zeroed bytes, like [`alloc`].
#[inline]
pub(crate) fn alloc_zeroed(size: usize, align: usize) -> Option<NonNull<u8>> {
    let block = alloc(size, align)?;
    if class(size, align).is_some() {
        // SAFETY: the block is new and has at least `size` bytes.
        unsafe { block.write_bytes(0, size) };
    }
    Some(block)
}

/// Allocates a block without using the pools, which may be inconsistent during a panic.
pub(crate) fn alloc_apart(size: usize, align: usize) -> Option<NonNull<u8>> {
    pages::alloc(size.max(1), align)
}

/// Frees the block at `ptr`. `errno` is unchanged.
///
/// # Safety
///
/// - `ptr` must be a live block of this heap.
/// - The block must not be used again.
#[inline]
pub(crate) unsafe fn free(ptr: NonNull<u8>) {
    // SAFETY: if the block lies in an arena, it is live, and the caller gives it up (contract).
    if let Some(ptr) = unsafe { PerThread.free_if_ours(ptr) } {
        // SAFETY: the block is live (contract) and in no arena, so it has pages of its own.
        unsafe { pages::free(ptr) };
    }
}

/// Returns how many bytes the program may use at `ptr`, at least the requested size.
///
/// # Safety
///
/// - `ptr` must be a live block of this heap.
#[inline]
pub(crate) unsafe fn usable_size(ptr: NonNull<u8>) -> usize {
    // SAFETY: if the block lies in an arena, it is live (contract).
    let block_size = unsafe { PerThread.size_if_ours(ptr) };
    // SAFETY: the block is live (contract) and in no arena, so it has pages of its own.
    block_size.unwrap_or_else(|| unsafe { pages::usable_size(ptr) })
}

/// Resizes the block at `ptr` to `size` bytes and keeps its contents. The block may move.
///
/// If the result is `None`, the block is unchanged and `errno` is `ENOMEM`.
///
/// # Safety
///
/// - `ptr` must be a live block of this heap.
/// - If the result is another block, the old one must not be used again.
#[inline]
pub(crate) unsafe fn resize(ptr: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
    // SAFETY: the block is live (contract of `resize`).
    let usable = unsafe { usable_size(ptr) };
    let (needed, all) = NEEDED_TO_STAY;
    if size <= usable && size > usable / all * needed {
        return Some(ptr);
    }
    // SAFETY: the contract is the same, and `usable` is the size of the block.
    unsafe { move_to(ptr, usable, size) }
}

/// Opens the heap of the calling thread.
///
/// The heap then registers what it does around a fork. A fork runs such handlers in reverse order, so
/// the handlers of libraries that register theirs later may allocate.
pub(crate) fn open() {
    preserving_errno(|| {
        if let Some(block) = alloc(1, MIN_ALIGN) {
            // SAFETY: the block is live and not used again.
            unsafe { free(block) };
        }
    });
}

/// Returns unused memory to the system. Returns true if arenas were unmapped.
pub(crate) fn trim() -> bool {
    let arenas = || PerThread.stats_of_all().total.arenas.current;
    let before = arenas();
    preserving_errno(|| PerThread.flush());
    arenas() < before
}

/// Counts the memory of the calling thread, of ended threads, and of all large blocks.
pub(crate) fn figures() -> Figures {
    let (large_blocks, large_bytes) = pages::count();
    Figures { pools: PerThread.stats_of_all(), large_blocks, large_bytes }
}

/// Sets `errno` to `ENOMEM`, for a request that is refused.
#[cold]
pub(crate) fn refuse<T>() -> Option<T> {
    // SAFETY: the C library's `errno` exists as long as its thread runs.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    None
}

/// Allocates a block when no free list has one.
#[cold]
#[inline(never)]
fn alloc_unlisted(size: usize, align: usize) -> Option<NonNull<u8>> {
    // A block without a byte could begin where another mapping begins.
    let size = size.max(1);
    let request = || match class(size, align) {
        Some(class) => PerThread.alloc(class).map(BlockPtr::into_start),
        None => pages::alloc(size, align),
    };
    let again = || {
        PerThread.flush();
        request()
    };
    // A request that no address space could serve is not repeated.
    let is_possible = size <= isize::MAX as usize;
    request().or_else(|| if is_possible { again() } else { None }).or_else(refuse)
}

/// Moves the block at `ptr`, which has `usable` bytes, to one of `size` bytes.
///
/// # Safety
///
/// - The requirements of [`resize`] must be met, and `usable` must be the size of the block.
#[inline(never)]
unsafe fn move_to(ptr: NonNull<u8>, usable: usize, size: usize) -> Option<NonNull<u8>> {
    if class(usable, 1).is_none() && class(size, 1).is_none() {
        // SAFETY: blocks above the largest class have pages of their own.
        return unsafe { pages::resize(ptr, size) }.or_else(refuse);
    }
    let new = alloc(size, MIN_ALIGN)?;
    // SAFETY: both blocks are live, have that many bytes and do not overlap.
    unsafe { new.copy_from_nonoverlapping(ptr, usable.min(size)) };
    // SAFETY: the block is live, and the caller uses only `new` from now on (contract).
    unsafe { free(ptr) };
    Some(new)
}
