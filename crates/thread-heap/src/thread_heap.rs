//! A heap that has one owner at a time, and whose blocks any thread may free.

use std::{fmt, ptr::NonNull};

use obmalloc::{BlockPtr, Geometry, Heap, HeapTag, SizeClass};
use sync::{
    UnsafeCell,
    atomic::{AtomicBool, AtomicPtr, AtomicUsize},
    link::{Chain, Segment},
};

use crate::{
    freed::{
        batch::{Batch, Batches, LEAST_BLOCK},
        inbox::Inbox,
        outbox::Outbox,
        waiting_pools::WaitingPools,
    },
    heap_list::Listed,
    parts::Parts,
    shared_arenas::SharedArenas,
};

/// The single-owner heap inside.
type OwnHeap<P> = Heap<SharedArenas<P>, <P as Parts>::Lower, <P as Parts>::Geometry>;

/// A single-owner heap with an inbox and an outbox.
///
/// What any thread may do is safe. The unsafe methods are for the owner, whose rights an
/// [`Owner`](crate::Owner) represents. "The caller must own the heap" means that
///
/// - the heap has no other owner, and
/// - no other call for the owner runs on it at the same time.
#[repr(C)]
pub(crate) struct ThreadHeap<P: Parts> {
    /// # Invariant
    ///
    /// Only the owner accesses it.
    own: UnsafeCell<OwnHeap<P>>,
    /// # Invariant
    ///
    /// Only the owner accesses it.
    outbox: UnsafeCell<Outbox<Self>>,
    /// Separates what others write from the cache lines that the owner reads.
    _apart: [u8; 128],
    pub(crate) inbox: Inbox<Batch>,
    next: AtomicPtr<Self>,
    outlives_threads: AtomicBool,
    thread: AtomicUsize,
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
    const EVERY_BLOCK_CAN_BE_SENT: () =
        assert!(P::Geometry::ALIGNMENT >= LEAST_BLOCK, "a block has room for the head of a batch");

    sync::const_unless_model! {
        /// Creates a heap that has an owner. Its blocks carry `tag`.
        pub(crate) fn new(arenas: SharedArenas<P>, lower: P::Lower, tag: HeapTag) -> Self {
            let () = Self::EVERY_BLOCK_CAN_BE_SENT;
            Self {
                own: UnsafeCell::new(Heap::with_tag(arenas, lower, tag)),
                outbox: UnsafeCell::new(Outbox::new()),
                _apart: [0; 128],
                inbox: Inbox::new(),
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

    /// True if the owner is not a thread, so that it still exists in a forked child. Only the number
    /// of retained arenas depends on this flag.
    pub(crate) fn outlives_threads(&self) -> &AtomicBool {
        &self.outlives_threads
    }

    /// The number of the thread that has the heap open, or 0. No two live threads share a number. A
    /// thread that has not opened the heap but finds its own number here therefore knows that the
    /// owner has ended without closing the heap.
    pub(crate) fn thread(&self) -> &AtomicUsize {
        &self.thread
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

    /// Pushes freed blocks of this heap to its inbox. If the heap has no owner, the caller becomes
    /// its owner, frees the blocks, and abandons the heap again. Returns true if the blocks wait in
    /// the inbox.
    pub(crate) fn deliver(&self, nodes: Segment<Batch>) -> bool {
        let Some(nodes) = self.inbox.push(nodes) else { return true };
        // SAFETY: the nodes came back, so we own the heap. Their blocks belong to it.
        unsafe { self.reclaim(nodes.into_chain()) };
        // SAFETY: we own the heap until `abandon` returns.
        unsafe { self.abandon() };
        false
    }

    /// Calls `visit` with the single-owner heap.
    ///
    /// # Safety
    ///
    /// The caller must own the heap. `visit` must not use it in another way.
    #[inline]
    pub(crate) unsafe fn enter<R>(&self, visit: impl FnOnce(&mut OwnHeap<P>) -> R) -> R {
        // SAFETY: the caller owns the heap (contract of `enter`), so nobody else accesses the cell.
        self.own.with_mut(|own| visit(unsafe { &mut *own }))
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

    /// Takes a block of `class` after reclaiming what others freed.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    pub(crate) unsafe fn alloc(&self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: the caller owns the heap (contract of `alloc`).
        unsafe { self.reclaim_inbox() };
        // SAFETY: as above.
        unsafe { self.enter(|own| own.alloc(class)) }
    }

    /// Frees `block` if it belongs to this heap. Otherwise returns it.
    ///
    /// # Safety
    ///
    /// - `block` must belong to a heap over the same source of arenas.
    /// - The caller must own this heap, unless the heap never has an arena.
    #[inline]
    pub(crate) unsafe fn free_if_own(&self, block: BlockPtr) -> Option<BlockPtr> {
        // SAFETY: the block is in use (contract of `free_if_own`).
        let heap = unsafe { Self::of_block(block.start()) };
        if !std::ptr::eq(heap.as_ptr(), self) {
            return Some(block);
        }
        // SAFETY: the block carries this heap's tag. The heap has an arena, so the caller owns it.
        unsafe { self.free(block) };
        None
    }

    /// Frees a block of this heap.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, and `block` must belong to it.
    #[inline]
    unsafe fn free(&self, block: BlockPtr) {
        // SAFETY: the caller owns the heap, and the block belongs to it (contract of `free`).
        self.own.with_mut(|own| unsafe { (*own).free(block) });
    }

    /// Puts `block` into the outbox. Returns it if the outbox has no room for a block of `receiver`.
    ///
    /// # Safety
    ///
    /// The caller must own this heap, and `block` must belong to the heap `receiver`.
    #[inline]
    pub(crate) unsafe fn post(&self, receiver: NonNull<Self>, block: BlockPtr) -> Option<BlockPtr> {
        // SAFETY: the caller owns the heap (contract of `post`).
        if !self.outbox.with(|outbox| unsafe { &*outbox }.has_room_for(receiver)) {
            return Some(block);
        }
        // SAFETY: as above. There is room, and a `BlockPtr` is exclusive ownership of the block.
        self.outbox.with_mut(|outbox| unsafe { (*outbox).add(receiver, block.into_start()) });
        None
    }

    /// Packs the blocks of the outbox. Returns them and the heap that they belong to, or `None` if
    /// there are none.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    pub(crate) unsafe fn pack_outbox(&self) -> Option<(NonNull<Self>, Batches)> {
        self.outbox.with_mut(|outbox| {
            // SAFETY: the caller owns the heap (contract of `pack_outbox`).
            let (receiver, blocks) = unsafe { &mut *outbox }.take()?;
            // SAFETY: a block of the outbox stays in use until its owner frees it.
            let size = |block| unsafe { Self::size_of_block(block) };
            // SAFETY: the outbox gave up the blocks, which have at least `LEAST_BLOCK` bytes.
            Some((receiver, unsafe { Batches::pack(blocks, size) }?))
        })
    }

    /// Frees the blocks that wait in the inbox.
    ///
    /// # Safety
    ///
    /// The caller must own the heap.
    #[inline]
    pub(crate) unsafe fn reclaim_inbox(&self) {
        // SAFETY: the caller owns the heap (contract), and its inbox contains blocks of it only.
        unsafe { self.reclaim(self.inbox.take_all()) };
    }

    /// Frees blocks of this heap that other threads sent.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, and the blocks must belong to it.
    unsafe fn reclaim(&self, nodes: Chain<Batch>) {
        for node in nodes {
            // SAFETY: we own the node, which is a packed batch or the head of a table.
            if unsafe { Batch::blocks(node) }.is_none() {
                // SAFETY: it is a table. The caller owns the heap (contract of `reclaim`).
                unsafe { self.reclaim_table(node) };
                continue;
            }
            // SAFETY: the blocks belong to this heap, and its owner calls (contract of `reclaim`).
            let free = |start| unsafe { self.free(BlockPtr::from_start(start)) };
            // SAFETY: a sender packed the batch and gave it up.
            unsafe { Batch::unpack(node, free) };
        }
    }

    /// Frees the blocks in a table that a takeover of the inbox has made.
    ///
    /// # Safety
    ///
    /// - `node` must be the head of a table, and the caller must exclusively own it.
    /// - The caller must own the heap, and the blocks must belong to it.
    #[cold]
    #[inline(never)]
    unsafe fn reclaim_table(&self, node: NonNull<Batch>) {
        // SAFETY: the caller owns the heap (contract of `reclaim_table`).
        let shared = unsafe { self.enter(|own| own.source().shared()) };
        let Some(shared) = shared else { return };
        // SAFETY: `node` is the head of a table, and we own it (contract of `reclaim_table`).
        let table = unsafe { WaitingPools::<P::Geometry>::from_node(node) };
        // SAFETY: the blocks belong to this heap, and its owner calls (contract).
        let free = |start| unsafe { self.free(BlockPtr::from_start(start)) };
        table.unload(shared.lower(), free);
    }

    /// Reclaims what others freed, returns empty arenas to the source, and leaves the heap without
    /// an owner. The outbox must be empty.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, and gives up that ownership.
    pub(crate) unsafe fn abandon(&self) {
        loop {
            // SAFETY: the caller is the owner until `abandon` succeeds.
            unsafe { self.reclaim_inbox() };
            // SAFETY: as above.
            unsafe { self.enter(Heap::give_back_empty_arena) };
            if self.inbox.abandon() {
                return;
            }
        }
    }

    /// Returns how many empty arenas the source counts as retained by this heap.
    ///
    /// # Safety
    ///
    /// The caller must own the heap, unless the heap never has an arena.
    pub(crate) unsafe fn retained_arenas(&self) -> usize {
        // SAFETY: the caller owns the heap (contract). Nothing changes in a heap without arenas.
        self.own.with(|own| unsafe { &*own }.arenas_at_rest())
    }
}

impl<P: Parts> fmt::Debug for ThreadHeap<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadHeap({:p})", std::ptr::from_ref::<Self>(self))
    }
}
