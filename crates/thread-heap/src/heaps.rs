//! Heaps that share one source of arenas. An arena is a large range of mapped memory.

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
    heap_stack::{HeapStack, Stackable, Stacked},
    large_counts::LargeCounts,
    parts::Parts,
    shared_arenas::SharedArenas,
    shared_source::{SharedSource, SourceGuard},
};

pub(crate) mod figures;
mod large;
mod left_open;
mod limits;
#[cfg(test)]
mod models;
mod open;
pub(crate) mod owner;
pub(crate) mod render;
pub(crate) mod stats;
mod walk;

pub(crate) use self::left_open::LeftOpen;

/// A family of heaps that share one arena source.
///
/// When an [`Owner`](crate::Owner) is dropped, its heap is abandoned until a new owner adopts it.
/// The heap's blocks can still be in use, and any thread may free them at any time. To free such a
/// block, the thread accesses the `Heaps` value of the family. This value must therefore live
/// forever, for example as a `static` or a leaked value.
///
/// `P` is a tuple of three types: an arena source, a metadata allocator, and a geometry, which
/// defines the sizes of arenas, pools and blocks. The arena source and the metadata allocator must
/// not call back into a heap.
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
///     // SAFETY: the block was passed to this thread, which frees it once.
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
    /// The abandoned heaps that a thread may adopt. Heaps are removed under the source's lock.
    abandoned: HeapStack<ThreadHeap<P>>,
    /// The abandoned heaps whose blocks are [shifted](ThreadHeap::is_shifted).
    abandoned_shifted: HeapStack<ThreadHeap<P>>,
    left_open: LeftOpen,
    /// Locked by a thread that empties the inboxes of other heaps in order to purge pages.
    takeovers: Mutex<()>,
}

impl<P: Parts> Heaps<P> {
    sync::const_unless_model! {
        /// Creates an empty family. Arenas come from `source`, and metadata comes from `lower`.
        pub fn new(source: P::Source, lower: P::Lower) -> Self {
            Self {
                shared: SharedSource::new(source, lower),
                list: HeapList::new(),
                abandoned: HeapStack::new(),
                abandoned_shifted: HeapStack::new(),
                left_open: LeftOpen::new(),
                takeovers: Mutex::new(()),
            }
        }
    }

    /// Returns true if `address` lies in an arena of one of these heaps. Takes no lock.
    #[inline]
    pub fn holds(&self, address: usize) -> bool {
        self.shared.map().contains(address)
    }

    /// Locks the arena source until the guard is dropped.
    ///
    /// A program must hold the lock of the arena source across a `fork`. If another thread held the
    /// lock during the fork, the child's copy of the lock would stay locked forever.
    ///
    /// While a thread holds the lock of the arena source, it must not use or [open] a heap. An
    /// operation on the heap could need the same lock, and the thread would wait for itself
    /// forever.
    ///
    /// [open]: Self::open
    pub fn lock_source(&self) -> SourceGuard<'_, P::Source> {
        SourceGuard::new(self.shared.lock())
    }

    /// Prevents takeovers of inboxes until the guard is dropped.
    ///
    /// In a takeover, a thread takes all freed blocks out of the inbox of a heap, purges the pages
    /// that these blocks cover, and puts the blocks back. If a second thread called `fork` in the
    /// meantime, the child would lose these blocks, because the thread that took them does not
    /// exist in the child. Every takeover must lock the mutex that the returned guard keeps locked.
    /// A thread that forks therefore holds the guard across the `fork`, so that no takeover is
    /// running at that moment.
    pub(crate) fn pause_takeovers(&self) -> MutexGuard<'_, ()> {
        sync::lock(&self.takeovers)
    }

    /// Resets the thread number of every heap that does not belong to the thread `thread`.
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

pub(crate) type OwnHeap<P> = Heap<SharedArenas<P>, <P as Parts>::Lower, <P as Parts>::Geometry>;

/// A single-owner heap with an inbox and an outbox.
///
/// The inbox contains blocks of this heap that other threads have freed. The outbox contains blocks
/// of other heaps that the owner of this heap has freed.
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
    /// The number and the total size of the large blocks that the heap retains. Only the heap's
    /// owner updates them, at the end of each operation that can change them.
    retained_large: LargeCounts,
    /// Separates the inbox, to which other threads write, from the cache lines of the owner's
    /// fields.
    _apart: [u8; 128],
    pub(crate) inbox: Inbox<Batch>,
    heaps: &'static Heaps<P>,
    next: AtomicPtr<Self>,
    stacked: Stacked<Self>,
    /// True if an `OwnedHeap` owns the heap, which then keeps its owner in a forked child.
    pub(crate) outlives_threads: AtomicBool,
    /// True if blocks may lack the alignment that blocks of a thread's heap have.
    ///
    /// No thread keeps such a heap, so the value never becomes false again.
    pub(crate) is_shifted: AtomicBool,
    /// The number of the thread that has opened the heap, or 0 if none is recorded.
    ///
    /// A new thread may have the same number as a thread that ended without closing its heap.
    pub(crate) thread: AtomicUsize,
    /// The value of [`Locked::returned`](crate::shared_source::Locked::returned) before the last
    /// flush that did not help a failed request, or `usize::MAX` if there was none.
    ///
    /// While `returned` keeps this value, another flush is unlikely to help. Only the owner uses
    /// this field.
    pub(crate) vain_flush: AtomicUsize,
}

// SAFETY: only the owner accesses the cells, and each owner's accesses happen before those of the
// next. The other fields are atomics or never change.
unsafe impl<P: Parts> Sync for ThreadHeap<P> {}

// SAFETY: the method always returns the field `next`.
unsafe impl<P: Parts> Listed for ThreadHeap<P> {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

impl<P: Parts> Stackable for ThreadHeap<P> {
    fn stacked(&self) -> &Stacked<Self> {
        &self.stacked
    }
}

impl<P: Parts> ThreadHeap<P> {
    const EVERY_BLOCK_CAN_BE_SENT: () = assert!(
        P::Geometry::SIZES.alignment >= LEAST_BLOCK,
        "a block has room for the head of a batch"
    );

    sync::const_unless_model! {
        /// Creates a heap that the caller owns. Each of its blocks leads to the heap's `tag`.
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
                retained_large: LargeCounts::new(),
                _apart: [0; 128],
                inbox: Inbox::new(),
                heaps,
                next: AtomicPtr::new(std::ptr::null_mut()),
                stacked: Stacked::new(),
                outlives_threads: AtomicBool::new(false),
                is_shifted: AtomicBool::new(false),
                thread: AtomicUsize::new(0),
                vain_flush: AtomicUsize::new(usize::MAX),
            }
        }
    }

    /// Returns the heap's tag, which is the heap's address. Each block of the heap leads to the
    /// tag.
    #[inline]
    pub(crate) fn tag(&self) -> HeapTag {
        HeapTag(std::ptr::from_ref(self).cast())
    }

    /// Returns the heap to which the block at `start` belongs.
    ///
    /// # Safety
    ///
    /// - `start` must lie in a block that is in use, in a `ThreadHeap` with the same `P`.
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
    /// - `start` must be the start of a block that is in use, in a `ThreadHeap` with the same `P`.
    #[inline]
    pub(crate) unsafe fn size_of_block(start: NonNull<u8>) -> usize {
        // SAFETY: `start` is a block in use of this geometry (contract of `size_of_block`).
        let class = unsafe { SizeClass::<P::Geometry>::at(start) };
        class.map_or(LEAST_BLOCK, SizeClass::block_size)
    }

    /// Returns true if the block at `start` is the only block of its pool.
    ///
    /// # Safety
    ///
    /// - `start` must be the start of a block that is in use, in a `ThreadHeap` with the same `P`.
    #[inline]
    pub(crate) unsafe fn is_span(start: NonNull<u8>) -> bool {
        // A block that is the only one of its pool is called a span. The size class in the pool's
        // header says whether the block is a span, but reading this header is slow if another
        // thread is writing to it. We therefore check the block's address first, because a span
        // always begins at a multiple of the pool size. Few other blocks do, so for most blocks we
        // need not read the header at all.
        let begins_unit = start.addr().get().is_multiple_of(P::Geometry::SIZES.pool_size);
        // SAFETY: `start` is a block in use of this geometry (contract of `is_span`).
        let class = || unsafe { SizeClass::<P::Geometry>::at(start) };
        begins_unit && class().is_some_and(SizeClass::is_span)
    }

    /// Allocates from the free list of the class's first pool. Returns `None` if the list is empty.
    ///
    /// # Safety
    ///
    /// - The caller must own the heap, unless the heap never has an arena.
    #[inline]
    pub(crate) unsafe fn alloc_listed(&self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: the caller owns the heap, or the heap never has an arena and so never changes.
        self.own.with(|own| unsafe { &*own }.alloc_listed(class))
    }

    /// Allocates a block for `size` bytes from a free list. See [`Heap::alloc_linked`].
    ///
    /// [`Heap::alloc_linked`]: obmalloc::Heap::alloc_linked
    ///
    /// # Safety
    ///
    /// - The caller must own the heap, unless the heap never has an arena.
    #[inline]
    pub(crate) unsafe fn alloc_linked(&self, size: usize) -> Option<BlockPtr> {
        // SAFETY: the caller owns the heap, or the heap never has an arena and so never changes.
        self.own.with(|own| unsafe { &*own }.alloc_linked(size))
    }

    /// Allocates an unlinked block for `size` bytes from a free list.
    /// See [`Heap::alloc_unlinked`].
    ///
    /// [`Heap::alloc_unlinked`]: obmalloc::Heap::alloc_unlinked
    ///
    /// # Safety
    ///
    /// - The caller must own the heap, unless the heap never has an arena.
    #[inline]
    pub(crate) unsafe fn alloc_unlinked(&self, size: usize) -> Option<BlockPtr> {
        // SAFETY: the caller owns the heap, or the heap never has an arena and so never changes.
        self.own.with(|own| unsafe { &*own }.alloc_unlinked(size))
    }

    /// Frees `block` if it belongs to this heap. Otherwise returns `block`, which is then still in
    /// use.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block that was allocated by this heap or by another heap with the
    ///   same parameter `P`.
    /// - The caller must own this heap, unless this heap is `NO_HEAP`, the placeholder that all
    ///   threads without a heap share. `NO_HEAP` needs no owner, because it never has an arena, so
    ///   no block belongs to it. If this heap is `NO_HEAP`, the function therefore frees nothing:
    ///   it returns `block` and does not access the contents of `NO_HEAP`.
    #[inline]
    pub(crate) unsafe fn free_if_own(&self, block: BlockPtr) -> Option<BlockPtr> {
        let free = |own: &mut OwnHeap<P>, block| {
            // SAFETY: `enter_if_own` passes only blocks of this heap.
            unsafe { own.free_then(block, |own| self.publish_retained(own)) }
        };
        // SAFETY: the contract is the same.
        unsafe { self.enter_if_own(block, free) }
    }

    /// Does the same as [`free_if_own`](Self::free_if_own) for a linked block or a span, but is
    /// faster.
    ///
    /// # Safety
    ///
    /// - The requirements of [`free_if_own`](Self::free_if_own) must be met.
    /// - The class of `block` must be [linked](SizeClass::is_linked) or
    ///   a [span](SizeClass::is_span).
    #[inline]
    pub(crate) unsafe fn free_linked_or_span_if_own(&self, block: BlockPtr) -> Option<BlockPtr> {
        let free = |own: &mut OwnHeap<P>, block| {
            // SAFETY: `enter_if_own` passes only blocks of this heap. The block is linked or a span
            // (contract).
            unsafe { own.free_linked_or_span_then(block, |own| self.publish_retained(own)) }
        };
        // SAFETY: `enter_if_own` requires what `free_if_own` requires (contract).
        unsafe { self.enter_if_own(block, free) }
    }

    /// Does the same as [`free_if_own`](Self::free_if_own) for a span, but is faster.
    ///
    /// # Safety
    ///
    /// - The requirements of [`free_if_own`](Self::free_if_own) must be met.
    /// - The class of `block` must be a [span](SizeClass::is_span).
    #[inline]
    pub(crate) unsafe fn free_span_if_own(&self, block: BlockPtr) -> Option<BlockPtr> {
        let free = |own: &mut OwnHeap<P>, block| {
            // SAFETY: `enter_if_own` passes only blocks of this heap. The block is a span
            // (contract).
            unsafe { own.free_span_then(block, |own| self.publish_retained(own)) }
        };
        // SAFETY: `enter_if_own` requires what `free_if_own` requires (contract).
        unsafe { self.enter_if_own(block, free) }
    }

    /// Frees a block of this heap.
    ///
    /// # Safety
    ///
    /// - `block` must belong to this heap and must not be used afterwards.
    /// - The caller must own the heap.
    #[inline]
    pub(crate) unsafe fn free_own(&self, block: BlockPtr) {
        let publish = |own: &mut OwnHeap<P>| self.publish_retained(own);
        // SAFETY: the caller owns the heap, to which the block belongs (contract).
        self.own.with_mut(|own| unsafe { (*own).free_then(block, publish) });
    }

    /// Tells other threads which large blocks the heap retains. Only its owner may call this.
    #[inline]
    pub(crate) fn publish_retained(&self, own: &OwnHeap<P>) {
        self.retained_large.set(own.retained_large());
    }

    /// Calls `free` if `block` belongs to this heap. Otherwise returns the block.
    ///
    /// # Safety
    ///
    /// - The requirements of [`free_if_own`](Self::free_if_own) must be met.
    #[inline]
    unsafe fn enter_if_own(
        &self,
        block: BlockPtr,
        free: impl FnOnce(&mut OwnHeap<P>, BlockPtr),
    ) -> Option<BlockPtr> {
        // SAFETY: the block is in use (contract).
        let heap = unsafe { Self::of_block(block.start()) };
        if !std::ptr::eq(heap.as_ptr(), self) {
            return Some(block);
        }
        // SAFETY: this heap has an arena, so the caller owns it (contract).
        self.own.with_mut(|own| free(unsafe { &mut *own }, block));
        None
    }
}

impl<P: Parts> fmt::Debug for ThreadHeap<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadHeap({:p})", std::ptr::from_ref::<Self>(self))
    }
}
