//! The heap of obmalloc, used directly by one owner.

use std::{
    alloc::Layout,
    ptr::{self, NonNull},
};

use obmalloc::{BlockPtr, Geometry, Heap, Native, Pools16K, SizeClass};
use raw_mem::{Malloc, MmapArenas, RetainingArenas};

use crate::contender::{Contender, moved};

/// A [`Heap`] with the geometry `G`.
pub struct OwnHeap<G: Geometry>(Heap<RetainingArenas<MmapArenas>, Malloc, G>);

/// A heap with the same rules as the heaps of threads.
pub type ThreadRulesHeap = OwnHeap<Native>;

/// A heap with the rules of CPython.
pub type CPythonRulesHeap = OwnHeap<Pools16K>;

impl<G: Geometry> Default for OwnHeap<G> {
    fn default() -> Self {
        Self(Heap::with_geometry(RetainingArenas::new(MmapArenas::new()), Malloc))
    }
}

// SAFETY: blocks have at least the requested size and are aligned to 16 bytes. The heap does not
// use them before they are freed.
unsafe impl<G: Geometry> Contender for OwnHeap<G> {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        let block = SizeClass::of_small(layout.size()).and_then(|class| self.0.alloc(class));
        block.map_or(ptr::null_mut(), |block| block.into_start().as_ptr())
    }

    #[inline(always)]
    unsafe fn free(&mut self, memory: *mut u8, _layout: Layout) {
        // SAFETY: `memory` is a live block of this heap (contract of `free`), so it is not null.
        let block = unsafe { BlockPtr::from_start(NonNull::new_unchecked(memory)) };
        // SAFETY: the small block came from this heap and is not used again (contract of `free`).
        unsafe { self.0.free_linked_or_span(block) };
    }

    #[inline(always)]
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let class = |size| SizeClass::<G>::of_small(size);
        if class(layout.size()) == class(size) {
            return memory;
        }
        // SAFETY: `memory` came from this heap for `layout` (contract of `realloc`).
        unsafe { moved(self, memory, layout, size) }
    }
}
