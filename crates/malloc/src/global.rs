//! The allocator of the Rust code in this library.
//!
//! Rust's default allocator calls `malloc` by name, and the dynamic loader might bind this call to
//! another library. Our code would then depend on the allocator of that library. To avoid this, we
//! set a global allocator of our own.
//!
//! The Rust code of this library allocates memory only during a panic. The heap may be inconsistent
//! at that time, so these allocations do not use the heap. Instead, each of them gets its own
//! memory mapping from the system.

use std::{
    alloc::{GlobalAlloc, Layout},
    ptr,
};

struct Mappings;

#[global_allocator]
static GLOBAL: Mappings = Mappings;

// SAFETY: each block is a separate mapping of at least the size of its layout. Mappings are aligned
// to pages, and we refuse alignments above the smallest page size. No function unwinds.
unsafe impl GlobalAlloc for Mappings {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > 4096 {
            return ptr::null_mut();
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: without MAP_FIXED, the system never replaces an existing mapping.
        let block = unsafe { libc::mmap(ptr::null_mut(), layout.size(), access, flags, -1, 0) };
        if block == libc::MAP_FAILED { ptr::null_mut() } else { block.cast() }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the block is a mapping of this size, and not used again (contract of `dealloc`).
        unsafe { libc::munmap(ptr.cast(), layout.size()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_at_most_the_alignment_of_a_page() {
        let alloc = |align| {
            let layout = Layout::from_size_align(5_000, align).unwrap();
            // SAFETY: the layout is not empty.
            (unsafe { Mappings.alloc(layout) }, layout)
        };
        let (block, layout) = alloc(4096);
        assert!(!block.is_null() && block.addr().is_multiple_of(4096));
        // SAFETY: the block has this size, and is not used after it is freed.
        unsafe {
            block.add(4_999).write(1);
            Mappings.dealloc(block, layout);
        }
        assert!(alloc(8192).0.is_null());
    }
}
