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
//! An object may be put by another thread than took it. Its storage is then in the putting thread's
//! cache. If one thread makes objects and another drops them, full magazines travel back through
//! the depot, so the maker keeps hitting.

use core::{fmt, marker::PhantomData, mem, ptr::NonNull};

use raw_mem::MemAlloc;
use sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{depot::Depot, magazine::Magazine};
use crate::{
    cache::{Cache, show},
    list::{CacheStats, Chain, Cleared, FreeObject, Storage},
};

/// A cache for several threads: what their [`ThreadCache`](crate::ThreadCache)s share.
///
/// [`thread`](Self::thread) makes a thread's cache. [`thread_cache!`](crate::thread_cache!)
/// declares one for every thread.
///
/// # When a thread ends
///
/// Its free objects move to the depot, where other threads find them. Objects for which the depot
/// has no slot return to the layer below, and so do objects dropped later by destructors of other
/// thread-locals. Nothing is leaked or retained for a thread that has ended.
///
/// # Bounds
///
/// With magazines of m objects and t threads, at most (2 t + `SLOTS`) · m free objects are
/// retained.
pub struct SharedCache<T, A: MemAlloc, const SLOTS: usize = 16> {
    /// # Invariant
    ///
    /// Every object in a magazine is storage for a `T` that came from `lower` and holds no value.
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

    /// Takes uninitialised storage for a `T` from the layer below, past every cache. Returns `None`
    /// if there is no memory.
    #[cold]
    #[inline(never)]
    pub fn take_below(&self) -> Option<NonNull<T>> {
        Self::STORAGE.allocate(&self.lower).map(NonNull::cast)
    }

    /// Returns storage to the layer below, past every cache.
    ///
    /// # Safety
    ///
    /// - `storage` must have come from this cache or from one of its threads' caches.
    /// - `storage` must not hold a live value, and must not be used again.
    #[cold]
    #[inline(never)]
    pub unsafe fn put_below(&self, storage: NonNull<T>) {
        // SAFETY: all storage of this cache came from `lower`. It is not used again (contract).
        unsafe { self.lower.free(Some(storage.cast())) };
    }

    /// Returns the storage of a magazine to the layer below. Returns the number of its objects.
    ///
    /// If the layer below panics, the remaining objects move to the depot. They are leaked if the
    /// depot is full.
    pub(super) fn release(&self, magazine: Magazine<FreeObject>) -> usize {
        let (chain, count) = magazine.open();
        let mut remaining = Remaining { chain, count, depot: &self.depot };
        while let Some(free) = remaining.chain.pop() {
            remaining.count -= 1;
            // SAFETY: `depot`'s invariant holds for every magazine of this cache and its threads.
            // The object has left its chain.
            unsafe { self.put_below(free.cast()) };
        }
        count as usize
    }

    /// Returns the storage of the objects in the depot to the layer below. Any thread may call
    /// this. Objects in the threads' own caches stay there.
    pub fn clear(&self) -> Cleared {
        // The loop is bounded because other threads may keep adding magazines.
        let magazines = (0..SLOTS).map_while(|_| self.depot.take());
        let objects = magazines.map(|full| self.release(full)).sum();
        Cleared::new(objects, Self::STORAGE.bytes)
    }

    /// Returns the figures of the depot and of the threads that have ended.
    ///
    /// `free` is an upper bound, because a magazine that a thread left at its end may not be full.
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

    /// Adds the figures of a thread that ends.
    pub(super) fn add_past(&self, stats: &CacheStats) {
        let figures = [stats.hits, stats.misses, stats.overflows];
        for (sum, figure) in self.past.iter().zip(figures) {
            sum.fetch_add(figure as usize, Relaxed);
        }
    }
}

/// Objects of a magazine that [`SharedCache::release`] has not returned yet. Dropping this moves
/// them to the depot.
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
