//! The allocator of the Rust code in this library, which would otherwise call `malloc` by name.
//!
//! The dynamic loader could bind such a call to another library. The code of this library allocates
//! only if it panics. The heap may then be inconsistent, so the memory comes from elsewhere.

use std::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
};

use crate::heap;

struct OwnHeap;

#[global_allocator]
static GLOBAL: OwnHeap = OwnHeap;

// SAFETY: each block of the heap fits its layout and overlaps no other, and no function unwinds.
unsafe impl GlobalAlloc for OwnHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        heap::alloc_apart(layout.size(), layout.align()).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, _: Layout) {
        if let Some(block) = NonNull::new(ptr) {
            // SAFETY: the block is live and not used again (contract of `dealloc`).
            unsafe { heap::free(block) };
        }
    }
}
