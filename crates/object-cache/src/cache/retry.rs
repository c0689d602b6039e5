use core::ptr::NonNull;

use raw_mem::{MAX_REQUEST, MemAlloc, calloc_size, without_unwinding};

use super::Cache;

/// An allocator that clears `caches` if `below` refuses a request, and then repeats the request.
///
/// A request of more than [`MAX_REQUEST`] bytes never clears the caches, because no allocator can
/// serve it.
///
/// The method [`clear`](Cache::clear) of a cache must not panic. If it does, the process is
/// aborted, because an allocator must not unwind.
///
/// The caches may allocate from the same allocator. In this example, the list `FLOATS` allocates
/// from a `Heap` that clears `FLOATS`:
///
/// ```
/// use object_cache::{Cache, CacheStats, Cleared, FreeList, RetryAfterClear};
/// use raw_mem::Malloc;
///
/// #[derive(Clone, Copy)]
/// struct Caches;
/// type Heap = RetryAfterClear<Malloc, Caches>;
///
/// thread_local! {
///     static FLOATS: FreeList<f64, Heap> = FreeList::new(100, Heap::new(Malloc, Caches));
/// }
/// impl Cache for Caches {
///     fn clear(&self) -> Cleared { FLOATS.with(|floats| floats.clear()) }
///     fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats)) {
///         FLOATS.with(|floats| floats.each_list(visit));
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryAfterClear<A, C> {
    below: A,
    caches: C,
}

impl<A: MemAlloc, C: Cache> RetryAfterClear<A, C> {
    /// Creates an allocator over `below` that clears `caches`.
    pub const fn new(below: A, caches: C) -> Self {
        Self { below, caches }
    }

    /// Clears the caches, and calls `ask` to repeat the request if that freed any storage.
    #[cold]
    #[inline(never)]
    fn retry(
        &self,
        bytes: Option<usize>,
        ask: impl FnOnce(&A) -> Option<NonNull<u8>>,
    ) -> Option<NonNull<u8>> {
        let servable = bytes.is_some_and(|bytes| bytes <= MAX_REQUEST);
        let frees = servable && without_unwinding(|| self.caches.clear()).objects > 0;
        if frees { ask(&self.below) } else { None }
    }
}

// SAFETY: all memory comes from `below`, whose refused requests leave live blocks unchanged.
// Clearing the caches frees only objects without a value.
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
        // SAFETY: the block came from `below` (contract of `realloc`).
        unsafe { self.below.realloc(ptr, size) }.or_else(|| {
            // SAFETY: the block came from `below` (contract), and the failed request left it live.
            self.retry(Some(size), |below| unsafe { below.realloc(ptr, size) })
        })
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the block came from `below` (contract of `free`).
        unsafe { self.below.free(ptr) }
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the block came from `below` (contract).
        unsafe { self.below.usable_size(ptr) }
    }
}

#[cfg(test)]
mod tests;
