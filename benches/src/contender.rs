//! A contender is an allocator under test. It allocates memory for a layout and frees it.

use std::{
    alloc::{Layout, handle_alloc_error},
    ptr::{self, NonNull},
    sync::atomic::{Ordering, compiler_fence},
};

/// An allocator under test, which is called in the way that is fastest for it.
///
/// # Safety
///
/// - Allocated memory must have the size and the alignment of its layout.
/// - Until the memory is freed, the contender must neither use it nor allocate it again.
pub unsafe trait Contender {
    /// Allocates uninitialised memory for `layout`, which has 1 to 512 bytes and an alignment of at
    /// most 16. Returns null if the allocation fails.
    fn alloc(&mut self, layout: Layout) -> *mut u8;

    /// Allocates zeroed memory for `layout`. Returns null if the allocation fails.
    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        let start = self.alloc(layout);
        if !start.is_null() {
            // SAFETY: the memory was allocated for `layout`, and nothing else uses it.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
    }

    /// Frees `memory`, which was allocated for `layout`.
    ///
    /// # Safety
    ///
    /// - `memory` must have been allocated by this contender for `layout`.
    /// - `memory` must not be used afterwards.
    unsafe fn free(&mut self, memory: *mut u8, layout: Layout);

    /// Resizes `memory` to `size` bytes and keeps its contents. Returns the new address, or null if
    /// the allocation fails.
    ///
    /// # Safety
    ///
    /// - `memory` must have been allocated by this contender for `layout`.
    /// - `memory` must not be used afterwards, unless null is returned.
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8;
}

/// Resizes `memory` by allocating a new block of `size` bytes, copying the contents and freeing the
/// old block.
///
/// # Safety
///
/// The requirements of [`Contender::realloc`] must be met.
#[inline]
pub(crate) unsafe fn moved<C: Contender>(
    contender: &mut C,
    memory: *mut u8,
    old: Layout,
    size: usize,
) -> *mut u8 {
    let new = contender.alloc(layout(size));
    if !new.is_null() {
        // SAFETY: the blocks do not overlap, and each has at least as many bytes as are copied.
        unsafe { ptr::copy_nonoverlapping(memory, new, size.min(old.size())) };
        // SAFETY: `contender` allocated `memory` for `old` (contract of `moved`).
        unsafe { contender.free(memory, old) };
    }
    new
}

/// Says whether an allocator has a `realloc` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realloc {
    /// The allocator has a `realloc`, which decides whether a block stays in place.
    Own,
    /// The allocator has no `realloc`. Its callers could do themselves what [`Contender::realloc`]
    /// does.
    Lacking,
}

/// A live block, and the size for which it was allocated.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    start: NonNull<u8>,
    size: usize,
}

/// The alignment of every block. It is that of a word, as for most blocks in programs.
const ALIGN: usize = align_of::<usize>();

/// Returns the layout of a block of `size` bytes.
#[inline(always)]
pub(crate) fn layout(size: usize) -> Layout {
    debug_assert!(size <= 1 << 20);
    // SAFETY: the alignment is a power of two, and no workload requests more than 1 MiB.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

impl Held {
    /// Allocates `size` bytes and writes to the first byte.
    ///
    /// Ends the process if the allocation fails, because a time for less work would be misleading.
    #[inline(always)]
    pub fn new<C: Contender>(contender: &mut C, size: usize) -> Self {
        Self::begin(contender.alloc(layout(size)), size)
    }

    /// Allocates `size` zeroed bytes and writes to the first byte, as [`new`](Self::new) does.
    #[inline(always)]
    pub fn zeroed<C: Contender>(contender: &mut C, size: usize) -> Self {
        Self::begin(contender.alloc_zeroed(layout(size)), size)
    }

    /// Returns the block at `start`, which was allocated for `size` bytes.
    #[inline(always)]
    pub(crate) fn of(start: *mut u8, size: usize) -> Self {
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout(size)) };
        Self { start, size }
    }

    /// Writes to the new block at `start`, and returns the block.
    #[inline(always)]
    fn begin(start: *mut u8, size: usize) -> Self {
        let held = Self::of(start, size);
        // SAFETY: the block has at least one byte, and has just been allocated.
        unsafe { held.start.write_volatile(1) };
        between();
        held
    }

    /// Grows or shrinks the block to `size` bytes.
    #[inline(always)]
    pub fn resize<C: Contender>(self, contender: &mut C, size: usize) -> Self {
        // SAFETY: a workload uses only one contender, so `contender` allocated this block. `self`
        // is not used afterwards.
        let start = unsafe { contender.realloc(self.start.as_ptr(), layout(self.size), size) };
        Self::begin(start, size)
    }

    /// Frees the block.
    #[inline(always)]
    pub fn free<C: Contender>(self, contender: &mut C) {
        // SAFETY: a workload uses only one contender, so `contender` allocated this block. The
        // workload frees each block only once.
        unsafe { contender.free(self.start.as_ptr(), layout(self.size)) };
        between();
    }

    /// Returns the address of the first byte.
    #[inline(always)]
    pub fn start(self) -> *mut u8 {
        self.start.as_ptr()
    }
}

/// Prevents the compiler from simplifying inlined code across two calls of an allocator. In a real
/// program, the code between two calls may change any memory. The fence makes the compiler assume
/// this here, too.
#[inline(always)]
fn between() {
    compiler_fence(Ordering::SeqCst);
}

// SAFETY: the value is only an address and a size. Its owner decides which thread uses the block.
unsafe impl Send for Held {}
// SAFETY: a shared reference gives access only to the address and the size, not to the block.
unsafe impl Sync for Held {}
