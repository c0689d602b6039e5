//! The four operations that every layer offers and every layer asks for.
//!
//! | operation | 0 bytes | above [`MAX_REQUEST`] | no memory |
//! | --- | --- | --- | --- |
//! | `malloc(n)` | a block of its own | `None` | `None` |
//! | `calloc(n, size)` | a block of its own | `None`, also when `n * size` overflows | `None` |
//! | `realloc(p, n)` | a block, never a free | `None`, `p` untouched | `None`, `p` untouched |
//! | `free(p)` | | | cannot fail |

use core::ptr::NonNull;

/// The most bytes that one request can ask for: `isize::MAX`, as CPython's `PY_SSIZE_T_MAX`.
pub const MAX_REQUEST: usize = isize::MAX as usize;

/// An allocator of blocks: the shape of CPython's `PyMemAllocatorEx`, as a trait.
///
/// A layer implements it over a lower `MemAlloc`, a hook implements it around another one, and
/// the facade turns it into a C vtable. It is object safe.
///
/// # Safety
///
/// An implementer promises that every block it returns
///
/// - has at least the bytes asked for, all of them the caller's until the block is freed or moved;
/// - is aligned to 16 bytes, unless its type says otherwise (CPython's oldest profiles promise 8).
///   It is always aligned to a word;
/// - overlaps no other live block;
/// - stays valid as long as the allocator or a clone of it exists. Moving the allocator does not
///   affect the block.
///
/// An implementer also promises that
///
/// - a zeroed block is zeroed in the bytes asked for;
/// - a moved block keeps its contents up to the smaller of both sizes;
/// - a failed request leaves every live block as it was;
/// - if the type is `Send` or `Sync`, any thread may free a block, not only the one that allocated
///   it.
///
/// Callers that rely on more, such as that an allocator does not call back into them, must say so
/// in a contract of their own: see `obmalloc::GilHeld` and `thread_heap::ThreadHeap`.
pub unsafe trait MemAlloc {
    /// Allocates a block of `size` bytes, uninitialised.
    ///
    /// A request of 0 bytes gives a block of its own, like any other. `None` when there is no
    /// memory or `size` is above [`MAX_REQUEST`].
    fn malloc(&self, size: usize) -> Option<NonNull<u8>>;

    /// Allocates a block of `count * size` bytes, all zero.
    ///
    /// `None` as for [`malloc`](Self::malloc), and when the product overflows.
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>>;

    /// Makes the block at `ptr` hold `size` bytes, moving it if it must.
    ///
    /// With `None` for `ptr` this is `malloc(size)`. It never frees: 0 bytes give a block. On
    /// `None` the old block stands untouched; otherwise the old pointer must not be used again.
    ///
    /// # Safety
    ///
    /// `ptr` is `None` or a live block of this allocator.
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>>;

    /// Frees the block at `ptr`; does nothing with `None`.
    ///
    /// # Safety
    ///
    /// `ptr` is `None` or a live block of this allocator, and is not used again.
    unsafe fn free(&self, ptr: Option<NonNull<u8>>);
}

// SAFETY: every promise is the referent's, and it is asked unchanged.
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
        // SAFETY: the caller's promise is about the referent's blocks.
        unsafe { (**self).realloc(ptr, size) }
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the caller's promise is about the referent's blocks.
        unsafe { (**self).free(ptr) }
    }
}

/// The bytes of `count` items of `size` bytes, where one request may ask for that many.
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

/// The layer that never has memory: below a heap that must live off its arenas alone.
///
/// Every request fails; it owns no block, so nothing can be given to its `realloc` or `free`
/// but `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAlloc;

// SAFETY: it returns no block, so it has nothing to promise.
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

    /// Writes down what it is asked, and answers with the argument as an address.
    #[derive(Default)]
    struct Recording(Cell<Option<(Option<NonNull<u8>>, usize)>>);

    fn place(address: usize) -> Option<NonNull<u8>> {
        NonZero::new(address).map(NonNull::without_provenance)
    }

    // SAFETY: nobody accesses its blocks.
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
