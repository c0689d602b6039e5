//! The global allocator of the process, whichever the worker has linked in.

use std::alloc::{self, Layout};

use crate::contender::Contender;

/// The global allocator, through the functions that `Box` and `Vec` go through.
#[derive(Clone, Copy, Debug)]
pub struct Global;

// SAFETY: the promises are those of the global allocator.
unsafe impl Contender for Global {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: the trait asks for at least a byte.
        unsafe { alloc::alloc(layout) }
    }

    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: the trait asks for at least a byte.
        unsafe { alloc::alloc_zeroed(layout) }
    }

    #[inline(always)]
    unsafe fn free(&mut self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { alloc::dealloc(memory, layout) };
    }

    #[inline(always)]
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { alloc::realloc(memory, layout, size) }
    }
}
