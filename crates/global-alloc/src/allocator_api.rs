//! `Allocator` of allocator-api2 for a heap by reference, in the two versions that are in use.

use std::{alloc::Layout, ptr::NonNull};

use crate::LocalHeap;

/// `Allocator` of the crate `$api`.
macro_rules! implement {
    ($api:ident) => {
        // SAFETY: memory is the heap's, which the reference keeps borrowed; copies of the
        // reference are the same heap.
        unsafe impl $api::alloc::Allocator for &LocalHeap {
            #[inline]
            fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                let start = LocalHeap::allocate(self, layout);
                start.map(|start| bytes(start, layout)).ok_or($api::alloc::AllocError)
            }

            #[inline]
            fn allocate_zeroed(
                &self,
                layout: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                let start = LocalHeap::allocate_zeroed(self, layout);
                start.map(|start| bytes(start, layout)).ok_or($api::alloc::AllocError)
            }

            #[inline]
            unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
                // SAFETY: the caller's promise.
                unsafe { LocalHeap::deallocate(self, ptr, layout) };
            }

            unsafe fn grow(
                &self,
                ptr: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                // SAFETY: the caller's promise.
                let start = unsafe { self.reallocate(ptr, old, new) };
                start.map(|start| bytes(start, new)).ok_or($api::alloc::AllocError)
            }

            unsafe fn grow_zeroed(
                &self,
                ptr: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                // SAFETY: the caller's promise.
                let start = unsafe { self.reallocate(ptr, old, new) };
                let start = start.ok_or($api::alloc::AllocError)?;
                // SAFETY: what was there came along, and what is behind it is ours as well.
                unsafe { start.add(old.size()).write_bytes(0, new.size() - old.size()) };
                Ok(bytes(start, new))
            }

            unsafe fn shrink(
                &self,
                ptr: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $api::alloc::AllocError> {
                // SAFETY: the caller's promise.
                let start = unsafe { self.reallocate(ptr, old, new) };
                start.map(|start| bytes(start, new)).ok_or($api::alloc::AllocError)
            }
        }
    };
}

#[cfg(feature = "allocator-api2-02")]
implement!(allocator_api2_02);
#[cfg(feature = "allocator-api2-04")]
implement!(allocator_api2_04);

#[inline]
fn bytes(start: NonNull<u8>, layout: Layout) -> NonNull<[u8]> {
    NonNull::slice_from_raw_parts(start, layout.size())
}
