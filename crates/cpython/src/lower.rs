//! The allocator below the heap. The heap forwards large requests to it, and blocks that are not
//! the heap's own.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use allocator_api::{CAllocator, Domain};
use raw_mem::MemAlloc;

use crate::abi::{CPython, RawFunctions};

/// True if a later `Py_Initialize` began with CPython's own allocator. Blocks that this allocator
/// served at that time may still be live.
static WAS_REINITIALISED: AtomicBool = AtomicBool::new(false);

/// Records that CPython's own allocator has served blocks. Must be called before a thread can pass
/// such a block to the heap.
pub(crate) fn note_reinit() {
    WAS_REINITIALISED.store(true, Relaxed);
}

/// Returns true after [`note_reinit`].
pub(crate) fn was_reinitialised() -> bool {
    // Relaxed is enough. A thread that has a block of CPython's own allocator received the block
    // from a thread that had already observed the store.
    WAS_REINITIALISED.load(Relaxed)
}

/// CPython's raw domain, called through its public functions. A program may set a hook in that
/// domain. The hook then sees the same requests as if CPython's own allocator were in force.
///
/// After a reinitialisation of CPython, requests go to CPython's own allocator instead, because
/// some of its blocks may still be live. That allocator recognises its own blocks, and forwards all
/// others to the raw domain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lower {
    raw: RawFunctions,
    cpython: CAllocator,
}

impl Lower {
    /// Returns the layer below for `python`. Must be called before the heap is installed, because
    /// the vtable of the domain obj must still be the one of CPython's own allocator.
    pub(crate) fn new(python: &CPython) -> Self {
        // SAFETY: we call the allocator only after a reinitialisation, and only for requests in the
        // domains mem and obj. CPython itself would call it in the same way.
        let cpython = unsafe { CAllocator::new(python.allocator(Domain::Obj)) };
        Self { raw: python.raw, cpython }
    }
}

// SAFETY: CPython's raw domain promises the same as `MemAlloc`, on every thread, even before
// CPython is initialised and after it is finalized. CPython's own allocator promises the same for
// requests in the domains mem and obj, and it also accepts blocks of the raw domain.
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
