//! All heaps over one source of arenas.
//!
//! ```text
//!   Heaps ── list ──► ThreadHeap ► ThreadHeap ► ThreadHeap
//!     │                   ▲            │            │
//!     │                 Owner          └─ SharedArenas
//!     └── shared: one source behind a lock, one map of arenas
//! ```

use std::fmt;

use sync::{Mutex, MutexGuard, atomic::Ordering::Relaxed};

use crate::{
    heap_list::HeapList,
    parts::Parts,
    shared_source::{SharedSource, SourceGuard},
    thread_heap::ThreadHeap,
};

#[cfg(test)]
mod models;
mod open;
pub(crate) mod owner;
pub(crate) mod stats;

/// The heaps over one source of arenas. Each has an [`Owner`](crate::Owner) or is abandoned.
///
/// `P` is a tuple of a source of arenas, an allocator for metadata, and a geometry. The value must
/// live forever, as a static or leaked, because a block may outlive every thread. Neither the source
/// nor the allocator may call back into a heap.
///
/// ```
/// use obmalloc::{BlockPtr, Pools16K, SizeClass};
/// use raw_mem::{Malloc, MmapArenas};
/// use thread_heap::Heaps;
///
/// static HEAPS: Heaps<(MmapArenas, Malloc, Pools16K)> = Heaps::new(MmapArenas::new(), Malloc);
///
/// let mut heap = HEAPS.open().expect("there is memory");
/// let block = heap.alloc(SizeClass::of(100).unwrap()).expect("there is memory");
/// let address = block.into_start().as_ptr().expose_provenance();
/// std::thread::spawn(move || {
///     let start = std::ptr::with_exposed_provenance_mut(address);
///     // SAFETY: the block was given to this thread, which frees it.
///     unsafe { HEAPS.free_remote(BlockPtr::from_start(std::ptr::NonNull::new(start).unwrap())) };
/// })
/// .join()
/// .unwrap();
/// heap.flush();
/// assert_eq!(heap.stats().bytes.in_use, 0);
/// ```
pub struct Heaps<P: Parts> {
    shared: SharedSource<P>,
    list: HeapList<ThreadHeap<P>>,
    /// Locked by the thread that takes over inboxes.
    takeovers: Mutex<()>,
}

impl<P: Parts> Heaps<P> {
    sync::const_unless_model! {
        /// Creates a family without heaps. Its arenas come from `source` and its metadata from
        /// `lower`.
        pub fn new(source: P::Source, lower: P::Lower) -> Self {
            Self {
                shared: SharedSource::new(source, lower),
                list: HeapList::new(),
                takeovers: Mutex::new(()),
            }
        }
    }

    /// Returns true if `address` lies in an arena of one of these heaps. Reads the arena map
    /// without a lock.
    #[inline]
    pub fn holds(&self, address: usize) -> bool {
        self.shared.map().owner(address).is_some()
    }

    /// Locks the source of arenas until the guard is dropped. A fork must happen under this lock.
    /// Otherwise the child may find the source locked forever.
    pub fn lock_source(&self) -> SourceGuard<'_, P::Source> {
        SourceGuard::new(self.shared.source())
    }

    /// Prevents takeovers until the guard is dropped, after waiting for one that runs. A fork must
    /// happen under this lock. Otherwise the child loses what another thread has taken out.
    pub(crate) fn pause_takeovers(&self) -> MutexGuard<'_, ()> {
        sync::lock(&self.takeovers)
    }

    /// Removes the thread number from every heap that has a number other than `thread`.
    pub(crate) fn forget_threads_but(&self, thread: usize) {
        for heap in self.list.iter().filter(|heap| heap.thread.load(Relaxed) != thread) {
            heap.thread.store(0, Relaxed);
        }
    }
}

impl<P: Parts> fmt::Debug for Heaps<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter()).finish()
    }
}
