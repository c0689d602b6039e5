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

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use raw_mem::Malloc;

    use super::*;
    use crate::{Cached, FreeList, KeyedFreeList, Named, Registry};

    /// Malloc, with so many blocks and no more.
    struct Capped {
        left: Cell<usize>,
    }

    impl Capped {
        fn count(&self, given: Option<NonNull<u8>>) -> Option<NonNull<u8>> {
            self.left.set(self.left.get() - usize::from(given.is_some()));
            given
        }
    }

    // SAFETY: memory is malloc's.
    unsafe impl MemAlloc for Capped {
        fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
            if self.left.get() == 0 { None } else { self.count(Malloc.malloc(size)) }
        }

        fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
            if self.left.get() == 0 { None } else { self.count(Malloc.calloc(count, size)) }
        }

        /// Needs a block of its own for the while.
        unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
            // SAFETY: the caller's promise.
            if self.left.get() == 0 { None } else { unsafe { Malloc.realloc(ptr, size) } }
        }

        unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
            self.left.set(self.left.get() + usize::from(ptr.is_some()));
            // SAFETY: the caller's promise.
            unsafe { Malloc.free(ptr) }
        }
    }

    /// Runs `body` over a heap of two blocks, both of which are dead floats.
    fn with_two_dead_floats(body: impl FnOnce(&RetryAfterClear<Capped, &Registry>)) {
        let registry = Registry::new();
        let heap = RetryAfterClear::new(Capped { left: Cell::new(2) }, &registry);
        let floats = FreeList::new(10, &heap);
        drop([0; 2].map(|_| Cached::new_in(1.0, &floats).unwrap()));
        assert_eq!((heap.below().left.get(), floats.stats().free), (0, 2));
        registry.during(&[Named { name: "Float", cache: &floats }], || body(&heap));
    }

    #[test]
    fn what_one_type_hoards_serves_another_when_memory_is_out() {
        with_two_dead_floats(|heap| {
            let lists = FreeList::new(10, heap);
            let list = Cached::new_in([1; 5], &lists).unwrap();
            assert_eq!(list[4], 1);
            assert_eq!(heap.below().left.get(), 1);
        });
    }

    #[test]
    fn one_dead_object_is_worth_asking_again() {
        let registry = Registry::new();
        let heap = RetryAfterClear::new(Capped { left: Cell::new(1) }, &registry);
        let floats = FreeList::new(10, &heap);
        let lists = FreeList::new(10, &heap);
        registry.during(&[Named { name: "Float", cache: &floats }], || {
            let one = Cached::new_in(1.0, &floats).unwrap();
            assert!(Cached::new_in([1; 5], &lists).is_none());
            drop(one);
            assert!(Cached::new_in([1; 5], &lists).is_some());
        });
    }

    #[test]
    fn a_miss_may_empty_the_cache_that_missed() {
        let registry = Registry::new();
        let heap = RetryAfterClear::new(Capped { left: Cell::new(2) }, &registry);
        let tuples = KeyedFreeList::<(), u64, _, 3>::new(10, &heap);
        registry.during(&[Named { name: "Tuple", cache: &tuples }], || {
            drop([1, 2].map(|len| tuples.run((), len, |_| 0).unwrap()));
            assert!(tuples.run((), 3, |_| 0).is_some());
        });
    }

    #[test]
    fn every_kind_of_request_is_tried_again() {
        with_two_dead_floats(|heap| {
            let block = heap.calloc(1, 8);
            assert!(block.is_some());
            // SAFETY: the block is live; it is replaced by what comes back.
            let block = unsafe { heap.realloc(block, 100) };
            assert!(block.is_some());
            // SAFETY: the block is live and not used again.
            unsafe { heap.free(block) };
        });
        with_two_dead_floats(|heap| {
            // SAFETY: `None` is allowed.
            let block = unsafe { heap.realloc(None, 8) };
            assert!(block.is_some());
            // SAFETY: the block is live and not used again.
            unsafe { heap.free(block) };
        });
    }

    #[test]
    fn a_refusal_stands_where_the_caches_have_nothing() {
        let registry = Registry::new();
        let heap = RetryAfterClear::new(Capped { left: Cell::new(0) }, &registry);
        assert_eq!(heap.malloc(8), None);
    }

    #[test]
    fn a_request_that_no_memory_could_serve_empties_nothing() {
        with_two_dead_floats(|heap| {
            assert_eq!((heap.malloc(usize::MAX), heap.calloc(usize::MAX, 2)), (None, None));
            assert_eq!(heap.below().left.get(), 0);
        });
    }
}
