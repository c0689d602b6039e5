//! A cache for each thread, and what they share.
//!
//! ```text
//!   SharedCache  (a static)                 ThreadCache  (one for each thread)
//!   ┌──────────────────────────┐            ┌──────────────┐
//!   │ depot: SLOTS magazines   │ ◄────────► │ list · spare │   no atomics on a hit
//!   │ the allocator below      │ ◄────────► └──────────────┘   only where both are at a loss
//!   └──────────────────────────┘
//! ```
//!
//! An object may be put by another thread than took it: its storage is in the putting thread's
//! cache then. In a program where one thread makes objects and another ends them, full magazines
//! travel back through the depot, so that the maker goes on hitting.

use core::{marker::PhantomData, ptr::NonNull};

use raw_mem::MemAlloc;
use sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::{
    Cache, Cleared, Stats, ThreadCache,
    depot::Depot,
    link::{Chain, Dead},
    magazine::Magazine,
    storage::Storage,
};

/// What the caches of all threads share: the depot, and the allocator below.
///
/// [`thread`](Self::thread) makes a thread's cache; [`thread_cache!`](crate::thread_cache!) makes
/// one for each thread without a word.
///
/// # When a thread ends
///
/// Its cache is dropped: what it has, be it full magazines or not, goes into the depot, where the
/// next thread finds it; what the depot has no slot for goes to the layer below. Nothing is leaked,
/// and nothing is kept for a thread that is gone. Objects that die after that, in destructors of
/// other thread-local values, go to the layer below at once.
///
/// # Bounds
///
/// With magazines of m objects and t threads, at most (2 t + `SLOTS`) · m dead objects are kept.
pub struct SharedCache<T, A: MemAlloc, const SLOTS: usize = 16> {
    /// # Invariant
    ///
    /// What is in a magazine came from `lower` as storage for a `T`, and holds no value.
    pub(crate) depot: Depot<Dead, SLOTS>,
    lower: A,
    pub(crate) magazine: u32,
    pub(crate) past: Past,
    of: PhantomData<fn() -> T>,
}

/// The figures of threads that have ended.
pub(crate) struct Past {
    hits: AtomicUsize,
    misses: AtomicUsize,
    overflows: AtomicUsize,
}

impl Past {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            hits: AtomicUsize::new(0),
            misses: AtomicUsize::new(0),
            overflows: AtomicUsize::new(0),
        }
    }

    pub(crate) fn add(&self, stats: &Stats) {
        self.hits.fetch_add(stats.hits as usize, Relaxed);
        self.misses.fetch_add(stats.misses as usize, Relaxed);
        self.overflows.fetch_add(stats.overflows as usize, Relaxed);
    }

    fn stats(&self) -> Stats {
        Stats {
            hits: self.hits.load(Relaxed) as u64,
            misses: self.misses.load(Relaxed) as u64,
            overflows: self.overflows.load(Relaxed) as u64,
            ..Stats::default()
        }
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> SharedCache<T, A, SLOTS> {
    pub(crate) const STORAGE: Storage = Storage::of_lead::<T>();

    /// No threads and an empty depot, for magazines of `magazine` objects. Asks for nothing yet.
    ///
    /// # Panics
    ///
    /// Panics when `magazine` is 0.
    #[cfg(not(loom))]
    pub const fn new(magazine: u32, lower: A) -> Self {
        assert!(magazine > 0, "a magazine holds at least one object");
        Self { depot: Depot::new(), lower, magazine, past: Past::new(), of: PhantomData }
    }

    /// A cache for the running thread.
    pub const fn thread(&self) -> ThreadCache<'_, T, A, SLOTS> {
        ThreadCache::new(self)
    }

    /// Takes storage for a `T` from the layer below, past every cache.
    #[cold]
    #[inline(never)]
    pub fn take_below(&self) -> Option<NonNull<T>> {
        Self::STORAGE.ask(&self.lower).map(NonNull::cast)
    }

    /// Gives storage to the layer below, past every cache.
    ///
    /// # Safety
    ///
    /// `storage` came from this cache or one of its threads', holds no live value, and is not
    /// used again.
    #[cold]
    #[inline(never)]
    pub unsafe fn put_below(&self, storage: NonNull<T>) {
        // SAFETY: storage of this cache once came from `lower`.
        unsafe { self.lower.free(Some(storage.cast())) };
    }

    /// Gives a magazine down, and says how many objects it had.
    ///
    /// If the layer below panics, the rest of the magazine goes into the depot. It is leaked if the
    /// depot is full.
    pub(crate) fn give_down(&self, magazine: Magazine<Dead>) -> usize {
        let (chain, count) = magazine.open();
        let mut rest = Rest { chain, count, depot: &self.depot };
        while let Some(dead) = rest.chain.pop() {
            rest.count -= 1;
            // SAFETY: `depot`'s invariant holds of every magazine of ours, and the object has left
            // its chain.
            unsafe { self.put_below(dead.cast()) };
        }
        count as usize
    }

    /// Gives what is in the depot to the layer below, and says how much it was. Any thread may
    /// call this; what other threads have in their own caches stays there.
    pub fn clear(&self) -> Cleared {
        // At most `SLOTS` magazines, so that the loop ends even if other threads keep adding some.
        let magazines = (0..SLOTS).map_while(|_| self.depot.take());
        let objects = magazines.map(|full| self.give_down(full)).sum();
        Cleared::of(objects, Self::STORAGE.bytes)
    }

    /// How many magazines are in the depot, as far as this thread can tell.
    pub fn magazines(&self) -> usize {
        self.depot.magazines()
    }

    /// The figures of the threads that have ended, and of the depot: what is free there at most,
    /// since a magazine that a thread left at its end need not be full. No high water is kept.
    pub fn stats(&self) -> Stats {
        Stats {
            free: self.magazines() * self.magazine as usize,
            bound: SLOTS * self.magazine as usize,
            object_bytes: Self::STORAGE.bytes,
            ..self.past.stats()
        }
    }
}

/// Objects of a magazine that is being given down. Dropping it puts them into the depot.
struct Rest<'c, const SLOTS: usize> {
    chain: Chain<Dead>,
    count: u32,
    depot: &'c Depot<Dead, SLOTS>,
}

impl<const SLOTS: usize> Drop for Rest<'_, SLOTS> {
    fn drop(&mut self) {
        let chain = core::mem::replace(&mut self.chain, Chain::EMPTY);
        if let Some(magazine) = Magazine::seal(chain, self.count) {
            let _ = self.depot.put(magazine);
        }
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> Cache for SharedCache<T, A, SLOTS> {
    fn clear(&self) -> Cleared {
        self.clear()
    }

    fn each_list(&self, see: &mut dyn FnMut(Option<usize>, Stats)) {
        see(None, self.stats());
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> Drop for SharedCache<T, A, SLOTS> {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}
