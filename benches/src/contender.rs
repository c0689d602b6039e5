//! The allocators under test, called contenders, and the blocks that they allocate.

use std::{
    alloc::{Layout, handle_alloc_error},
    ptr::{self, NonNull},
    sync::atomic::{Ordering, compiler_fence},
};

/// An allocator under test, called in the way that is fastest for it.
///
/// # Safety
///
/// - Allocated memory must have the size and the alignment of its layout.
/// - Until the memory is freed, the contender must neither use it nor allocate it again.
pub unsafe trait Contender {
    /// Allocates memory for `layout`, or returns null on failure.
    ///
    /// A contender for a single thread needs to serve only requests of 1 to 512 bytes, aligned to
    /// at most 16.
    fn alloc(&mut self, layout: Layout) -> *mut u8;

    /// Allocates zeroed memory, or returns null on failure.
    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        let start = self.alloc(layout);
        if !start.is_null() {
            // SAFETY: the memory was allocated for `layout`, and nothing else uses it.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
    }

    /// Frees `memory`.
    ///
    /// # Safety
    ///
    /// This contender must have allocated `memory` for `layout`, and it must not be used again.
    unsafe fn free(&mut self, memory: *mut u8, layout: Layout);

    /// Resizes `memory` to `size` bytes, or returns null on failure.
    ///
    /// # Safety
    ///
    /// This contender must have allocated `memory` for `layout`. It must not be used afterwards,
    /// unless null is returned.
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8;
}

/// Resizes `memory` by moving its contents to a new block.
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

/// Whether an allocator has a `realloc` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realloc {
    /// The allocator decides whether a block stays in place.
    Own,
    /// The allocator has no `realloc`, so [`Contender::realloc`] copies the block.
    Lacking,
}

/// A live block and its size.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    start: NonNull<u8>,
    size: usize,
}

const ALIGN: usize = align_of::<usize>();

/// The largest size and the largest alignment of a workload, in bytes.
const MOST: usize = 64 << 20;

#[inline(always)]
pub(crate) fn layout(size: usize) -> Layout {
    aligned_layout(size, ALIGN)
}

/// Returns the layout of `size` bytes at a multiple of `align`, which is a power of two.
#[inline(always)]
fn aligned_layout(size: usize, align: usize) -> Layout {
    debug_assert!(size <= MOST && align.is_power_of_two() && align <= MOST);
    // SAFETY: no workload requests more than `MOST` bytes, and its alignments are powers of two.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

impl Held {
    /// Allocates `size` bytes and writes to the first. Ends the process on failure.
    #[inline(always)]
    pub fn new<C: Contender>(contender: &mut C, size: usize) -> Self {
        Self::begin(contender.alloc(layout(size)), size)
    }

    /// Allocates `size` zeroed bytes and writes to the first byte.
    #[inline(always)]
    pub fn zeroed<C: Contender>(contender: &mut C, size: usize) -> Self {
        Self::begin(contender.alloc_zeroed(layout(size)), size)
    }

    /// Allocates `size` bytes at a multiple of `align`, and writes to the first byte.
    #[inline(always)]
    pub(crate) fn aligned<C: Contender>(contender: &mut C, size: usize, align: usize) -> Self {
        Self::begin(contender.alloc(aligned_layout(size, align)), size)
    }

    #[inline(always)]
    pub(crate) fn of(start: *mut u8, size: usize) -> Self {
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout(size)) };
        Self { start, size }
    }

    #[inline(always)]
    fn begin(start: *mut u8, size: usize) -> Self {
        let held = Self::of(start, size);
        // SAFETY: the block is new and has at least one byte.
        unsafe { held.start.write_volatile(1) };
        between();
        held
    }

    /// Grows or shrinks the block to `size` bytes.
    #[inline(always)]
    pub fn resize<C: Contender>(self, contender: &mut C, size: usize) -> Self {
        // SAFETY: a workload uses only one contender, which therefore allocated this block.
        let start = unsafe { contender.realloc(self.start.as_ptr(), layout(self.size), size) };
        Self::begin(start, size)
    }

    /// Frees the block.
    #[inline(always)]
    pub fn free<C: Contender>(self, contender: &mut C) {
        self.free_aligned(contender, ALIGN);
    }

    /// Frees the block, which was allocated with the alignment `align`.
    #[inline(always)]
    pub(crate) fn free_aligned<C: Contender>(self, contender: &mut C, align: usize) {
        // SAFETY: a workload uses only one contender, frees each block only once, and passes the
        // alignment with which it allocated the block.
        unsafe { contender.free(self.start.as_ptr(), aligned_layout(self.size, align)) };
        between();
    }

    /// Writes to one byte of every page.
    #[inline(always)]
    pub(crate) fn write_pages(self) {
        for offset in (0..self.size).step_by(PAGE) {
            // SAFETY: `offset` is inside the block, and only the owner of the block uses it.
            unsafe { self.start.add(offset).write_volatile(1) };
        }
    }

    /// Returns the sum of one byte of every page. The block must have been allocated zeroed.
    #[inline(always)]
    pub(crate) fn read_pages(self) -> u64 {
        let offsets = (0..self.size).step_by(PAGE);
        // SAFETY: each offset is inside the block, which the workload allocated zeroed.
        offsets.map(|offset| u64::from(unsafe { self.start.add(offset).read_volatile() })).sum()
    }

    /// Writes to every byte after the first `from` bytes.
    #[inline(always)]
    pub(crate) fn fill(self, from: usize) {
        debug_assert!(from <= self.size);
        // SAFETY: the bytes are inside the block, and only the owner of the block uses it.
        unsafe { self.start.add(from).write_bytes(1, self.size - from) };
        between();
    }

    /// Returns the size in bytes.
    #[inline(always)]
    pub(crate) const fn size(self) -> usize {
        self.size
    }

    /// Returns the address of the first byte.
    #[inline(always)]
    pub fn start(self) -> *mut u8 {
        self.start.as_ptr()
    }
}

/// The size of the smallest page of the system, in bytes.
const PAGE: usize = 4096;

/// Keeps the compiler from combining two inlined calls of an allocator.
#[inline(always)]
fn between() {
    compiler_fence(Ordering::SeqCst);
}

// SAFETY: the value is only an address and a size, and its owner decides who uses the block.
unsafe impl Send for Held {}
// SAFETY: a shared reference gives no access to the block.
unsafe impl Sync for Held {}
