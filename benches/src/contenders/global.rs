//! The global allocator of the process, which is the one that the worker links.

use std::alloc::{self, GlobalAlloc, Layout};

/// The global allocator, called through the functions that `Box` and `Vec` call.
#[derive(Clone, Copy, Debug)]
pub struct Global;

// SAFETY: the functions are those of the global allocator, and have its contract.
unsafe impl GlobalAlloc for Global {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout has at least one byte (contract of `GlobalAlloc::alloc`).
        unsafe { alloc::alloc(layout) }
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout has at least one byte (contract of `GlobalAlloc::alloc_zeroed`).
        unsafe { alloc::alloc_zeroed(layout) }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `alloc` for `layout` (contract of `GlobalAlloc::dealloc`).
        unsafe { alloc::dealloc(memory, layout) };
    }

    #[inline(always)]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `memory` came from `alloc` for `layout`, and `size` is not zero (contract of
        // `GlobalAlloc::realloc`).
        unsafe { alloc::realloc(memory, layout, size) }
    }
}
