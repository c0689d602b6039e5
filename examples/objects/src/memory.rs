//! The memory of collections that grow.

use std::{alloc::Layout, marker::PhantomData, ptr::NonNull};

use allocator_api2_02::alloc::{AllocError, Allocator};
use raw_mem::MemAlloc;

use crate::Layers;

/// An allocator for the buffers of lists and dicts. It uses the layers of `L` below the caches,
/// because CPython does not cache these buffers either.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory<L>(PhantomData<L>);

fn slice(block: Option<NonNull<u8>>, len: usize) -> Result<NonNull<[u8]>, AllocError> {
    Ok(NonNull::slice_from_raw_parts(block.ok_or(AllocError)?, len))
}

// SAFETY: the blocks come from the thread's allocator below the caches. They are aligned to 16
// bytes, and stay valid because that allocator is never dropped.
unsafe impl<L: Layers> Allocator for Memory<L> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.align() > 16 {
            return Err(AllocError);
        }
        slice(L::store().below.malloc(layout.size()), layout.size())
    }

    unsafe fn deallocate(&self, ptr: NonNull<u8>, _: Layout) {
        // SAFETY: `ptr` came from `allocate` or `grow` (contract of `deallocate`), and so from this
        // allocator.
        unsafe { L::store().below.free(Some(ptr)) }
    }

    unsafe fn grow(
        &self,
        ptr: NonNull<u8>,
        _: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if new.align() > 16 {
            return Err(AllocError);
        }
        // SAFETY: `ptr` came from `allocate` or `grow` (contract of `grow`), and so from this
        // allocator.
        slice(unsafe { L::store().below.realloc(Some(ptr), new.size()) }, new.size())
    }
}
