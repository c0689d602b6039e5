//! The heap of one thread: a single-owner heap, an inbox and an outbox.

use std::{fmt, ptr::NonNull};

use obmalloc::{BlockPtr, Geometry, Heap, HeapTag, SizeClass, Stats};
use sync::{
    UnsafeCell,
    atomic::{AtomicBool, AtomicPtr, AtomicUsize},
};

use crate::{
    carrier::{self, Carrier, LEAST_BLOCK},
    heaps::Heaps,
    inbox::Inbox,
    link::{Chain, Nodes},
    outbox::Outbox,
    parts::Parts,
    registry::Registered,
    shared_arenas::SharedArenas,
    waiting_pools::WaitingPools,
};

/// The single-owner heap inside.
type OwnHeap<P> = Heap<SharedArenas<P>, <P as Parts>::Lower, <P as Parts>::Geometry>;

/// A heap that has one owner at a time, and whose blocks any thread may free.
///
/// The owner is the thread that opened it ([`Heaps::open`](crate::Heaps::open)), until it closes
/// it ([`Heaps::close`](crate::Heaps::close)). The unsafe methods are for the owner alone.
///
/// A caller that promises to be the owner also promises that no other unsafe method is running on
/// the heap at the same time. The source of arenas and the layer below must therefore not call back
/// into the heap that is calling them.
#[repr(C)]
pub struct ThreadHeap<P: Parts> {
    /// # Invariant
    ///
    /// Entered by the owner alone.
    own: UnsafeCell<OwnHeap<P>>,
    /// # Invariant
    ///
    /// Entered by the owner alone.
    outbox: UnsafeCell<Outbox<Self>>,
    /// Keeps what others write on another cache line than what the owner reads.
    _apart: [u8; 128],
    pub(crate) inbox: Inbox<Carrier>,
    next: AtomicPtr<Self>,
    /// The owner is not a thread, so a forked child still has it.
    outlives_threads: AtomicBool,
    /// The heaps that this one belongs to; `None` for the heap of no thread.
    heaps: Option<&'static Heaps<P>>,
    /// See [`ThreadHeap::thread`].
    thread: AtomicUsize,
}

// SAFETY: the cells are entered by the owner alone, and ownership passes from thread to thread
// with everything done before it (the table in the crate's page); the rest is atomics.
unsafe impl<P: Parts> Sync for ThreadHeap<P> {}

// SAFETY: `next` is one field.
unsafe impl<P: Parts> Registered for ThreadHeap<P> {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

impl<P: Parts> ThreadHeap<P> {
    const BLOCKS_CAN_CARRY: () = assert!(
        P::Geometry::SIZES.alignment >= LEAST_BLOCK,
        "a freed block is two words, at least"
    );

    sync::const_unless_model! {
        /// A heap over `arenas`, whose blocks carry `tag`.
        pub(crate) fn new(arenas: SharedArenas<P>, lower: P::Lower, tag: HeapTag) -> Self {
            let () = Self::BLOCKS_CAN_CARRY;
            let heaps = arenas.heaps();
            Self {
                own: UnsafeCell::new(Heap::with_tag(arenas, lower, tag)),
                outbox: UnsafeCell::new(Outbox::new()),
                _apart: [0; 128],
                inbox: Inbox::new(),
                next: AtomicPtr::new(std::ptr::null_mut()),
                outlives_threads: AtomicBool::new(false),
                heaps,
                thread: AtomicUsize::new(0),
            }
        }
    }

    /// Whether the owner is something other than a thread, so that a forked child still has it.
    /// Only the number of retained arenas depends on it.
    pub(crate) fn outlives_threads(&self) -> &AtomicBool {
        &self.outlives_threads
    }

    /// The tag that every block of this heap carries.
    #[inline]
    pub fn tag(&self) -> HeapTag {
        HeapTag(std::ptr::from_ref(self).cast())
    }

    /// The number of the thread that keeps this heap open, or 0. No two live threads share a
    /// number, so a thread that finds its own number here, without having opened the heap, knows
    /// that the owner has ended and did not close the heap.
    pub(crate) fn thread(&self) -> &AtomicUsize {
        &self.thread
    }

    /// The heap whose block is at `start`.
    ///
    /// # Safety
    ///
    /// `start` lies in a block in use of a thread heap of these types.
    #[inline]
    pub(crate) unsafe fn of_block(start: NonNull<u8>) -> NonNull<Self> {
        // SAFETY: the caller's promise.
        let HeapTag(heap) = unsafe { OwnHeap::<P>::tag_of(start) };
        // SAFETY: the tag of such a block is the address of its heap.
        unsafe { NonNull::new_unchecked(heap.cast_mut().cast()) }
    }

    /// Takes a block of `class` that is at hand: the fast path.
    ///
    /// # Safety
    ///
    /// The caller is the owner, or the heap never has an arena.
    #[inline]
    pub unsafe fn alloc_listed(&self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: the owner alone enters; a heap without arenas has nothing that changes.
        self.own.with(|own| unsafe { &*own }.alloc_listed(class))
    }

    /// Takes a block of `class`: what others freed comes home first.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    pub unsafe fn alloc(&self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: the caller's promise.
        unsafe { self.bring_home(self.inbox.take_all()) };
        // SAFETY: the owner alone enters.
        let block = self.own.with_mut(|own| unsafe { &mut *own }.alloc(class));
        // SAFETY: the caller's promise.
        block.or_else(|| unsafe { self.alloc_after_flush(class) })
    }

    /// Takes a block of `class` after no arena was to be had. The source may have one once this heap
    /// and the source have given back what they retain.
    ///
    /// # Safety
    ///
    /// The caller must be the owner.
    #[cold]
    unsafe fn alloc_after_flush(&self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: the caller is the owner.
        unsafe { self.flush() };
        // SAFETY: the owner alone enters.
        self.own.with_mut(|own| unsafe { &mut *own }.alloc(class))
    }

    /// Takes a block of this heap back.
    ///
    /// # Safety
    ///
    /// The caller is the owner, and the block is this heap's.
    #[inline]
    pub unsafe fn free(&self, block: BlockPtr) {
        // SAFETY: the owner alone enters; the block is this heap's.
        self.own.with_mut(|own| unsafe { (*own).free(block) });
    }

    /// Takes back a block of any heap that is over the same source as this one: of its own at
    /// once, of another by way of the outbox.
    ///
    /// # Safety
    ///
    /// The caller is the owner of this heap, and gives up a block of one of these heaps.
    #[inline]
    pub unsafe fn free_any(&self, block: BlockPtr) {
        // SAFETY: the block is in use, in one of these heaps.
        let owner = unsafe { Self::of_block(block.start()) };
        if std::ptr::eq(owner.as_ptr(), self) {
            // SAFETY: the block carries this heap's tag.
            unsafe { self.free(block) };
        } else {
            // SAFETY: the block carries the tag of another heap.
            unsafe { self.free_other(owner, block) };
        }
    }

    /// Takes a block of another heap, to send it home together with others.
    ///
    /// # Safety
    ///
    /// The caller is the owner of this heap, and gives up a block of `receiver`, which is another.
    #[inline]
    pub(crate) unsafe fn free_other(&self, receiver: NonNull<Self>, block: BlockPtr) {
        // SAFETY: the owner alone enters.
        if self.outbox.with(|outbox| unsafe { &*outbox }.has_room_for(receiver)) {
            // SAFETY: the owner alone enters; there is room, and the block is given up.
            self.outbox.with_mut(|outbox| unsafe { (*outbox).add(receiver, block.into_start()) });
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.free_other_after_sending(receiver, block) };
        }
    }

    /// Sends what waits in the outbox, which has no room for a block of `receiver`, and puts the
    /// block there.
    ///
    /// # Safety
    ///
    /// As for [`free_other`](Self::free_other).
    #[cold]
    #[inline(never)]
    unsafe fn free_other_after_sending(&self, receiver: NonNull<Self>, block: BlockPtr) {
        // SAFETY: the caller's promise.
        unsafe { self.send_outbox() };
        // SAFETY: the owner alone enters; there is room now, and the block is given up.
        self.outbox.with_mut(|outbox| unsafe { (*outbox).add(receiver, block.into_start()) });
    }

    /// Sends what waits in the outbox, takes home what others have freed, and gives back what
    /// arenas can go: for a thread that will not be here for a while.
    ///
    /// The other heaps cannot be entered, but their inboxes are taken over: the pages that hold
    /// only blocks which wait there go back to the system.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    pub unsafe fn flush(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.send_outbox() };
        if let Some(heaps) = self.heaps {
            heaps.take_over_inboxes(1);
        }
        // SAFETY: the owner alone enters.
        self.own.with_mut(|own| unsafe { &mut *own }.trim());
    }

    /// Sends what waits in the outbox, and takes home what others have freed: a thread that frees
    /// and allocates without ever leaving its fast paths has no other time for it. Apart from
    /// [`free_other`](Self::free_other), so that the blocks that only wait need no stack frame.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    #[inline(never)]
    pub(crate) unsafe fn send_outbox(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.bring_home(self.inbox.take_all()) };
        let packed = self.outbox.with_mut(|outbox| {
            // SAFETY: the owner alone enters.
            let (receiver, blocks) = unsafe { &mut *outbox }.take()?;
            // SAFETY: a block of the outbox is in use until it is sent.
            let size = |block| unsafe { Self::size_of_block(block) };
            // SAFETY: the blocks were given up, and are no smaller than the geometry's alignment.
            Some((receiver, unsafe { carrier::pack(blocks, size) }?))
        });
        if let (Some((receiver, batch)), Some(heaps)) = (packed, self.heaps) {
            heaps.send(receiver, batch);
        }
    }

    /// The bytes of a block of any heap of these types.
    ///
    /// # Safety
    ///
    /// As said; the caller holds the block.
    #[inline]
    pub(crate) unsafe fn size_of_block(start: NonNull<u8>) -> usize {
        // SAFETY: the caller's promise.
        let class = unsafe { SizeClass::<P::Geometry>::at(start) };
        class.map_or(LEAST_BLOCK, SizeClass::block_size)
    }

    /// Frees blocks of this heap that came from elsewhere.
    ///
    /// # Safety
    ///
    /// The caller is the owner, and the blocks are this heap's.
    pub(crate) unsafe fn bring_home(&self, carriers: Nodes<Carrier>) {
        for carrier in carriers {
            // SAFETY: the node is ours, and is a carrier or a table.
            if unsafe { Carrier::blocks(carrier) }.is_none() {
                // SAFETY: it is a table; the rest is the caller's promise.
                unsafe { self.bring_table_home(carrier) };
                continue;
            }
            // SAFETY: its sender loaded it, and gave its blocks up; the rest is the caller's
            // promise.
            unsafe { Carrier::unload(carrier, |start| self.free(BlockPtr::from_start(start))) };
        }
    }

    /// Frees the blocks of this heap that a takeover of the inbox has put into a table.
    ///
    /// # Safety
    ///
    /// - `node` is the head of a table, and belongs to the caller.
    /// - The caller is the owner, and the blocks are this heap's.
    #[cold]
    #[inline(never)]
    unsafe fn bring_table_home(&self, node: NonNull<Carrier>) {
        let Some(heaps) = self.heaps else { return };
        // SAFETY: the caller's promise.
        let table = unsafe { WaitingPools::<P::Geometry>::from_node(node) };
        // SAFETY: the senders gave the blocks up, and the caller owns this heap, to which they
        // belong.
        table.unload(heaps.lower(), |start| unsafe { self.free(BlockPtr::from_start(start)) });
    }

    /// Takes home what others have freed, and gives back what arenas can go.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    unsafe fn tidy(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.bring_home(self.inbox.take_all()) };
        // SAFETY: the owner alone enters.
        self.own.with_mut(|own| unsafe { &mut *own }.unmap_free_arenas());
    }

    /// Brings everything home, gives back what arenas it can, and leaves the heap without an
    /// owner.
    ///
    /// # Safety
    ///
    /// The caller is the owner, and is so no longer.
    pub(crate) unsafe fn abandon(&self) {
        loop {
            // SAFETY: the caller is the owner until `abandon` succeeds.
            unsafe { self.tidy() };
            if self.inbox.abandon() {
                return;
            }
        }
    }

    /// Arenas that the source counts as kept by this heap.
    ///
    /// # Safety
    ///
    /// The caller is the owner, or the heap never has an arena.
    pub(crate) unsafe fn retained_arenas(&self) -> usize {
        // SAFETY: the owner alone enters; a heap without arenas has nothing that changes.
        self.own.with(|own| unsafe { &*own }.retained_arenas())
    }

    /// Counts what is in use, by walking the heap. O(pools).
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    pub unsafe fn stats(&self) -> Stats {
        // SAFETY: the owner alone enters.
        self.own.with(|own| unsafe { &*own }.stats())
    }

    /// Asserts every rule of the single-owner heap. For tests.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    ///
    /// # Panics
    ///
    /// When a rule does not hold.
    pub unsafe fn check_invariants(&self) {
        // SAFETY: the owner alone enters.
        self.own.with(|own| unsafe { &*own }.check_invariants());
    }
}

/// Puts freed blocks of `receiver` into its inbox. If nobody owns it, the caller owns it for this
/// moment and frees them. Returns true if they wait in the inbox.
pub(crate) fn deliver<P: Parts>(receiver: &ThreadHeap<P>, chain: Chain<Carrier>) -> bool {
    let Some(chain) = receiver.inbox.push(chain) else { return true };
    // SAFETY: the chain came back, so we are the owner; the blocks are the receiver's.
    unsafe { receiver.bring_home(chain.into_nodes()) };
    // SAFETY: as above, until this returns.
    unsafe { receiver.abandon() };
    false
}

impl<P: Parts> fmt::Debug for ThreadHeap<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadHeap({:p})", std::ptr::from_ref::<Self>(self))
    }
}
