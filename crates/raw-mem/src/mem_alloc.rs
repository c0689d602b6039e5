//! The trait that all block allocators implement. It has four operations: allocate, allocate
//! zeroed, reallocate and free.
//!
//! | operation | 0 bytes | above [`MAX_REQUEST`] | no memory |
//! | --- | --- | --- | --- |
//! | `malloc(n)` | a distinct block | `None` | `None` |
//! | `calloc(n, size)` | a distinct block | `None`, also when `n * size` overflows | `None` |
//! | `realloc(p, n)` | a block; `p` is not freed | `None`, `p` unchanged | `None`, `p` unchanged |
//! | `free(p)` | | | cannot fail |

use core::ptr::NonNull;

/// The largest request, in bytes: `isize::MAX`, like CPython's `PY_SSIZE_T_MAX`.
pub const MAX_REQUEST: usize = isize::MAX as usize;

/// A block allocator with the operations of CPython's `PyMemAllocatorEx`.
///
/// Allocators can be stacked. A layer implements this trait and allocates its memory from another
/// `MemAlloc` below it. A hook implements this trait, observes the calls, and forwards them to
/// another `MemAlloc`. The trait is object safe.
///
/// # Safety
///
/// Every block that an implementer returns must
///
/// - have at least the requested size, and belong exclusively to the caller until the caller frees
///   or reallocates the block;
/// - be aligned to 16 bytes, or to a smaller number of bytes that the type documents and that is a
///   multiple of the word size (CPython's oldest geometries align blocks to 8 bytes);
/// - not overlap any other live block;
/// - stay valid as long as the allocator or a clone of it exists, even if the allocator is moved in
///   memory.
///
/// In addition, an implementer must meet the following requirements:
///
/// - A block from [`calloc`](Self::calloc) must contain zeros in all requested bytes.
/// - A block that [`realloc`](Self::realloc) moves must keep its contents, up to the smaller of the
///   old and the new size.
/// - A request that fails must leave every live block unchanged.
/// - If the type is `Send` or `Sync`, a block may be freed by any thread, not only by the thread
///   that allocated it. The implementer must support this.
///
/// Code that relies on a property of an allocator beyond these requirements must demand this
/// property in its own safety contract. For example, `obmalloc::GilHeld` and `thread_heap::Heaps`
/// demand that the allocator below them does not call back into them.
pub unsafe trait MemAlloc {
    /// Allocates an uninitialised block of `size` bytes.
    ///
    /// Like a request of any other size, a request of 0 bytes returns a block whose address differs
    /// from the addresses of all other live blocks. Returns `None` if memory is exhausted or if
    /// `size` is above [`MAX_REQUEST`].
    fn malloc(&self, size: usize) -> Option<NonNull<u8>>;

    /// Allocates a zeroed block of `count * size` bytes.
    ///
    /// Returns `None` if memory is exhausted, if `count * size` overflows, or if the product is
    /// above [`MAX_REQUEST`].
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>>;

    /// Resizes the block at `ptr` to `size` bytes, either in place or by moving its contents to
    /// another block.
    ///
    /// If `ptr` is `None`, the call is equivalent to `malloc(size)`. A `size` of 0 does not free
    /// the block: as with any other size, the result is a live block. If the result is `None`, the
    /// block at `ptr` is unchanged and still live. Otherwise the returned pointer replaces `ptr`,
    /// which the caller must no longer use.
    ///
    /// # Safety
    ///
    /// `ptr` must be `None` or a live block of this allocator.
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>>;

    /// Frees the block at `ptr`. Does nothing if `ptr` is `None`.
    ///
    /// # Safety
    ///
    /// `ptr` must be `None` or a live block of this allocator. The block must not be used again.
    unsafe fn free(&self, ptr: Option<NonNull<u8>>);
}

// SAFETY: each method forwards its call to the referent, which fulfils the contract of `MemAlloc`.
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
        // SAFETY: the referent allocated the block, because this implementation forwards every call
        // to the referent. The caller guarantees the rest (contract of this function).
        unsafe { (**self).realloc(ptr, size) }
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the referent allocated the block, because this implementation forwards every call
        // to the referent. The caller guarantees the rest (contract of this function).
        unsafe { (**self).free(ptr) }
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
/// `Pymalloc` combines a heap for small requests with another allocator, the layer below, for all
/// other requests. With `NoAlloc` as that layer, all large requests fail, and `Pymalloc` allocates
/// only blocks of the heap.
///
/// `NoAlloc` is not suitable for the metadata of a heap. A heap must allocate a record for each
/// arena before it maps the arena, so a heap whose metadata comes from `NoAlloc` never has an
/// arena. Where no operating system exists, use [`Bump`](crate::Bump) for the metadata.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAlloc;

// SAFETY: the contract is about returned blocks, and `NoAlloc` never returns one.
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

    /// An allocator that records its arguments and returns them as addresses.
    #[derive(Default)]
    struct Recording(Cell<Option<(Option<NonNull<u8>>, usize)>>);

    fn place(address: usize) -> Option<NonNull<u8>> {
        NonZero::new(address).map(NonNull::without_provenance)
    }

    // SAFETY: the returned addresses are no memory, and the tests never access them.
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
