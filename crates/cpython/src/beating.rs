//! A wrapper around a heap that keeps the status page up to date.

use std::ptr::NonNull;

use obmalloc::{BlockPtr, Blocks, Geometry, SizeClass};

use crate::status;

/// A wrapper around the heap `B` that calls [`status::beat`] before the heap allocates a span.
///
/// The status page of a process shows its statistics to other processes. The function `beat`
/// schedules a refresh of this page if one is due. Every request for more than 512 bytes calls
/// `beat`, except a `realloc` that leaves a span in place. If the heap serves the request with a
/// span, this wrapper makes the call. Otherwise, the allocator below the
/// heap, [`Lower`](crate::lower::Lower), makes it.
///
/// Smaller requests are far more frequent, so they do not call `beat` if the heap serves them.
#[derive(Debug)]
pub(crate) struct Beating<B>(B);

impl<B> Beating<B> {
    pub(crate) const fn new(heap: B) -> Self {
        Self(heap)
    }

    pub(crate) const fn heap(&self) -> &B {
        &self.0
    }
}

// SAFETY: the wrapped heap fulfils the contract, and every request reaches it unchanged.
unsafe impl<B: Blocks> Blocks for Beating<B> {
    type Geometry = B::Geometry;

    #[inline(always)]
    fn alloc_listed(&self, class: SizeClass<B::Geometry>) -> Option<BlockPtr> {
        self.0.alloc_listed(class)
    }

    #[inline(always)]
    fn alloc(&self, class: SizeClass<B::Geometry>) -> Option<BlockPtr> {
        beat_for_span(class);
        self.0.alloc(class)
    }

    fn alloc_zeroed(&self, class: SizeClass<B::Geometry>, bytes: usize) -> Option<BlockPtr> {
        beat_for_span(class);
        self.0.alloc_zeroed(class, bytes)
    }

    fn trim(&self) -> usize {
        self.0.trim()
    }

    #[inline(always)]
    fn visit(&self) {
        self.0.visit();
    }

    #[inline(always)]
    unsafe fn free(&self, block: BlockPtr) {
        // SAFETY: the contract is the same.
        unsafe { self.0.free(block) };
    }

    #[inline(always)]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        // SAFETY: the contract is the same.
        unsafe { self.0.free_if_ours(ptr) }
    }

    #[inline(always)]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the contract is the same.
        unsafe { self.0.size_if_ours(ptr) }
    }
}

#[inline(always)]
fn beat_for_span<G: Geometry>(class: SizeClass<G>) {
    if class.is_span() {
        status::beat();
    }
}
