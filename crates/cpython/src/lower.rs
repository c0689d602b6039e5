//! The allocator below the heap, for large requests and for blocks that the heap does not own.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use allocator_api::{CAllocator, Domain};
use raw_mem::MemAlloc;

use crate::{
    abi::{CPython, DomainFunctions},
    c_library, status,
};

/// True if CPython's own allocator has served requests, so its blocks may be live.
static EXPECTS_OTHERS: AtomicBool = AtomicBool::new(false);

/// Prepares the heap for blocks of CPython's own allocator. Must be called before the heap sees
/// such a block.
pub(crate) fn expect_blocks_of_cpython() {
    EXPECTS_OTHERS.store(true, Relaxed);
}

fn expects_blocks_of_cpython() -> bool {
    // `Relaxed` is enough, because whatever passes a block of CPython to this thread also makes the
    // flag visible.
    EXPECTS_OTHERS.load(Relaxed)
}

/// CPython's raw domain. We call its public functions, so that hooks in this domain see the calls.
///
/// `Lower` gets the requests that our heap does not serve, and normally passes them to CPython's
/// raw domain. If CPython's own allocator for mem and obj served requests before our heap replaced
/// it, some of its blocks may still be in use, and only this allocator can free them. `Lower`
/// cannot tell these blocks from blocks of the raw domain. It therefore passes all of its requests
/// to CPython's own allocator, which recognises its own blocks and passes all others to the raw
/// domain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lower {
    raw: DomainFunctions,
    cpython: CAllocator,
}

impl Lower {
    /// Stores CPython's own allocator for obj. Must be called before the heap is installed.
    pub(crate) fn new(python: &CPython) -> Self {
        // SAFETY: the vtable is CPython's own, and `Lower` calls it only as CPython itself would.
        let cpython = unsafe { CAllocator::new(python.allocator(Domain::Obj)) };
        Self { raw: python.raw, cpython }
    }
}

// SAFETY: the raw domain keeps the promises of `MemAlloc` on every thread at any time. CPython's
// own allocator keeps them for mem and obj, and accepts blocks of the raw domain.
unsafe impl MemAlloc for Lower {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        status::beat();
        let block = match expects_blocks_of_cpython() {
            true => self.cpython.malloc(size),
            // SAFETY: the function takes any size, and refuses one that is too large.
            false => unsafe { (self.raw.malloc)(size) },
        };
        c_library::note_new(block, size);
        block
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        status::beat();
        let block = match expects_blocks_of_cpython() {
            true => self.cpython.calloc(count, size),
            // SAFETY: the function takes any sizes, and refuses a product that is too large.
            false => unsafe { (self.raw.calloc)(count, size) },
        };
        c_library::note_new(block, count.saturating_mul(size));
        block
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        status::beat();
        let block = match expects_blocks_of_cpython() {
            // SAFETY: `ptr` is null or a live block of either allocator (contract).
            true => unsafe { self.cpython.realloc(ptr, size) },
            // SAFETY: `ptr` is null or a live block of the raw domain (contract of `realloc`).
            false => unsafe { (self.raw.realloc)(ptr, size) },
        };
        match ptr {
            Some(_) => c_library::note_resize(size),
            None => c_library::note_new(block, size),
        }
        block
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        match expects_blocks_of_cpython() {
            // SAFETY: `ptr` is null or a live block of either allocator, not used again (contract).
            true => unsafe { self.cpython.free(ptr) },
            // SAFETY: `ptr` is null or a live block of the raw domain, not used again (contract).
            false => unsafe { (self.raw.free)(ptr) },
        }
        if ptr.is_some() {
            c_library::note_free();
        }
    }
}
