//! The layer below the heap.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use allocator_api::{CAllocator, Domain};
use raw_mem::MemAlloc;

use crate::abi::{CPython, RawFunctions};

/// True if CPython was initialised again with its own allocator, which therefore has live blocks.
static WAS_REINITIALISED: AtomicBool = AtomicBool::new(false);

/// Records that CPython's own allocator has served blocks. Must be called before the heap can get
/// one of them.
pub(crate) fn note_reinit() {
    WAS_REINITIALISED.store(true, Relaxed);
}

/// Returns true after [`note_reinit`].
pub(crate) fn was_reinitialised() -> bool {
    // Relaxed is enough, because a thread that has such a block received it from a thread that had
    // already observed the store.
    WAS_REINITIALISED.load(Relaxed)
}

/// CPython's raw domain, called through its public functions. A hook that somebody sets in that
/// domain therefore sees the same requests as with CPython's own allocator.
///
/// After a reinitialisation, requests go to CPython's own allocator instead. It knows its own
/// blocks, and passes all others to the raw domain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lower {
    raw: RawFunctions,
    cpython: CAllocator,
}

impl Lower {
    /// Returns the layer below in `python`, in which nothing has been installed yet.
    pub(crate) fn new(python: &CPython) -> Self {
        // SAFETY: the allocator is only called after a reinitialisation, and only by the domains
        // mem and obj, as CPython would call it.
        let cpython = unsafe { CAllocator::new(python.allocator(Domain::Obj)) };
        Self { raw: python.raw, cpython }
    }
}

// SAFETY: CPython's raw domain promises the same to every thread, even before the initialisation
// and after the finalization. CPython's own allocator does so for mem and obj, and it knows blocks
// of the raw domain.
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
            // SAFETY: `ptr` is null or a live block of either allocator, not used again (contract).
            return unsafe { self.cpython.free(ptr) };
        }
        // SAFETY: `ptr` is null or a live block of the raw domain, not used again (contract).
        unsafe { (self.raw.free)(ptr) }
    }
}
