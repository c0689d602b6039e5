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
//! If one thread creates objects and another drops them, magazines (batches of free objects) return
//! through the depot.

use core::{fmt, marker::PhantomData, mem, ptr::NonNull};

use raw_mem::MemAlloc;
use sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{depot::Depot, magazine::Magazine};
use crate::{
    cache::{Cache, show},
    list::{CacheStats, Chain, Cleared, FreeObject, Storage},
};

/// A cache for several threads, which exchange free objects through a depot.
///
/// The method [`thread`](Self::thread) creates the [`ThreadCache`](crate::ThreadCache) of one
/// thread. The macro [`thread_cache!`](crate::thread_cache!) gives every thread one.
///
/// # When a thread ends
///
/// The thread's free objects move to the depot. If the depot is full, they are returned to the
/// allocator below.
///
/// Objects that the thread drops after its own cache are freed directly to the allocator below.
///
/// # Bounds
///
/// Each thread retains up to two magazines (batches of objects), and the depot up to `SLOTS` more.
pub struct SharedCache<T, A: MemAlloc, const SLOTS: usize = 16> {
    /// # Invariant
    ///
    /// Every object in the depot is storage for a `T` that came from `lower` and holds no value.
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
        /// Creates an empty cache with magazines of `magazine` objects. Allocates nothing.
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

    /// Takes storage directly from the allocator below, or returns `None` if the allocation fails.
    #[cold]
    #[inline(never)]
    pub fn take_below(&self) -> Option<NonNull<T>> {
        Self::STORAGE.allocate(&self.lower).map(NonNull::cast)
    }

    /// Returns storage directly to the allocator below.
    ///
    /// # Safety
    ///
    /// - `storage` must have come from this cache, or from a [`ThreadCache`](crate::ThreadCache)
    ///   that was created from this cache.
    /// - Any value that was in `storage` must already have been dropped or moved out.
    /// - The caller must not use `storage` after this call.
    #[cold]
    #[inline(never)]
    pub unsafe fn put_below(&self, storage: NonNull<T>) {
        // SAFETY: all storage of this cache came from `lower`, and is not used again (contract).
        unsafe { self.lower.free(Some(storage.cast())) };
    }

    /// Frees the storage of all objects in `magazine`, and returns their number.
    ///
    /// If the allocator below panics, the other objects move to the depot, or leak if it is full.
    pub(super) fn release(&self, magazine: Magazine<FreeObject>) -> usize {
        let (chain, count) = magazine.open();
        let mut remaining = Remaining { chain, count, depot: &self.depot };
        while let Some(free) = remaining.chain.pop() {
            remaining.count -= 1;
            // SAFETY: magazines of this cache and its threads hold storage from `lower` without
            // values (invariant of `depot`). The object has left its chain.
            unsafe { self.put_below(free.cast()) };
        }
        count as usize
    }

    /// Returns the storage of the depot's objects to the allocator below. The objects in thread
    /// caches are not affected.
    pub fn clear(&self) -> Cleared {
        // Other threads may keep adding magazines, so a loop without a bound might not end.
        let magazines = (0..SLOTS).map_while(|_| self.depot.take());
        let objects = magazines.map(|full| self.release(full)).sum();
        Cleared::new(objects, Self::STORAGE.bytes)
    }

    /// Returns the figures of the depot and of all threads that have ended.
    ///
    /// `free` counts every magazine of the depot as full, so it may be too high.
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

    pub(super) fn add_past(&self, stats: &CacheStats) {
        let figures = [stats.hits, stats.misses, stats.overflows];
        for (sum, figure) in self.past.iter().zip(figures) {
            sum.fetch_add(figure as usize, Relaxed);
        }
    }
}

/// Objects of a magazine that are not freed yet. Dropping this value moves them to the depot.
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
