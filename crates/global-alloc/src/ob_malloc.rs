//! The process's heaps as the global allocator.

use std::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
};

use obmalloc::{BlockPtr, Blocks, SizeClass};
use thread_heap::PerThread;

use crate::{any_layout::AnyLayout, foreign, large, layout::Pools};

/// The global allocator: small requests to a heap for each thread, large ones to the C library.
///
/// ```
/// use global_alloc::ObMalloc;
///
/// #[global_allocator]
/// static GLOBAL: ObMalloc = ObMalloc::new();
///
/// let words: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
/// assert_eq!(words.concat().len(), 2890);
/// ```
///
/// It holds nothing: any two of them are one and the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObMalloc;

impl ObMalloc {
    /// The allocator.
    pub const fn new() -> Self {
        Self
    }

    /// Sends the blocks of other threads that this one has freed and holds back, takes home what
    /// others have freed of its own, and gives back what arenas can go, those that are kept for
    /// later as well: for a thread that is about to wait for long.
    ///
    /// It also purges what waits for other threads: pages that hold only blocks which were freed
    /// for a thread, and which that thread has not taken back yet, go back to the system.
    ///
    /// ```
    /// # use global_alloc::ObMalloc;
    /// drop((0..100_000).map(Box::new).collect::<Vec<_>>());
    /// ObMalloc::new().flush();
    /// ```
    pub fn flush(self) {
        PerThread.flush();
    }

    /// Returns how many bytes the program may use at `ptr`. This is at least the size that was
    /// asked for.
    ///
    /// The bytes beyond that size are uninitialised at first, and a reallocation does not have to
    /// preserve them. The memory must still be freed with the layout that it was allocated with.
    ///
    /// # Safety
    ///
    /// `ptr` must have been returned by this allocator, and must not have been freed since. An
    /// empty collection has no such pointer.
    ///
    /// ```
    /// # use global_alloc::ObMalloc;
    /// #[global_allocator]
    /// static GLOBAL: ObMalloc = ObMalloc::new();
    ///
    /// let text = String::from("nineteen characters");
    /// // SAFETY: the string has memory of the global allocator.
    /// assert_eq!(unsafe { GLOBAL.usable_size(text.as_ptr()) }, 32);
    /// ```
    #[cfg(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_vendor = "apple"
    ))]
    pub unsafe fn usable_size(self, ptr: *const u8) -> usize {
        // SAFETY: memory of this allocator is not at null.
        let ptr = unsafe { NonNull::new_unchecked(ptr.cast_mut()) };
        // SAFETY: if it is in an arena, it is a block in use, as the caller promises.
        let block_size = unsafe { PerThread.size_if_ours(ptr) };
        // SAFETY: the memory is live (contract) and lies outside the pools, so the C library
        // allocated it.
        block_size.unwrap_or_else(|| unsafe { large::usable_size(ptr) })
    }
}

/// A block of `class`, of which none is at hand.
#[cold]
#[inline(never)]
fn block_by_any_means(class: SizeClass<Pools>) -> Option<BlockPtr> {
    PerThread.alloc(class)
}

// What is large is never inlined, so that small requests need no stack frame.
// SAFETY: blocks are those of the threads' heaps, and what is large is the C library's.
unsafe impl AnyLayout for ObMalloc {
    #[inline]
    fn block(&self, class: SizeClass<Pools>) -> Option<BlockPtr> {
        match PerThread.alloc_listed(class) {
            Some(block) => Some(block),
            None => block_by_any_means(class),
        }
    }

    #[inline]
    unsafe fn free_block(&self, block: BlockPtr) {
        // SAFETY: the caller's promise.
        unsafe { PerThread.free(block) };
    }

    #[inline(never)]
    fn large(&self, layout: Layout) -> Option<NonNull<u8>> {
        large::after_trim(|| large::alloc(layout), || self.flush())
    }

    #[inline(never)]
    fn large_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        large::after_trim(|| large::alloc_zeroed(layout), || self.flush())
    }

    #[inline(never)]
    unsafe fn resize_large(
        &self,
        ptr: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise; a request that fails leaves the memory as it was.
        large::after_trim(|| unsafe { large::resize(ptr, layout, size) }, || self.flush())
    }

    unsafe fn free_large(&self, ptr: NonNull<u8>, _layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { large::free(ptr) };
    }
}

/// The pointer of a request, null if it failed.
#[inline]
fn or_null(start: Option<NonNull<u8>>) -> *mut u8 {
    start.map_or(ptr::null_mut(), NonNull::as_ptr)
}

// SAFETY: memory is as `AnyLayout` promises: as large and aligned as the layout, the caller's
// alone; and nothing here unwinds.
unsafe impl GlobalAlloc for ObMalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        or_null(self.allocate(layout))
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        or_null(self.allocate_zeroed(layout))
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller gives memory of this allocator, which is not at null.
        let ptr = unsafe { NonNull::new_unchecked(ptr) };
        if cfg!(debug_assertions) {
            // SAFETY: the caller's promise.
            unsafe { foreign::check("free", ptr, layout) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.deallocate(ptr, layout) };
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller gives memory of this allocator, which is not at null.
        let ptr = unsafe { NonNull::new_unchecked(ptr) };
        if cfg!(debug_assertions) {
            // SAFETY: the caller's promise.
            unsafe { foreign::check("resize", ptr, layout) };
        }
        // SAFETY: the caller promises that this is a layout.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller's promise.
        or_null(unsafe { self.reallocate(ptr, layout, new) })
    }
}
