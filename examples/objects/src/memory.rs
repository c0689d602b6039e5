//! Memory for collections that grow.

use std::{alloc::Layout, marker::PhantomData, ptr::NonNull};

use allocator_api2_02::alloc::{AllocError, Allocator};
use raw_mem::MemAlloc;

use crate::Layers;

/// The memory of the layers `L` below the caches, for the buffers of lists and dicts. CPython does
/// not cache these either.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory<L>(PhantomData<L>);

fn slice(block: Option<NonNull<u8>>, len: usize) -> Result<NonNull<[u8]>, AllocError> {
    Ok(NonNull::slice_from_raw_parts(block.ok_or(AllocError)?, len))
}

// SAFETY: blocks are those of the thread's allocator. They are aligned to 16 bytes, and stay valid
// because that allocator is never dropped.
unsafe impl<L: Layers> Allocator for Memory<L> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.align() > 16 {
            return Err(AllocError);
        }
        slice(L::store().below.malloc(layout.size()), layout.size())
    }

    unsafe fn deallocate(&self, ptr: NonNull<u8>, _: Layout) {
        // SAFETY: the block came from `allocate` or `grow` (contract), so from this allocator.
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
        // SAFETY: as for `deallocate`.
        slice(unsafe { L::store().below.realloc(Some(ptr), new.size()) }, new.size())
    }
}
