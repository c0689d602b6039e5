//! Makes `ObMalloc` a `MemAlloc`, so that other layers can be placed above it, such as the hooks of
//! `allocator-api`.

use std::ptr::NonNull;

use raw_mem::MemAlloc;
use thread_heap::ThreadMalloc;

use crate::ObMalloc;

/// Blocks are aligned to 16 bytes. They must be freed through this trait, not through
/// `GlobalAlloc`.
///
/// ```
/// use global_alloc::{ObMalloc, raw_mem::MemAlloc};
///
/// let block = ObMalloc.malloc(100);
/// // SAFETY: the block is live and not used again.
/// unsafe { ObMalloc.free(block) };
/// ```
// SAFETY: the heaps of the process, which serve every call, implement `MemAlloc`.
unsafe impl MemAlloc for ObMalloc {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        ThreadMalloc.malloc(size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        ThreadMalloc.calloc(count, size)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the contract is the same.
        unsafe { ThreadMalloc.realloc(ptr, size) }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the contract is the same.
        unsafe { ThreadMalloc.free(ptr) }
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the contract is the same.
        unsafe { MemAlloc::usable_size(&ThreadMalloc, ptr) }
    }
}
