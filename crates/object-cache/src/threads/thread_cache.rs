use core::{fmt, ptr::NonNull};

use raw_mem::MemAlloc;

use super::{shared_cache::SharedCache, thread_list::ThreadList};
use crate::{
    cache::{Cache, StorageSource, show},
    list::{CacheStats, Cleared, FreeObject},
};

/// One thread's cache over a [`SharedCache`].
///
/// The cache retains up to two magazines (batches of free objects), and rarely needs atomics.
///
/// ```
/// use object_cache::{Cached, SharedCache};
/// use raw_mem::Malloc;
///
/// let shared = SharedCache::<f64, Malloc>::new(64, Malloc);
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let floats = shared.thread();
///         drop(Cached::new_in(3.14, &floats));
///         drop(Cached::new_in(2.72, &floats));
///         assert_eq!(floats.stats().hits, 1);
///     });
/// });
/// assert_eq!(shared.clear().objects, 1);   // the thread left it in the depot
/// ```
pub struct ThreadCache<'s, T, A: MemAlloc, const SLOTS: usize = 16> {
    /// # Invariant
    ///
    /// Every object in the list came from `shared`'s allocator, fits a `T`, and holds no value.
    list: ThreadList<FreeObject>,
    shared: &'s SharedCache<T, A, SLOTS>,
}

impl<T, A: MemAlloc, const SLOTS: usize> SharedCache<T, A, SLOTS> {
    /// Creates a cache for the calling thread.
    pub const fn thread(&self) -> ThreadCache<'_, T, A, SLOTS> {
        ThreadCache { list: ThreadList::new(self.magazine), shared: self }
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> ThreadCache<'_, T, A, SLOTS> {
    #[cold]
    #[inline(never)]
    fn refill(&self) -> Option<NonNull<T>> {
        match self.list.refill(&self.shared.depot) {
            Some(free) => Some(free.cast()),
            None => self.shared.take_below(),
        }
    }

    /// # Safety
    ///
    /// As for [`StorageSource::put`].
    #[cold]
    #[inline(never)]
    unsafe fn spill(&self, object: NonNull<FreeObject>) {
        // SAFETY: the caller gives up the object, which holds no value (contract).
        if let Some(magazine) = unsafe { self.list.spill(object, &self.shared.depot) } {
            self.shared.release(magazine);
        }
    }

    /// Returns the storage of this thread's free objects to the allocator below.
    pub fn clear(&self) -> Cleared {
        let magazines = self.list.magazines();
        let objects = magazines.map(|magazine| self.shared.release(magazine)).sum();
        Cleared::new(objects, SharedCache::<T, A, SLOTS>::STORAGE.bytes)
    }

    /// Returns the figures of this thread. An overflow is a `put` that found a full magazine.
    pub fn stats(&self) -> CacheStats {
        self.list.stats(SharedCache::<T, A, SLOTS>::STORAGE.bytes)
    }
}

// SAFETY: the storage fits a `T`. It leaves the list in `take` and returns only in `put`. A
// magazine has one owner at a time. The shared allocator keeps its blocks valid.
unsafe impl<T, A: MemAlloc, const SLOTS: usize> StorageSource<T> for ThreadCache<'_, T, A, SLOTS> {
    #[inline]
    fn take(&self) -> Option<NonNull<T>> {
        match self.list.stack.take() {
            Some(free) => Some(free.cast()),
            None => self.refill(),
        }
    }

    /// Returns storage, which may have come from any cache of the same [`SharedCache`].
    #[inline]
    unsafe fn put(&self, storage: NonNull<T>) {
        // SAFETY: the caller gives up the storage, which holds no value (contract).
        // INVARIANT: the storage came from the shared allocator.
        if let Err(refused) = unsafe { self.list.stack.put(storage.cast()) } {
            // SAFETY: the caller gave up the storage, which the full stack does not own.
            unsafe { self.spill(refused) };
        }
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> Cache for ThreadCache<'_, T, A, SLOTS> {
    fn clear(&self) -> Cleared {
        self.clear()
    }

    fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats)) {
        visit(None, self.stats());
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> fmt::Debug for ThreadCache<'_, T, A, SLOTS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("ThreadCache", self, f)
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> Drop for ThreadCache<'_, T, A, SLOTS> {
    fn drop(&mut self) {
        self.shared.add_past(&self.stats());
        self.list.hand_over(&self.shared.depot, |magazine| _ = self.shared.release(magazine));
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
