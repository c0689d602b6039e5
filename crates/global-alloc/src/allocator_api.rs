//! The trait `Allocator` of allocator-api2, for the two versions of that crate in common use.

use std::{alloc::Layout, ptr::NonNull};

use crate::{
    layouts::{Init, Layouts},
    local_heap::LocalHeap,
    ob_malloc::ObMalloc,
};

/// Implements `$api`'s `Allocator` for `$handle`, which is `$allocator` or a reference to it.
macro_rules! implement {
    ($api:ident, $handle:ty, $allocator:ty) => {
        // SAFETY: all memory fits its layout (contract of `Layouts`), and stays valid as long as a
        // copy of the handle exists, because all copies refer to the same allocator.
        unsafe impl $api::alloc::Allocator for $handle {
            #[inline]
            fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                let start = <$allocator as Layouts>::allocate(self, layout, Init::Uninit);
                bytes(start, layout).ok_or($api::alloc::AllocError)
            }

            #[inline]
            fn allocate_zeroed(
                &self,
                layout: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                let start = <$allocator as Layouts>::allocate(self, layout, Init::Zeroed);
                bytes(start, layout).ok_or($api::alloc::AllocError)
            }

            #[inline]
            unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
                // SAFETY: the memory is live, and is not used again (contract of `deallocate`).
                unsafe { <$allocator as Layouts>::deallocate(self, ptr, layout) };
            }

            unsafe fn grow(
                &self,
                ptr: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                // SAFETY: `ptr` is live memory for `old` (contract of `grow`).
                let start = unsafe { <$allocator as Layouts>::reallocate(self, ptr, old, new) };
                bytes(start, new).ok_or($api::alloc::AllocError)
            }

            unsafe fn grow_zeroed(
                &self,
                ptr: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                // SAFETY: `grow` has the same contract.
                let memory = unsafe { $api::alloc::Allocator::grow(self, ptr, old, new) }?;
                let start = memory.cast::<u8>();
                // SAFETY: the memory has `new.size()` bytes, and the old contents are not written.
                unsafe { start.add(old.size()).write_bytes(0, new.size() - old.size()) };
                Ok(memory)
            }

            unsafe fn shrink(
                &self,
                ptr: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                // SAFETY: `ptr` is live memory for `old` (contract of `shrink`).
                let start = unsafe { <$allocator as Layouts>::reallocate(self, ptr, old, new) };
                bytes(start, new).ok_or($api::alloc::AllocError)
            }
        }
    };
}

#[cfg(feature = "allocator-api2-02")]
implement!(allocator_api2_02, ObMalloc, ObMalloc);
#[cfg(feature = "allocator-api2-02")]
implement!(allocator_api2_02, &LocalHeap, LocalHeap);
#[cfg(feature = "allocator-api2-04")]
implement!(allocator_api2_04, ObMalloc, ObMalloc);
#[cfg(feature = "allocator-api2-04")]
implement!(allocator_api2_04, &LocalHeap, LocalHeap);

#[inline]
fn bytes(start: Option<NonNull<u8>>, layout: Layout) -> Option<NonNull<[u8]>> {
    Some(NonNull::slice_from_raw_parts(start?, layout.size()))
}
