//! Ownership of a heap as a type.

use std::{fmt, marker::PhantomData};

use obmalloc::{BlockPtr, HeapTag, SizeClass, Stats};

use crate::{heaps::Heaps, parts::Parts, thread_heap::ThreadHeap};

/// Exclusive ownership of a heap. Dropping it abandons the heap.
///
/// [`Heaps::open`] returns one, and every thread of a process has one behind
/// [`PerThread`](crate::PerThread). Every operation of an owner borrows it mutably, so the compiler
/// ensures that nobody else is inside the heap. It cannot be copied. It stays on its thread, because
/// the child of a fork regards the heaps of other threads as lost;
/// [`OwnedHeap`](crate::OwnedHeap) is an owner that may move between threads.
///
/// Live blocks stay valid when the heap is abandoned. Another owner adopts the heap later.
///
/// ```
/// # use obmalloc::{Pools16K, SizeClass};
/// # use raw_mem::{Malloc, MmapArenas};
/// # use thread_heap::Heaps;
/// # static HEAPS: Heaps<(MmapArenas, Malloc, Pools16K)> = Heaps::new(MmapArenas::new(), Malloc);
/// let mut heap = HEAPS.open().expect("there is memory");
/// let block = heap.alloc(SizeClass::of(100).unwrap()).expect("there is memory");
/// // SAFETY: the block came from this heap, and is not used again.
/// unsafe { heap.free(block) };
/// drop(heap);
/// ```
///
/// A heap cannot be used after it is closed, and cannot leave its thread:
///
/// ```compile_fail,E0382
/// # use obmalloc::{Pools16K, SizeClass};
/// # use raw_mem::{Malloc, MmapArenas};
/// # use thread_heap::Heaps;
/// # static HEAPS: Heaps<(MmapArenas, Malloc, Pools16K)> = Heaps::new(MmapArenas::new(), Malloc);
/// let mut heap = HEAPS.open().expect("there is memory");
/// drop(heap);
/// heap.alloc(SizeClass::of(100).unwrap());
/// ```
///
/// ```compile_fail,E0277
/// # use obmalloc::{Pools16K, SizeClass};
/// # use raw_mem::{Malloc, MmapArenas};
/// # use thread_heap::Heaps;
/// # static HEAPS: Heaps<(MmapArenas, Malloc, Pools16K)> = Heaps::new(MmapArenas::new(), Malloc);
/// let mut heap = HEAPS.open().expect("there is memory");
/// std::thread::spawn(move || drop(heap));
/// ```
pub struct Owner<P: Parts> {
    /// # Invariant
    ///
    /// `heap` is one of `heaps`, and this value owns it. Another value for the same heap may exist
    /// only if it is never used at the same time and never dropped.
    heap: &'static ThreadHeap<P>,
    heaps: &'static Heaps<P>,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl<P: Parts> Owner<P> {
    /// Creates the owner of `heap`.
    ///
    /// # Safety
    ///
    /// - `heap` must be one of `heaps`, and the caller must own it.
    /// - If the caller keeps the ownership, it must not use the heap as long as this value is used,
    ///   and must not drop this value.
    #[inline]
    pub(crate) unsafe fn new(heap: &'static ThreadHeap<P>, heaps: &'static Heaps<P>) -> Self {
        // INVARIANT: the caller owned the heap (contract of `new`).
        Self { heap, heaps, stays_on_its_thread: PhantomData }
    }

    /// Makes the caller the owner of `heap`, which must be one of `heaps`. Returns `None` if it has
    /// an owner.
    pub(crate) fn adopt(heap: &'static ThreadHeap<P>, heaps: &'static Heaps<P>) -> Option<Self> {
        // SAFETY: the heap had no owner, and the caller has just become its owner.
        heap.inbox.adopt().then(|| unsafe { Self::new(heap, heaps) })
    }

    /// Returns the heap.
    pub(crate) fn heap(&self) -> &'static ThreadHeap<P> {
        self.heap
    }

    /// Returns the tag of the heap, which every block of it carries. No two heaps have the same tag.
    pub fn tag(&self) -> HeapTag {
        self.heap.tag()
    }

    /// Takes a block of `class` from the free list of its first pool. Returns `None` if that list is
    /// empty, which says nothing about memory. [`alloc`](Self::alloc) tries everything else.
    #[inline]
    pub fn alloc_listed(&mut self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        unsafe { self.heap.alloc_listed(class) }
    }

    /// Takes an uninitialised block of `class`. Returns `None` if no arena can be mapped.
    #[inline]
    pub fn alloc(&mut self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        let block = unsafe { self.heap.alloc(class) };
        block.or_else(|| self.alloc_after_flush(class))
    }

    /// Takes a block of `class` when no arena could be mapped. The source may have one after this
    /// heap and the source have released what they retain.
    #[cold]
    fn alloc_after_flush(&mut self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        self.flush();
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        unsafe { self.heap.alloc(class) }
    }

    /// Frees a block of any heap over the same source. A block of another heap waits in the outbox
    /// until it is sent together with others, at the latest by the next [`flush`](Self::flush).
    ///
    /// # Safety
    ///
    /// - `block` must have come from a heap over the same source.
    /// - Nobody may use it any more.
    #[inline]
    pub unsafe fn free(&mut self, block: BlockPtr) {
        // SAFETY: this value owns the heap (invariant). The block came from these heaps (contract).
        if let Some(block) = unsafe { self.heap.free_if_own(block) } {
            // SAFETY: the block belongs to another one of these heaps.
            unsafe { self.free_elsewhere(block) };
        }
    }

    /// Frees a block of another heap. It is never inlined, so that [`free`](Self::free) needs no
    /// stack frame.
    ///
    /// # Safety
    ///
    /// `block` must belong to another heap over the same source.
    #[cold]
    #[inline(never)]
    unsafe fn free_elsewhere(&mut self, block: BlockPtr) {
        // SAFETY: this value owns the heap (invariant). The block belongs to another one (contract).
        unsafe { self.heaps.free_elsewhere(self.heap, block) };
    }

    /// Sends the blocks in the outbox, reclaims what others freed, and unmaps every arena that can
    /// be unmapped, including those that the source retains. Call it before the owner will be idle
    /// for a while.
    ///
    /// It also takes over the inboxes of all other heaps, and purges the pages that contain only
    /// blocks that wait there.
    pub fn flush(&mut self) {
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        unsafe { self.heaps.send_outbox(self.heap) };
        self.heaps.take_over_inboxes(1);
        // SAFETY: as above.
        unsafe { self.heap.enter(|own| own.trim()) };
    }

    /// Counts what is in use in this heap. O(pools).
    pub fn stats(&self) -> Stats {
        // SAFETY: this value owns the heap (invariant), and is not `Sync`.
        unsafe { self.heap.enter(|own| own.stats()) }
    }

    /// Asserts every rule of the single-owner heap. For tests.
    ///
    /// # Panics
    ///
    /// Panics if a rule is broken.
    pub fn check_invariants(&self) {
        // SAFETY: this value owns the heap (invariant), and is not `Sync`.
        unsafe { self.heap.enter(|own| own.check_invariants()) };
    }
}

impl<P: Parts> Drop for Owner<P> {
    fn drop(&mut self) {
        // Loom allows no access while a failed model unwinds.
        if sync::IS_MODEL && std::thread::panicking() {
            return;
        }
        // SAFETY: this value owns the heap (invariant).
        unsafe { self.heaps.send_outbox(self.heap) };
        // SAFETY: as above. The value is gone afterwards, and the outbox is empty.
        unsafe { self.heap.abandon() };
    }
}

impl<P: Parts> fmt::Debug for Owner<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owner").field(&self.heap).finish()
    }
}
