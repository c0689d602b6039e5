//! A cache for several threads.
//!
//! ```text
//!   SharedCache  (a static)                 ThreadCache  (one for each thread)
//!   ┌──────────────────────────┐            ┌───────────────┐
//!   │ depot: SLOTS magazines   │ ◄────────► │ stack · spare │   no atomics on a hit
//!   │ the allocator below      │ ◄────────► └───────────────┘   only if both are empty or full
//!   └──────────────────────────┘
//! ```
//!
//! If one thread takes an object and another thread returns it, the storage ends up in the cache of
//! the second thread. Some programs create all objects on one thread and drop them on another. Full
//! magazines then travel back from the second thread to the first through the depot. The first
//! thread therefore keeps finding free objects, and rarely has to allocate.

use core::{fmt, marker::PhantomData, mem, ptr::NonNull};

use raw_mem::MemAlloc;
use sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{depot::Depot, magazine::Magazine};
use crate::{
    cache::{Cache, show},
    list::{CacheStats, Chain, Cleared, FreeObject, Storage},
};

/// A cache for several threads. Each thread has its own [`ThreadCache`](crate::ThreadCache). All
/// thread caches share the `SharedCache`, which contains a depot for free objects and the allocator
/// below the caches.
///
/// [`thread`](Self::thread) makes a cache for one thread. [`thread_cache!`](crate::thread_cache!)
/// declares a type that gives every thread such a cache.
///
/// # When a thread ends
///
/// When a thread ends, its free objects move to the depot, where other threads find them. If the
/// depot has no empty slot, the storage of these objects returns to the allocator below.
/// Destructors of the thread's other thread-local variables may drop more objects afterwards. The
/// storage of these objects also returns to the allocator below. No storage is leaked, and no
/// storage is retained for a thread that has ended.
///
/// # Bounds
///
/// Each thread retains up to two magazines of free objects, and the depot retains up to one
/// magazine in each slot. With magazines of m objects and t threads, the caches retain at most (2 t
/// + `SLOTS`) · m free objects.
pub struct SharedCache<T, A: MemAlloc, const SLOTS: usize = 16> {
    /// # Invariant
    ///
    /// Every object in a magazine of the depot is storage for a `T` that came from `lower` and
    /// holds no value.
    pub(super) depot: Depot<FreeObject, SLOTS>,
    lower: A,
    pub(super) magazine: u32,
    /// The hits, misses and overflows of threads that have ended.
    past: [AtomicUsize; 3],
    of: PhantomData<fn() -> T>,
}

impl<T, A: MemAlloc, const SLOTS: usize> SharedCache<T, A, SLOTS> {
    pub(super) const STORAGE: Storage = Storage::of_magazine::<T>();

    sync::const_unless_model! {
        /// Makes a cache with an empty depot, for magazines of `magazine` objects. Allocates
        /// nothing.
        ///
        /// # Panics
        ///
        /// Panics if `magazine` is 0.
        pub fn new(magazine: u32, lower: A) -> Self {
            assert!(magazine > 0, "a magazine must have room for at least one object");
            let past = [AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0)];
            Self { depot: Depot::new(), lower, magazine, past, of: PhantomData }
        }
    }

    /// Takes uninitialised storage for a `T` directly from the allocator below, without using any
    /// cache. Returns `None` if the allocation fails.
    #[cold]
    #[inline(never)]
    pub fn take_below(&self) -> Option<NonNull<T>> {
        Self::STORAGE.allocate(&self.lower).map(NonNull::cast)
    }

    /// Returns storage directly to the allocator below the cache, without using any cache.
    ///
    /// # Safety
    ///
    /// - `storage` must have come from this cache or from the cache of one of its threads.
    /// - `storage` must not hold a live value, and must not be used again.
    #[cold]
    #[inline(never)]
    pub unsafe fn put_below(&self, storage: NonNull<T>) {
        // SAFETY: all storage of this cache came from `lower`. The storage is not used again
        // (contract).
        unsafe { self.lower.free(Some(storage.cast())) };
    }

    /// Returns the storage of all objects in `magazine` to the allocator below the cache. Returns
    /// the number of these objects.
    ///
    /// If the allocator below the cache panics, the remaining objects of the magazine move to the
    /// depot. If the depot has no empty slot, these objects are leaked.
    pub(super) fn release(&self, magazine: Magazine<FreeObject>) -> usize {
        let (chain, count) = magazine.open();
        let mut remaining = Remaining { chain, count, depot: &self.depot };
        while let Some(free) = remaining.chain.pop() {
            remaining.count -= 1;
            // SAFETY: the object came from `lower` and holds no value. The invariant of `depot`
            // promises this for every magazine of this cache and of its threads. The object has
            // left its chain, so nobody uses it again.
            unsafe { self.put_below(free.cast()) };
        }
        count as usize
    }

    /// Returns the storage of the objects in the depot to the allocator below the cache. Any thread
    /// may call this function. Objects in the caches of the threads stay there.
    pub fn clear(&self) -> Cleared {
        // Other threads may keep adding magazines. We take at most `SLOTS` magazines, so that the
        // loop ends.
        let magazines = (0..SLOTS).map_while(|_| self.depot.take());
        let objects = magazines.map(|full| self.release(full)).sum();
        Cleared::new(objects, Self::STORAGE.bytes)
    }

    /// Returns the figures of the depot, and the hits, misses and overflows of the threads that
    /// have ended.
    ///
    /// The field `free` counts every magazine in the depot as full. The true number of free objects
    /// may be smaller, because a thread that ends may leave a magazine that is not full.
    pub fn stats(&self) -> CacheStats {
        let [hits, misses, overflows] = self.past.each_ref().map(|sum| sum.load(Relaxed) as u64);
        let (free, bound) = (self.depot.magazines(), SLOTS);
        CacheStats {
            free: free * self.magazine as usize,
            bound: bound * self.magazine as usize,
            object_bytes: Self::STORAGE.bytes,
            hits,
            misses,
            overflows,
        }
    }

    /// Adds the figures of a thread that ends to those of earlier threads.
    pub(super) fn add_past(&self, stats: &CacheStats) {
        let figures = [stats.hits, stats.misses, stats.overflows];
        for (sum, figure) in self.past.iter().zip(figures) {
            sum.fetch_add(figure as usize, Relaxed);
        }
    }
}

/// The objects of a magazine that [`SharedCache::release`] has not returned to the allocator below
/// yet. Dropping this value moves these objects to the depot.
struct Remaining<'c, const SLOTS: usize> {
    chain: Chain<FreeObject>,
    count: u32,
    depot: &'c Depot<FreeObject, SLOTS>,
}

impl<const SLOTS: usize> Drop for Remaining<'_, SLOTS> {
    fn drop(&mut self) {
        let chain = mem::replace(&mut self.chain, Chain::EMPTY);
        if let Some(magazine) = Magazine::seal(chain, self.count) {
            let _ = self.depot.put(magazine);
        }
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> Cache for SharedCache<T, A, SLOTS> {
    fn clear(&self) -> Cleared {
        self.clear()
    }

    fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats)) {
        visit(None, self.stats());
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> fmt::Debug for SharedCache<T, A, SLOTS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("SharedCache", self, f)
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> Drop for SharedCache<T, A, SLOTS> {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}
