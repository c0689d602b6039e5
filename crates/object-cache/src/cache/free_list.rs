use core::{fmt, marker::PhantomData, ptr::NonNull};

use raw_mem::MemAlloc;

use super::{Cache, StorageSource, show};
use crate::list::{BoundedStack, CacheStats, Cleared, FreeObject, Storage};

/// A cache for objects of type `T` that retains the storage of up to `bound` free objects.
///
/// The method [`put`](StorageSource::put) adds the storage of a dropped object to the cache, or
/// frees it to `A` if the cache is full. The method [`take`](StorageSource::take) returns the
/// storage that was put back last. If the cache is empty, `take` allocates new storage from `A`.
///
/// Only one thread at a time can use a free list. Several threads can use
/// a [`SharedCache`](crate::SharedCache) or [`thread_cache!`](crate::thread_cache!) instead.
///
/// CPython: the free lists of `float`, `list`, `dict` and other types.
///
/// ```
/// use object_cache::{Cached, FreeList};
/// use raw_mem::Malloc;
///
/// let floats = FreeList::new(100, Malloc);
/// let pi = Cached::new_in(3.14_f64, &floats).unwrap();
/// drop(pi);
/// let e = Cached::new_in(2.72, &floats).unwrap();
/// assert_eq!((*e, floats.stats().hits), (2.72, 1));
/// ```
pub struct FreeList<T, A: MemAlloc> {
    /// # Invariant
    ///
    /// Every object in the stack is storage for a `T` that came from `lower` and holds no value.
    stack: BoundedStack<FreeObject>,
    lower: A,
    of: PhantomData<fn() -> T>,
}

// SAFETY: the stack owns its storage, which another thread may free because `A` is `Send`.
unsafe impl<T, A: MemAlloc + Send> Send for FreeList<T, A> {}

impl<T, A: MemAlloc> FreeList<T, A> {
    const STORAGE: Storage = Storage::of::<T>();

    /// Creates an empty cache that retains at most `bound` free objects. Allocates nothing.
    ///
    /// A `T` that is aligned to more than 16 bytes is rejected at compile time.
    ///
    /// # Panics
    ///
    /// Panics if `bound` is 0.
    pub const fn new(bound: u32, lower: A) -> Self {
        Self { stack: BoundedStack::new(bound), lower, of: PhantomData }
    }

    #[cold]
    #[inline(never)]
    fn take_below(&self) -> Option<NonNull<T>> {
        self.stack.count_miss();
        Self::STORAGE.allocate(&self.lower).map(NonNull::cast)
    }

    /// # Safety
    ///
    /// - `lower` must have allocated `free`, which must not hold a value.
    /// - The caller must not use `free` afterwards.
    #[cold]
    #[inline(never)]
    unsafe fn put_below(&self, free: NonNull<FreeObject>) {
        // SAFETY: `free` came from `lower` and is not used again (contract).
        unsafe { self.lower.free(Some(free.cast())) }
    }

    /// Returns the storage of all free objects to the allocator below the cache.
    ///
    /// If that allocator panics, the storage that it has not received yet stays in the cache.
    pub fn clear(&self) -> Cleared {
        // SAFETY: the object left the stack, so it came from `lower` without a value (invariant).
        let count = self.stack.clear(|free| unsafe { self.put_below(free) });
        Cleared::new(count as usize, Self::STORAGE.bytes)
    }

    /// Returns the figures of the cache.
    pub fn stats(&self) -> CacheStats {
        self.stack.stats(Self::STORAGE.bytes)
    }
}

// SAFETY: `STORAGE` fits a `T`. Storage leaves the stack in `take` and returns only in `put`, so
// it has one owner. It stays valid if the cache moves. `FreeList` is not `Clone`.
unsafe impl<T, A: MemAlloc> StorageSource<T> for FreeList<T, A> {
    #[inline]
    fn take(&self) -> Option<NonNull<T>> {
        match self.stack.take() {
            Some(free) => Some(free.cast()),
            None => self.take_below(),
        }
    }

    #[inline]
    unsafe fn put(&self, storage: NonNull<T>) {
        // SAFETY: the caller gives up the storage, which holds no value (contract).
        // INVARIANT: the storage came from `take`, so it came from `lower`.
        if let Err(refused) = unsafe { self.stack.put(storage.cast()) } {
            // SAFETY: the full stack does not own `refused`, which came from `lower`.
            unsafe { self.put_below(refused) };
        }
    }
}

impl<T, A: MemAlloc> Cache for FreeList<T, A> {
    fn clear(&self) -> Cleared {
        self.clear()
    }

    fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats)) {
        visit(None, self.stats());
    }
}

impl<T, A: MemAlloc> fmt::Debug for FreeList<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("FreeList", self, f)
    }
}

impl<T, A: MemAlloc> Drop for FreeList<T, A> {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use raw_mem::Malloc;

    use super::*;
    use crate::testing::{Hooked, Plan, below, failing, on_next_free, panic_of};

    type Word = u64;

    fn take<A: MemAlloc>(cache: &FreeList<Word, A>, count: usize) -> Vec<NonNull<Word>> {
        core::iter::from_fn(|| cache.take()).take(count).collect()
    }

    fn put<A: MemAlloc>(cache: &FreeList<Word, A>, objects: &[NonNull<Word>]) {
        for &object in objects {
            // SAFETY: the objects of these tests come from the cache and hold no values.
            unsafe { cache.put(object) };
        }
    }

    #[test]
    fn the_object_put_last_is_taken_first() {
        let cache = FreeList::new(10, Malloc);
        let objects = take(&cache, 4);
        put(&cache, &objects);
        assert!(take(&cache, 4).iter().eq(objects.iter().rev()));
        put(&cache, &objects);
    }

    #[test]
    fn a_clear_that_panics_retains_the_remaining_objects() {
        let (hooked, live) = Hooked::new();
        let cache = FreeList::new(10, hooked);
        put(&cache, &take(&cache, 5));
        on_next_free(|| panic!("a free that panics"));
        assert_eq!(panic_of(|| _ = cache.clear()), "a free that panics");
        assert_eq!((live.count(), cache.stats().free), (4, 4));
        assert_eq!((cache.clear().objects, live.count()), (4, 0));
    }

    #[test]
    fn nothing_is_allocated_before_the_first_take() {
        let (below, faults) = failing(Plan::Never);
        let cache = FreeList::<Word, _>::new(10, below);
        assert_eq!(faults.tally().calls, 0);
        put(&cache, &take(&cache, 1));
        put(&cache, &take(&cache, 1));
        assert_eq!(faults.tally().calls, 1);
    }

    #[test]
    fn objects_beyond_the_bound_return_to_the_layer_below() {
        let (below, live) = below();
        let cache = FreeList::new(3, below);
        let objects = take(&cache, 5);
        put(&cache, &objects);
        assert_eq!((live.count(), cache.stats().free, cache.stats().overflows), (3, 3, 2));
        assert!(objects[..3].iter().all(|object| live.contains(object.cast())));
    }

    #[test]
    fn clearing_returns_all_storage_and_reports_how_much() {
        let (below, live) = below();
        let cache = FreeList::new(10, below);
        let objects = take(&cache, 5);
        put(&cache, &objects[1..]);
        assert_eq!(cache.clear(), Cleared { objects: 4, bytes: 32 });
        assert_eq!((live.count(), cache.clear().objects), (1, 0));
        put(&cache, &objects[..1]);
    }

    #[test]
    fn dropping_the_cache_returns_all_storage() {
        let (below, live) = below();
        let cache = FreeList::new(10, below);
        put(&cache, &take(&cache, 5));
        drop(cache);
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn the_figures_count_hits_and_misses() {
        let cache = FreeList::new(10, Malloc);
        put(&cache, &take(&cache, 3));
        put(&cache, &take(&cache, 2));
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.free), (2, 3, 3));
        assert_eq!((stats.bound, stats.object_bytes), (10, 8));
    }

    #[test]
    fn free_objects_still_serve_when_memory_is_exhausted() {
        let (below, _) = failing(Plan::From(3));
        let cache = FreeList::new(10, below);
        let objects = take(&cache, 9);
        assert_eq!(objects.len(), 2);
        put(&cache, &objects);
        assert_eq!(take(&cache, 9).len(), 2);
        put(&cache, &objects);
    }

    #[test]
    fn objects_of_no_size_have_storage_of_their_own() {
        let cache = FreeList::<(), _>::new(10, Malloc);
        let (one, other) = (cache.take().unwrap(), cache.take().unwrap());
        assert_ne!(one, other);
        // SAFETY: both came from the cache.
        [one, other].iter().for_each(|&object| unsafe { cache.put(object) });
    }
}
