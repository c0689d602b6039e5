//! The hook into the heap: before a request fails, caches give up what they hold.

use core::ptr::NonNull;

use raw_mem::{MAX_REQUEST, MemAlloc, calloc_size};

use crate::Cache;

/// An allocator that, where `below` refuses a request, empties the caches `C` and asks again.
///
/// `below` refuses when memory is out, or when whatever caps it says so. `C` is a
/// [`Registry`](crate::Registry) for the caches of one thread, or a
/// [`SharedCache`](crate::SharedCache) for a depot that threads share. Where the caches had
/// nothing to give, the refusal stands.
///
/// Runtimes put it between their caches and their heap, so that storage which one type hoards
/// can serve another:
///
/// ```
/// use object_cache::{FreeList, Registry, RetryAfterClear};
/// use raw_mem::Malloc;
///
/// let registry = Registry::new();
/// let heap = RetryAfterClear::new(Malloc, &registry);
/// let floats = FreeList::<f64, _>::new(100, &heap);
/// # drop(floats);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryAfterClear<A, C> {
    below: A,
    caches: C,
}

impl<A: MemAlloc, C: Cache> RetryAfterClear<A, C> {
    /// `below`, with `caches` to empty where it refuses.
    pub const fn new(below: A, caches: C) -> Self {
        Self { below, caches }
    }

    /// The allocator below.
    pub const fn below(&self) -> &A {
        &self.below
    }

    /// Empties the caches, and asks for `bytes` again if that gave anything. A request that no
    /// memory could serve empties nothing.
    #[cold]
    #[inline(never)]
    fn retry(
        &self,
        bytes: Option<usize>,
        ask: impl FnOnce(&A) -> Option<NonNull<u8>>,
    ) -> Option<NonNull<u8>> {
        let servable = bytes.is_some_and(|bytes| bytes <= MAX_REQUEST);
        if servable && self.caches.clear().objects > 0 { ask(&self.below) } else { None }
    }
}

// SAFETY: memory is that of the allocator below, unchanged; a refused request left every block as
// it was, and so does emptying caches, in whose storage nothing lives.
unsafe impl<A: MemAlloc, C: Cache> MemAlloc for RetryAfterClear<A, C> {
    #[inline]
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.below.malloc(size).or_else(|| self.retry(Some(size), |below| below.malloc(size)))
    }

    #[inline]
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.below
            .calloc(count, size)
            .or_else(|| self.retry(calloc_size(count, size), |below| below.calloc(count, size)))
    }

    #[inline]
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise.
        unsafe { self.below.realloc(ptr, size) }.or_else(|| {
            // SAFETY: the caller's promise; the block still stands, since the request failed.
            self.retry(Some(size), |below| unsafe { below.realloc(ptr, size) })
        })
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the caller's promise.
        unsafe { self.below.free(ptr) }
    }
}
