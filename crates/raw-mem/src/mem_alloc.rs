//! The trait of all block allocators.

use core::ptr::NonNull;

/// The largest request, in bytes: `isize::MAX`, like CPython's `PY_SSIZE_T_MAX`.
pub const MAX_REQUEST: usize = isize::MAX as usize;

/// A block allocator with the operations of CPython's `PyMemAllocatorEx`.
///
/// Allocators can be stacked: an allocator can take its memory from a lower one.
///
/// # Safety
///
/// Every block that an implementer returns must meet these requirements:
///
/// - The block has at least the requested size.
/// - The block is aligned to 16 bytes, or to a smaller multiple of the word size that the type
///   documents.
/// - The block does not overlap any other live block.
/// - The block belongs to the caller until the caller frees or reallocates it.
/// - The block stays valid as long as the allocator or one of its clones exists, even if the
///   allocator is moved.
///
/// The methods must meet these requirements:
///
/// - [`calloc`](Self::calloc) must set all requested bytes of a new block to zero.
/// - [`malloc_aligned`](Self::malloc_aligned) must return blocks with the requested alignment.
/// - [`supports_alignment`](Self::supports_alignment) must always return the same value.
/// - [`realloc`](Self::realloc) must preserve the contents of the block, up to the smaller of the
///   old and the new size.
/// - If [`supports_alignment`](Self::supports_alignment) returns true, [`realloc`](Self::realloc)
///   must preserve the alignment that was requested from [`malloc_aligned`](Self::malloc_aligned),
///   however often the block is reallocated.
/// - If a request fails, every live block must stay unchanged.
/// - No method may unwind. An implementer that calls code of the program, such as a callback, must
///   end the process if that code panics, for example with
///   [`without_unwinding`](crate::without_unwinding).
/// - If the allocator is `Send` or `Sync`, every thread must be able to free the allocator's
///   blocks, even if another thread allocated them.
///
/// Code that relies on any other property must require it in its own safety contract.
pub unsafe trait MemAlloc {
    /// Allocates an uninitialised block of `size` bytes.
    ///
    /// A request of 0 bytes returns a distinct block. Returns `None` if memory is exhausted or if
    /// `size` is above [`MAX_REQUEST`].
    fn malloc(&self, size: usize) -> Option<NonNull<u8>>;

    /// Allocates a zeroed block of `count * size` bytes.
    ///
    /// Returns `None` if memory is exhausted or if the product is above [`MAX_REQUEST`].
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>>;

    /// Resizes the block at `ptr` to `size` bytes, or allocates a block if `ptr` is `None`.
    ///
    /// On success, the returned block replaces the block at `ptr`, and the caller must not use
    /// `ptr` again. If the result is `None`, the block at `ptr` is still live and unchanged.
    ///
    /// If `size` is 0, the function still returns a block, which must be freed like any other
    /// block. A block from [`malloc_aligned`](Self::malloc_aligned) keeps its alignment.
    ///
    /// # Safety
    ///
    /// `ptr` must be `None` or a live block of this allocator.
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>>;

    /// Frees the block at `ptr`, or does nothing if `ptr` is `None`.
    ///
    /// # Safety
    ///
    /// `ptr` must be `None` or a live block of this allocator. The block must not be used again.
    unsafe fn free(&self, ptr: Option<NonNull<u8>>);

    /// Returns the number of bytes that can be used at `ptr`, which is at least the requested size.
    ///
    /// The number does not change while the block is live. Returns `None` if the allocator does not
    /// know the number.
    ///
    /// # Safety
    ///
    /// `ptr` must be a live block of this allocator.
    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        let _ = ptr;
        None
    }

    /// Returns true if [`malloc_aligned`](Self::malloc_aligned) supports every alignment.
    ///
    /// The result never changes.
    fn supports_alignment(&self) -> bool {
        false
    }

    /// Allocates an uninitialised block of `size` bytes at a multiple of `align`, which must be a
    /// power of two.
    ///
    /// The aligned block is freed and reallocated like any other block. A reallocation preserves
    /// the alignment of the block.
    ///
    /// Returns `None` if the allocator does not [support](Self::supports_alignment) alignment, or
    /// if [`malloc`](Self::malloc) would return `None` for the same size.
    fn malloc_aligned(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let _ = (size, align);
        None
    }
}

// SAFETY: the referent fulfils the contract and serves every call.
unsafe impl<A: MemAlloc + ?Sized> MemAlloc for &A {
    #[inline]
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        (**self).malloc(size)
    }

    #[inline]
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        (**self).calloc(count, size)
    }

    #[inline]
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the referent allocated the block; the caller upholds the rest.
        unsafe { (**self).realloc(ptr, size) }
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the referent allocated the block; the caller upholds the rest.
        unsafe { (**self).free(ptr) }
    }

    #[inline]
    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the referent allocated the block, which is live (contract).
        unsafe { (**self).usable_size(ptr) }
    }

    fn supports_alignment(&self) -> bool {
        (**self).supports_alignment()
    }

    fn malloc_aligned(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        (**self).malloc_aligned(size, align)
    }
}

/// Returns `count * size`, or `None` if the product overflows or is above [`MAX_REQUEST`].
///
/// ```
/// # use raw_mem::calloc_size;
/// assert_eq!(calloc_size(3, 16), Some(48));
/// assert_eq!(calloc_size(usize::MAX, 2), None);
/// ```
#[inline]
pub const fn calloc_size(count: usize, size: usize) -> Option<usize> {
    match count.checked_mul(size) {
        Some(bytes) if bytes <= MAX_REQUEST => Some(bytes),
        _ => None,
    }
}

/// An allocator that has no memory, so every request fails.
///
/// A heap over `NoAlloc` can serve only small requests, and must keep its metadata elsewhere, for
/// example in [`Bump`](crate::Bump).
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAlloc;

// SAFETY: `NoAlloc` never returns a block.
unsafe impl MemAlloc for NoAlloc {
    fn malloc(&self, _size: usize) -> Option<NonNull<u8>> {
        None
    }

    fn calloc(&self, _count: usize, _size: usize) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn realloc(&self, _ptr: Option<NonNull<u8>>, _size: usize) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn free(&self, _ptr: Option<NonNull<u8>>) {}
}

#[cfg(test)]
mod tests {
    use core::{cell::Cell, num::NonZero};

    use super::*;

    #[test]
    fn a_product_above_the_largest_request_is_refused() {
        assert_eq!(calloc_size(1, MAX_REQUEST), Some(MAX_REQUEST));
        assert_eq!(calloc_size(1, MAX_REQUEST + 1), None);
        assert_eq!(calloc_size(MAX_REQUEST, 2), None);
        assert_eq!(calloc_size(0, usize::MAX), Some(0));
    }

    #[test]
    fn the_trait_can_be_an_object() {
        let layer: &dyn MemAlloc = &NoAlloc;
        assert_eq!(layer.malloc(1), None);
    }

    #[test]
    fn a_layer_that_does_not_support_alignment_refuses_aligned_requests() {
        assert!(!NoAlloc.supports_alignment());
        assert_eq!(NoAlloc.malloc_aligned(1, 1), None);
    }

    /// An allocator that records its arguments and returns them as addresses.
    #[derive(Default)]
    struct Recording(Cell<Option<(Option<NonNull<u8>>, usize)>>);

    fn place(address: usize) -> Option<NonNull<u8>> {
        NonZero::new(address).map(NonNull::without_provenance)
    }

    // SAFETY: the tests never access memory at the returned addresses.
    unsafe impl MemAlloc for Recording {
        fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
            place(size)
        }

        fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
            place(100 * count + size)
        }

        unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
            self.0.set(Some((ptr, size)));
            place(size)
        }

        unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
            self.0.set(Some((ptr, 0)));
        }

        unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
            Some(ptr.addr().get() + 1)
        }

        fn supports_alignment(&self) -> bool {
            true
        }

        fn malloc_aligned(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
            place(100 * align + size)
        }
    }

    #[test]
    fn a_layer_by_reference_is_asked_everything_unchanged() {
        fn ask(layer: impl MemAlloc, recorded: &Recording) {
            assert_eq!((layer.malloc(7), layer.calloc(3, 4)), (place(7), place(304)));
            // SAFETY: the layer accesses no block.
            assert_eq!(unsafe { layer.realloc(place(5), 6) }, place(6));
            assert_eq!(recorded.0.take(), Some((place(5), 6)));
            // SAFETY: as above.
            unsafe { layer.free(place(8)) };
            assert_eq!(recorded.0.take(), Some((place(8), 0)));
            // SAFETY: as above.
            assert_eq!(place(9).and_then(|ptr| unsafe { layer.usable_size(ptr) }), Some(10));
            assert!(layer.supports_alignment());
            assert_eq!(layer.malloc_aligned(2, 4), place(402));
        }

        let layer = Recording::default();
        ask(&layer, &layer);
    }

    #[test]
    fn a_layer_without_memory_refuses_everything() {
        assert_eq!((NoAlloc.malloc(1), NoAlloc.calloc(1, 1)), (None, None));
        // SAFETY: `None` is allowed.
        assert_eq!(unsafe { NoAlloc.realloc(None, 1) }, None);
    }
}
