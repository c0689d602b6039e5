//! The allocator below the heap. The heap forwards large requests to this allocator. It also
//! forwards requests to resize or free a block that did not come from the heap.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use allocator_api::{CAllocator, Domain};
use raw_mem::MemAlloc;

use crate::abi::{CPython, RawFunctions};

/// True if CPython has been reinitialised. Each reinitialisation begins with CPython's own
/// allocator, until we install the heap again. Blocks that CPython's allocator returned in between
/// may still be live.
static WAS_REINITIALISED: AtomicBool = AtomicBool::new(false);

/// Records that CPython's own allocator has returned blocks during a reinitialisation. Must be
/// called before a thread can pass such a block to the heap.
pub(crate) fn note_reinit() {
    WAS_REINITIALISED.store(true, Relaxed);
}

/// Returns true after [`note_reinit`].
pub(crate) fn was_reinitialised() -> bool {
    // Relaxed is enough, because the result must be correct only for a thread that has a block of
    // CPython's own allocator. Such a thread received the block from a thread that had already
    // observed the store.
    WAS_REINITIALISED.load(Relaxed)
}

/// CPython's raw domain, called through CPython's public functions. If a program sets a hook in the
/// raw domain, the hook therefore sees the same requests as if CPython's own allocator were in
/// force.
///
/// After a reinitialisation of CPython, requests go to CPython's own allocator instead, because
/// some blocks of that allocator may still be live. CPython's own allocator recognises its own
/// blocks, and forwards requests for all other blocks to the raw domain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lower {
    raw: RawFunctions,
    cpython: CAllocator,
}

impl Lower {
    /// Makes the lower allocator for the heap in `python`. Must be called before the heap is
    /// installed. Until then, the vtable of the domain obj is the one of CPython's own allocator,
    /// which this function stores.
    pub(crate) fn new(python: &CPython) -> Self {
        // SAFETY: the vtable is the one of CPython's own allocator. We call it only after a
        // reinitialisation, and only for requests in the domains mem and obj. CPython itself would
        // call the allocator in the same way.
        let cpython = unsafe { CAllocator::new(python.allocator(Domain::Obj)) };
        Self { raw: python.raw, cpython }
    }
}

// SAFETY: CPython's raw domain gives the guarantees of `MemAlloc` on every thread, even before
// CPython is initialised and after it is finalized. CPython's own allocator gives these guarantees
// for requests in the domains mem and obj, and it also accepts blocks of the raw domain.
unsafe impl MemAlloc for Lower {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if was_reinitialised() {
            return self.cpython.malloc(size);
        }
        // SAFETY: the function takes any size, and refuses one that is too large.
        unsafe { (self.raw.malloc)(size) }
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        if was_reinitialised() {
            return self.cpython.calloc(count, size);
        }
        // SAFETY: the function takes any sizes, and refuses a product that is too large.
        unsafe { (self.raw.calloc)(count, size) }
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        if was_reinitialised() {
            // SAFETY: `ptr` is null or a live block of either allocator (contract).
            return unsafe { self.cpython.realloc(ptr, size) };
        }
        // SAFETY: `ptr` is null or a live block of the raw domain (contract of `realloc`).
        unsafe { (self.raw.realloc)(ptr, size) }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        if was_reinitialised() {
            // SAFETY: `ptr` is null or a live block of either allocator, and is not used again
            // (contract).
            return unsafe { self.cpython.free(ptr) };
        }
        // SAFETY: `ptr` is null or a live block of the raw domain, and is not used again
        // (contract).
        unsafe { (self.raw.free)(ptr) }
    }
}
