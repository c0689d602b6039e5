//! All heaps over one source of arenas.
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
        self.shared.map().contains(address)
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

/// The single-owner heap inside.
pub(crate) type OwnHeap<P> = Heap<SharedArenas<P>, <P as Parts>::Lower, <P as Parts>::Geometry>;

/// A single-owner heap with an inbox and an outbox.
#[repr(C)]
pub(crate) struct ThreadHeap<P: Parts> {
    /// # Invariant
    ///
    /// Only the [`Owner`](crate::Owner) accesses it.
    pub(crate) own: UnsafeCell<OwnHeap<P>>,
    /// # Invariant
    ///
    /// Only the [`Owner`](crate::Owner) accesses it.
    pub(crate) outbox: UnsafeCell<Outbox<Self>>,
    /// Separates what other threads write from the cache lines that the owner reads.
    _apart: [u8; 128],
    pub(crate) inbox: Inbox<Batch>,
    /// The heaps that this one belongs to.
    heaps: &'static Heaps<P>,
    next: AtomicPtr<Self>,
    /// True if the owner is not a thread, so that it still exists in a forked child. Only the number
    /// of retained arenas depends on this flag.
    pub(crate) outlives_threads: AtomicBool,
    /// The number of the thread that has the heap open, or 0. No two live threads share a number. A
    /// thread that has not opened the heap but finds its own number here therefore knows that the
    /// owner has ended without closing the heap.
    pub(crate) thread: AtomicUsize,
}

// SAFETY: only the owner accesses the cells. Everything that an owner did happens before the next
// owner's accesses (see the table on the crate's page). The other fields are atomics.
unsafe impl<P: Parts> Sync for ThreadHeap<P> {}

// SAFETY: it is always the same field.
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
        /// Creates a heap that has an owner. Its blocks carry `tag`.
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

    /// Returns the tag that every block of this heap carries.
    pub(crate) fn tag(&self) -> HeapTag {
        HeapTag(std::ptr::from_ref(self).cast())
    }

    /// Returns the heap that the block at `start` belongs to.
    ///
    /// # Safety
    ///
    /// `start` must lie in a block in use of a thread heap of these types.
    #[inline]
    pub(crate) unsafe fn of_block(start: NonNull<u8>) -> NonNull<Self> {
        // SAFETY: `start` lies in a block in use of this geometry (contract of `of_block`).
        let HeapTag(heap) = unsafe { OwnHeap::<P>::tag_of(start) };
        // SAFETY: the tag of such a block is the address of its heap.
        unsafe { NonNull::new_unchecked(heap.cast_mut().cast()) }
    }

    /// Returns the size in bytes of the block at `start`.
    ///
    /// # Safety
    ///
    /// `start` must be a block in use of a thread heap of these types.
    #[inline]
    pub(crate) unsafe fn size_of_block(start: NonNull<u8>) -> usize {
        // SAFETY: `start` is a block in use of this geometry (contract of `size_of_block`).
        let class = unsafe { SizeClass::<P::Geometry>::at(start) };
        class.map_or(LEAST_BLOCK, SizeClass::block_size)
    }

    /// Takes a block of `class` from the free list of its first pool. This is the fast path.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, unless the heap never has an arena.
    #[inline]
    pub(crate) unsafe fn alloc_listed(&self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: the caller owns the heap (contract). Nothing changes in a heap without arenas.
        self.own.with(|own| unsafe { &*own }.alloc_listed(class))
    }

    /// Frees `block` if it belongs to this heap. Otherwise returns it. This is the fast path.
    ///
    /// # Safety
    ///
    /// - `block` must have come from a thread heap of these types.
    /// - The caller must own this heap, unless the heap never has an arena.
    #[inline]
    pub(crate) unsafe fn free_if_own(&self, block: BlockPtr) -> Option<BlockPtr> {
        // SAFETY: the block is in use (contract of `free_if_own`).
        let heap = unsafe { Self::of_block(block.start()) };
        if !std::ptr::eq(heap.as_ptr(), self) {
            return Some(block);
        }
        // SAFETY: the block carries this heap's tag. The heap has an arena, so the caller owns it.
        self.own.with_mut(|own| unsafe { (*own).free(block) });
        None
    }
}

impl<P: Parts> fmt::Debug for ThreadHeap<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadHeap({:p})", std::ptr::from_ref::<Self>(self))
    }
}
