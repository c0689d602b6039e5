//! A contender: something that gives memory for a layout and takes it back.

use std::{
    alloc::{Layout, handle_alloc_error},
    ptr::NonNull,
    sync::atomic::{Ordering, compiler_fence},
};

/// An allocator by its own fastest way.
///
/// # Safety
///
/// Memory that is given is as large and aligned as its layout says, and nobody else's until it
/// is freed.
pub unsafe trait Contender {
    /// Memory for `layout`, of 1 to 512 bytes, aligned to at most 16; uninitialised.
    fn alloc(&mut self, layout: Layout) -> *mut u8;

    /// The same, all zero.
    fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8;

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `memory` came from this contender for `layout`, and is not used again.
    unsafe fn free(&mut self, memory: *mut u8, layout: Layout);

    /// Makes memory for `layout` memory for `size` bytes, with its contents.
    ///
    /// # Safety
    ///
    /// `memory` came from this contender for `layout`; it is replaced by what comes back.
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8;
}

/// Whether an allocator has a `realloc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realloc {
    /// It has, and decides whether a block stays.
    Own,
    /// It has none: what [`Contender::realloc`] does, its callers would do for themselves.
    Lacking,
}

/// A block in use: where it is, and what it was allocated for.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    start: NonNull<u8>,
    size: usize,
}

/// The alignment of every block: that of a word, as of most that programs allocate.
const ALIGN: usize = align_of::<usize>();

/// What `size` bytes are allocated for.
#[inline(always)]
pub(crate) fn layout(size: usize) -> Layout {
    debug_assert!(size <= 1 << 20);
    // SAFETY: the alignment is a power of two, and no workload asks for more than 1 MiB.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

impl Held {
    /// Allocates `size` bytes and writes to the first one.
    ///
    /// The process ends where there is no memory: a time without the work would be worth nothing.
    #[inline(always)]
    pub fn new<C: Contender>(contender: &mut C, size: usize) -> Self {
        Self::begin(contender.alloc(layout(size)), size)
    }

    /// The same, zeroed.
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

    /// The first write to a block.
    #[inline(always)]
    fn begin(start: *mut u8, size: usize) -> Self {
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout(size)) };
        // SAFETY: the block has at least a byte, and is the caller's.
        unsafe { start.write_volatile(1) };
        between();
        Self { start, size }
    }

    /// Grows or shrinks it to `size` bytes.
    #[inline(always)]
    pub fn resize<C: Contender>(self, contender: &mut C, size: usize) -> Self {
        // SAFETY: a workload uses one contender, and gives the old block up here.
        let start = unsafe { contender.realloc(self.start.as_ptr(), layout(self.size), size) };
        Self::begin(start, size)
    }

    /// Frees it.
    #[inline(always)]
    pub fn free<C: Contender>(self, contender: &mut C) {
        // SAFETY: a workload uses one contender, and frees what it holds once.
        unsafe { contender.free(self.start.as_ptr(), layout(self.size)) };
        between();
    }

    /// Its first byte.
    #[inline(always)]
    pub fn start(self) -> *mut u8 {
        self.start.as_ptr()
    }
}

/// What a program does between two calls of its allocator, as the compiler sees it: anything to
/// any memory. Without it, what is inlined would be simplified across calls, as in no program.
#[inline(always)]
fn between() {
    compiler_fence(Ordering::SeqCst);
}

// SAFETY: it is an address and a size; who holds it decides who uses the block.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}
