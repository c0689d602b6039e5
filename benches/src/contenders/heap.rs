//! Our heap by itself, for one owner.

use std::{
    alloc::Layout,
    ptr::{self, NonNull},
};

use obmalloc::{BlockPtr, Geometry, Heap, Native, Pools16K, SizeClass};
use raw_mem::{Malloc, MmapArenas, RetainingArenas};

use super::moved;
use crate::contender::Contender;

/// [`Heap`] with the geometry `G`, used as its page shows: a size class in, a block out.
pub struct OwnHeap<G: Geometry>(Heap<RetainingArenas<MmapArenas>, Malloc, G>);

/// Our heap with the rules of the threads' heaps.
pub type ThreadRulesHeap = OwnHeap<Native>;

/// Our heap with CPython's rules.
pub type CPythonRulesHeap = OwnHeap<Pools16K>;

impl<G: Geometry> OwnHeap<G> {
    /// A heap without arenas.
    pub const fn new() -> Self {
        Self(Heap::with_geometry(RetainingArenas::new(MmapArenas::new()), Malloc))
    }
}

impl<G: Geometry> Default for OwnHeap<G> {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: a block is at least as large as its class's requests, aligned to 16, and its holder's.
unsafe impl<G: Geometry> Contender for OwnHeap<G> {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        let block = SizeClass::of(layout.size()).and_then(|class| self.0.alloc(class));
        block.map_or(ptr::null_mut(), |block| block.into_start().as_ptr())
    }

    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        let start = self.alloc(layout);
        if !start.is_null() {
            // SAFETY: the block is that large, and nobody else's.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
    }

    #[inline(always)]
    unsafe fn free(&mut self, memory: *mut u8, _layout: Layout) {
        // SAFETY: the caller's promise: it is a block in use of this heap, so it is not at null.
        let block = unsafe { BlockPtr::from_start(NonNull::new_unchecked(memory)) };
        // SAFETY: the caller's promise.
        unsafe { self.0.free(block) };
    }

    #[inline(always)]
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let class = |size| SizeClass::<G>::of(size);
        if class(layout.size()) == class(size) {
            return memory;
        }
        // SAFETY: the caller's promise.
        unsafe { moved(self, memory, layout, size) }
    }
}
