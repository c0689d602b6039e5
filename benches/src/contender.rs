//! A contender allocates memory for a layout and frees it.

use std::{
    alloc::{Layout, handle_alloc_error},
    ptr::{self, NonNull},
    sync::atomic::{Ordering, compiler_fence},
};

/// An allocator, called in its own fastest way.
///
/// # Safety
///
/// - Allocated memory must be as large and as aligned as its layout says.
/// - The contender must not use the memory, or allocate it again, before it is freed.
pub unsafe trait Contender {
    /// Allocates uninitialised memory for `layout`, which has 1 to 512 bytes and an alignment of at
    /// most 16. Returns null if there is no memory.
    fn alloc(&mut self, layout: Layout) -> *mut u8;

    /// Allocates zeroed memory.
    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        let start = self.alloc(layout);
        if !start.is_null() {
            // SAFETY: the memory was allocated for `layout`, and nothing else uses it.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
    }

    /// Frees memory.
    ///
    /// # Safety
    ///
    /// - `memory` must have been allocated by this contender for `layout`.
    /// - It must not be used afterwards.
    unsafe fn free(&mut self, memory: *mut u8, layout: Layout);

    /// Resizes memory to `size` bytes, with its contents. Returns its new address.
    ///
    /// # Safety
    ///
    /// - `memory` must have been allocated by this contender for `layout`.
    /// - It must not be used afterwards, unless null is returned.
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8;
}

/// Moves memory into a new block of `size` bytes.
///
/// # Safety
///
/// As [`Contender::realloc`].
#[inline]
pub(crate) unsafe fn moved<C: Contender>(
    contender: &mut C,
    memory: *mut u8,
    old: Layout,
    size: usize,
) -> *mut u8 {
    let new = contender.alloc(layout(size));
    if !new.is_null() {
        // SAFETY: the blocks do not overlap, and each has at least the smaller of both sizes.
        unsafe { ptr::copy_nonoverlapping(memory, new, size.min(old.size())) };
        // SAFETY: `contender` allocated `memory` for `old` (contract of `moved`).
        unsafe { contender.free(memory, old) };
    }
    new
}

/// Whether an allocator has a `realloc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realloc {
    /// It has one, and decides whether a block stays in its place.
    Own,
    /// It has none. Its callers could do what [`Contender::realloc`] does.
    Lacking,
}

/// A block in use, and the size that it was allocated for.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    start: NonNull<u8>,
    size: usize,
}

/// The alignment of every block: that of a word, as most blocks of programs have.
const ALIGN: usize = align_of::<usize>();

/// Returns the layout of a block of `size` bytes.
#[inline(always)]
pub(crate) fn layout(size: usize) -> Layout {
    debug_assert!(size <= 1 << 20);
    // SAFETY: the alignment is a power of two, and no workload asks for more than 1 MiB.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

impl Held {
    /// Allocates `size` bytes and writes to the first one.
    ///
    /// Ends the process if there is no memory, because a time without the work would be wrong.
    #[inline(always)]
    pub fn new<C: Contender>(contender: &mut C, size: usize) -> Self {
        Self::begin(contender.alloc(layout(size)), size)
    }

    /// Does the same with zeroed memory.
    #[inline(always)]
    pub fn zeroed<C: Contender>(contender: &mut C, size: usize) -> Self {
        Self::begin(contender.alloc_zeroed(layout(size)), size)
    }

    /// The block at `start`, which was allocated for `size` bytes.
    #[inline(always)]
    pub(crate) fn of(start: *mut u8, size: usize) -> Self {
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout(size)) };
        Self { start, size }
    }

    /// Writes to a new block.
    #[inline(always)]
    fn begin(start: *mut u8, size: usize) -> Self {
        let held = Self::of(start, size);
        // SAFETY: the block has at least one byte, and was allocated just now.
        unsafe { held.start.write_volatile(1) };
        between();
        held
    }

    /// Grows or shrinks the block to `size` bytes.
    #[inline(always)]
    pub fn resize<C: Contender>(self, contender: &mut C, size: usize) -> Self {
        // SAFETY: a workload uses one contender, and `self` is not used afterwards.
        let start = unsafe { contender.realloc(self.start.as_ptr(), layout(self.size), size) };
        Self::begin(start, size)
    }

    /// Frees the block.
    #[inline(always)]
    pub fn free<C: Contender>(self, contender: &mut C) {
        // SAFETY: a workload uses one contender, and frees each block once.
        unsafe { contender.free(self.start.as_ptr(), layout(self.size)) };
        between();
    }

    /// The address of the first byte.
    #[inline(always)]
    pub fn start(self) -> *mut u8 {
        self.start.as_ptr()
    }
}

/// Stands for what a program does between two calls of its allocator, which the compiler must
/// assume to change any memory. Otherwise it would simplify inlined code across calls.
#[inline(always)]
fn between() {
    compiler_fence(Ordering::SeqCst);
}

// SAFETY: an address and a size. The owner of the value decides which thread uses the block.
unsafe impl Send for Held {}
// SAFETY: a shared value only gives out the address and the size.
unsafe impl Sync for Held {}
