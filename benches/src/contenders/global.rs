//! The global allocator of the process, which differs between workers.

use std::alloc::{self, Layout};

use crate::contender::Contender;

/// The global allocator, called through the functions that `Box` and `Vec` call.
#[derive(Clone, Copy, Debug)]
pub struct Global;

// SAFETY: the contract of the global allocator includes that of `Contender`.
unsafe impl Contender for Global {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout has at least one byte (contract of `Contender::alloc`).
        unsafe { alloc::alloc(layout) }
    }

    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout has at least one byte (contract of `Contender::alloc`).
        unsafe { alloc::alloc_zeroed(layout) }
    }

    #[inline(always)]
    unsafe fn free(&mut self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` was allocated for `layout` and is not used again (contract of `free`).
        unsafe { alloc::dealloc(memory, layout) };
    }

    #[inline(always)]
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `memory` was allocated for `layout` (contract of `realloc`), and `size` is not 0.
        unsafe { alloc::realloc(memory, layout, size) }
    }
}
