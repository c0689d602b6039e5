//! The layer below the heap: CPython's raw domain, by its public functions.
//!
//! CPython's own layer 2 goes the same way, so a hook that somebody sets in the raw domain sees
//! the same requests from our heap.

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
};

use raw_mem::MemAlloc;

use crate::abi::RawFunctions;

/// `PyMem_RawMalloc` and its siblings, as an allocator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawDomain(RawFunctions);

impl RawDomain {
    pub(crate) fn new(functions: RawFunctions) -> Self {
        Self(functions)
    }
}

fn to_c(block: Option<NonNull<u8>>) -> *mut c_void {
    block.map_or(ptr::null_mut(), NonNull::as_ptr).cast()
}

// SAFETY: CPython promises the same for its raw domain, to any thread, before the interpreter
// begins and after it has ended.
unsafe impl MemAlloc for RawDomain {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: it takes any size, and refuses those that are too large.
        NonNull::new(unsafe { (self.0.malloc)(size) }.cast())
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: as above, for the product.
        NonNull::new(unsafe { (self.0.calloc)(count, size) }.cast())
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: null, or a live block of this domain, as the caller promises.
        NonNull::new(unsafe { (self.0.realloc)(to_c(ptr), size) }.cast())
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: null, or a live block of this domain that is given up, as the caller promises.
        unsafe { (self.0.free)(to_c(ptr)) }
    }
}
