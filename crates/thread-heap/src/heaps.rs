//! A family of heaps that share one source of arenas.
//!
//! ```text
//!   Heaps ── list ──► ThreadHeap ► ThreadHeap ► ThreadHeap
//!     │                   ▲            │            │
//!     │                 Owner          └─ SharedArenas
//!     └── shared: one source behind a lock, one map of arenas
//! ```

use std::{fmt, ptr::NonNull};

use obmalloc::{BlockPtr, Geometry, Heap, HeapTag, SizeClass};
use sync::{
    Mutex, MutexGuard, UnsafeCell,
    atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::Relaxed},
};

use crate::{
    freed::{
        batch::{Batch, LEAST_BLOCK},
        inbox::Inbox,
        outbox::Outbox,
    },
    heap_list::{HeapList, Listed},
    parts::Parts,
    shared_arenas::SharedArenas,
    shared_source::{SharedSource, SourceGuard},
};

#[cfg(test)]
mod models;
mod open;
pub(crate) mod owner;
pub(crate) mod stats;

/// A family of heaps that share one arena source. Each heap either has an [`Owner`](crate::Owner)
/// or is abandoned, which means that nobody owns it.
///
/// `P` is a tuple of an arena source, a metadata allocator and a geometry. Neither the source nor
/// the allocator may call back into a heap.
///
/// A block may outlive the thread that allocated it, and freeing the block later accesses the heap
/// that it came from. The heaps of a family must therefore never be freed, so a `Heaps` must live
/// forever, in a static or in leaked memory.
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
    /// A thread holds this lock while it takes over inboxes, so that only one thread does so at a
    /// time.
    takeovers: Mutex<()>,
}

impl<P: Parts> Heaps<P> {
    sync::const_unless_model! {
        /// Creates a family that contains no heap yet. The arenas of its heaps come from `source`,
        /// and their metadata is allocated from `lower`.
        pub fn new(source: P::Source, lower: P::Lower) -> Self {
            Self {
                shared: SharedSource::new(source, lower),
                list: HeapList::new(),
                takeovers: Mutex::new(()),
            }
        }
    }

    /// Returns true if `address` lies in an arena of one of these heaps. The function looks up the
    /// address in the arena map and takes no lock.
    #[inline]
    pub fn holds(&self, address: usize) -> bool {
        self.shared.map().contains(address)
    }

    /// Locks the arena source until the guard is dropped. A thread that forks must hold this lock
    /// across the fork. Otherwise another thread may hold the lock while the process forks. That
    /// thread does not exist in the child, so the lock would never be unlocked there.
    pub fn lock_source(&self) -> SourceGuard<'_, P::Source> {
        SourceGuard::new(self.shared.source())
    }

    /// Waits until no takeover of an inbox is running, and prevents further takeovers until the
    /// guard is dropped. During a takeover, a thread takes all blocks out of an inbox and later
    /// pushes them back. A thread that forks must hold this lock across the fork. Otherwise another
    /// thread may be in the middle of a takeover while the process forks, and the child would lose
    /// the blocks that were taken out.
    pub(crate) fn pause_takeovers(&self) -> MutexGuard<'_, ()> {
        sync::lock(&self.takeovers)
    }

    /// Sets the thread number of every heap to 0, except for heaps whose thread number is `thread`.
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

/// The single-owner heap inside a [`ThreadHeap`].
pub(crate) type OwnHeap<P> = Heap<SharedArenas<P>, <P as Parts>::Lower, <P as Parts>::Geometry>;

/// A single-owner heap with an inbox and an outbox. Other threads push blocks of this heap that
/// they free to the inbox. The outbox collects blocks of other heaps that the owner of this heap
/// frees.
#[repr(C)]
pub(crate) struct ThreadHeap<P: Parts> {
    /// # Invariant
    ///
    /// Only the [`Owner`](crate::Owner) of the heap accesses this field.
    pub(crate) own: UnsafeCell<OwnHeap<P>>,
    /// # Invariant
    ///
    /// Only the [`Owner`](crate::Owner) of the heap accesses this field.
    pub(crate) outbox: UnsafeCell<Outbox<Self>>,
    /// Padding between the inbox and the fields that only the owner uses. Other threads write to
    /// the inbox. If the inbox shared a cache line with the owner's fields, each of these writes
    /// would evict the fields from the owner's cache.
    _apart: [u8; 128],
    pub(crate) inbox: Inbox<Batch>,
    /// The family that this heap belongs to.
    heaps: &'static Heaps<P>,
    next: AtomicPtr<Self>,
    /// True if the owner of the heap is a value ([`OwnedHeap`](crate::OwnedHeap)) instead of a
    /// thread. Such a heap still has its owner in a forked child, whichever thread has forked. The
    /// flag is only used in the child, to count the arenas that are still retained there.
    pub(crate) outlives_threads: AtomicBool,
    /// The number of the thread that has opened the heap, or 0 if no thread has it open. No two
    /// live threads have the same number, but a new thread may get the number of a thread that has
    /// ended. Suppose that a thread without a heap finds its own number here. Then the heap was
    /// opened by an earlier thread with the same number, which has ended without closing the heap.
    pub(crate) thread: AtomicUsize,
}

// SAFETY: only the owner of the heap accesses the cells. Everything that an owner did happens
// before the accesses of the next owner (see the table in the documentation of the crate). The
// other fields are atomics or never change.
unsafe impl<P: Parts> Sync for ThreadHeap<P> {}

// SAFETY: the method always returns the field `next`.
unsafe impl<P: Parts> Listed for ThreadHeap<P> {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

impl<P: Parts> ThreadHeap<P> {
    const EVERY_BLOCK_CAN_BE_SENT: () = assert!(
        P::Geometry::SIZES.alignment >= LEAST_BLOCK,
        "a block has room for the head of a batch"
    );

    sync::const_unless_model! {
        /// Creates a heap whose owner is the caller. `tag` can be found from every block of the
        /// heap.
        pub(crate) fn new(
            heaps: &'static Heaps<P>,
            arenas: SharedArenas<P>,
            lower: P::Lower,
            tag: HeapTag,
        ) -> Self {
            let () = Self::EVERY_BLOCK_CAN_BE_SENT;
            Self {
                own: UnsafeCell::new(Heap::with_tag(arenas, lower, tag)),
                outbox: UnsafeCell::new(Outbox::new()),
                _apart: [0; 128],
                inbox: Inbox::new(),
                heaps,
                next: AtomicPtr::new(std::ptr::null_mut()),
                outlives_threads: AtomicBool::new(false),
                thread: AtomicUsize::new(0),
            }
        }
    }

    /// Returns the tag of this heap, which is the address of the heap. It can be found from every
    /// block of the heap.
    pub(crate) fn tag(&self) -> HeapTag {
        HeapTag(std::ptr::from_ref(self).cast())
    }

    /// Returns the heap to which the block at `start` belongs.
    ///
    /// # Safety
    ///
    /// - `start` must lie in a block that is in use and that belongs to a `ThreadHeap` with the
    ///   same type parameter `P`.
    #[inline]
    pub(crate) unsafe fn of_block(start: NonNull<u8>) -> NonNull<Self> {
        // SAFETY: `start` lies in a block in use of this geometry (contract of `of_block`).
        let HeapTag(heap) = unsafe { OwnHeap::<P>::tag_of(start) };
        // SAFETY: the tag of a thread heap's block is the address of that heap.
        unsafe { NonNull::new_unchecked(heap.cast_mut().cast()) }
    }

    /// Returns the size in bytes of the block at `start`.
    ///
    /// # Safety
    ///
    /// - `start` must be the start of a block that is in use and that belongs to a `ThreadHeap`
    ///   with the same type parameter `P`.
    #[inline]
    pub(crate) unsafe fn size_of_block(start: NonNull<u8>) -> usize {
        // SAFETY: `start` is a block in use of this geometry (contract of `size_of_block`).
        let class = unsafe { SizeClass::<P::Geometry>::at(start) };
        class.map_or(LEAST_BLOCK, SizeClass::block_size)
    }

    /// Allocates a block of `class` from the free list of the first pool of that class. Returns
    /// `None` if this free list is empty. This is the fast path of allocation.
    ///
    /// # Safety
    ///
    /// - The caller must own the heap, unless the heap never has an arena.
    #[inline]
    pub(crate) unsafe fn alloc_listed(&self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: either the caller owns the heap, or the heap never has an arena (contract of
        // `alloc_listed`). A heap that never has an arena never changes, so any thread may read it.
        self.own.with(|own| unsafe { &*own }.alloc_listed(class))
    }

    /// Frees `block` if the block belongs to this heap. Otherwise returns the block, which is then
    /// still in use. This is the fast path of freeing.
    ///
    /// # Safety
    ///
    /// - `block` must have come from a `ThreadHeap` with the same type parameter `P`.
    /// - The caller must own this heap, unless the heap never has an arena.
    #[inline]
    pub(crate) unsafe fn free_if_own(&self, block: BlockPtr) -> Option<BlockPtr> {
        // SAFETY: the block is in use (contract of `free_if_own`).
        let heap = unsafe { Self::of_block(block.start()) };
        if !std::ptr::eq(heap.as_ptr(), self) {
            return Some(block);
        }
        // SAFETY: the block belongs to this heap, so this heap has an arena. The caller therefore
        // owns the heap (contract of `free_if_own`).
        self.own.with_mut(|own| unsafe { (*own).free(block) });
        None
    }
}

impl<P: Parts> fmt::Debug for ThreadHeap<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadHeap({:p})", std::ptr::from_ref::<Self>(self))
    }
}
