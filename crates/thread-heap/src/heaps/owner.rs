//! Ownership of a heap as a type, and how freed blocks get to their owner.
//!
//! Each needs the other. An owner sends blocks, and a thread that sends blocks to an abandoned heap
//! becomes its owner for a moment.

use std::{fmt, marker::PhantomData, mem::ManuallyDrop, ptr::NonNull};

use obmalloc::{BlockPtr, Heap, HeapTag, SizeClass, Stats};
use raw_mem::preserving_errno;
use sync::{
    atomic::Ordering::Relaxed,
    link::{Chain, Segment},
};

use super::{Heaps, OwnHeap, ThreadHeap};
use crate::{
    freed::{
        batch::{Batch, Batches},
        outbox::Outbox,
        takeover,
        waiting_pools::WaitingPools,
    },
    parts::Parts,
};

/// The most bytes that wait in all inboxes together before senders take inboxes over. The limit of
/// [retained arenas](raw_mem::RetainingArenas) is the same.
const MOST_WAITING: usize = 16 << 20;

/// A sender adds up what waits in all inboxes when one of them has received this many bytes.
const STEP: usize = 256 << 10;

/// Exclusive ownership of a heap. Dropping it abandons the heap.
///
/// [`Heaps::open`] returns one, and [`PerThread`](crate::PerThread) uses one for every thread. An
/// owner cannot be copied, and every operation that changes the heap borrows it mutably, so nobody
/// else can be inside. It stays on its thread, because the child of a fork regards the heaps of
/// other threads as lost. [`OwnedHeap`](crate::OwnedHeap) is an owner that may move.
///
/// Live blocks stay valid when the heap is abandoned. Another owner adopts the heap later.
///
/// ```
/// # use thread_heap::{Owner, ThreadGeometry, obmalloc::SizeClass, raw_mem::{Malloc, MmapArenas}};
/// fn use_once(mut heap: Owner<(MmapArenas, Malloc, ThreadGeometry)>) {
///     let block = heap.alloc(SizeClass::of(100).unwrap()).expect("there is memory");
///     // SAFETY: the block came from this heap, and is not used again.
///     unsafe { heap.free(block) };
///     drop(heap);
/// }
/// ```
///
/// It cannot be used after it is dropped, and cannot be sent to another thread:
///
/// ```compile_fail,E0382
/// # use thread_heap::{Owner, ThreadGeometry, raw_mem::{Malloc, MmapArenas}};
/// fn use_after_drop(mut heap: Owner<(MmapArenas, Malloc, ThreadGeometry)>) {
///     drop(heap);
///     heap.flush();
/// }
/// ```
///
/// ```compile_fail,E0277
/// # use thread_heap::{Owner, ThreadGeometry, raw_mem::{Malloc, MmapArenas}};
/// fn send(heap: Owner<(MmapArenas, Malloc, ThreadGeometry)>) {
///     std::thread::spawn(move || drop(heap));
/// }
/// ```
pub struct Owner<P: Parts> {
    /// # Invariant
    ///
    /// This value owns the heap. Another value for the same heap may exist only if it is never used
    /// at the same time and never dropped.
    heap: &'static ThreadHeap<P>,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl<P: Parts> Owner<P> {
    /// Creates the owner of `heap`.
    ///
    /// # Safety
    ///
    /// - The caller must own the heap.
    /// - If the caller does not give up the ownership, nobody may use the heap in another way as long
    ///   as this value is used, and this value must not be dropped.
    #[inline]
    pub(crate) unsafe fn new(heap: &'static ThreadHeap<P>) -> Self {
        // INVARIANT: the caller owned the heap (contract of `new`).
        Self { heap, stays_on_its_thread: PhantomData }
    }

    /// Makes the caller the owner of `heap`. Returns `None` if the heap has an owner.
    pub(crate) fn adopt(heap: &'static ThreadHeap<P>) -> Option<Self> {
        // SAFETY: the heap had no owner, and the caller has just become its owner.
        heap.inbox.adopt().then(|| unsafe { Self::new(heap) })
    }

    /// Returns the heap.
    #[inline]
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
        // A copy of the value can stay in a register, so the fast path needs no stack frame.
        // SAFETY: this value owns the heap, and is not used in the meantime.
        let mut owner = ManuallyDrop::new(unsafe { Self::new(self.heap) });
        owner.reclaim_inbox();
        let block = owner.enter(|own| own.alloc(class));
        block.or_else(|| Self::alloc_after_flush(owner, class))
    }

    /// Takes a block of `class` when no arena could be mapped. The source may have one after this
    /// heap and the source have released what they retain.
    #[cold]
    fn alloc_after_flush(
        mut owner: ManuallyDrop<Self>,
        class: SizeClass<P::Geometry>,
    ) -> Option<BlockPtr> {
        owner.flush();
        owner.enter(|own| own.alloc(class))
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
    /// As for [`post`](Self::post).
    #[cold]
    #[inline(never)]
    unsafe fn free_elsewhere(&mut self, block: BlockPtr) {
        // SAFETY: the block belongs to another one of these heaps (contract of `free_elsewhere`).
        unsafe { self.post(block) };
    }

    /// Puts a block of another heap into the outbox. Sends what is there if it has no room.
    ///
    /// # Safety
    ///
    /// `block` must belong to another heap over the same source.
    #[inline]
    pub(crate) unsafe fn post(&mut self, block: BlockPtr) {
        // SAFETY: the block is in use, in a heap over the same source (contract of `post`).
        let receiver = unsafe { ThreadHeap::of_block(block.start()) };
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        if self.heap.outbox.with(|outbox| unsafe { &*outbox }.has_room_for(receiver)) {
            // SAFETY: as above. There is room, and `block` is exclusive ownership of the block.
            let add =
                |outbox: *mut Outbox<_>| unsafe { (*outbox).add(receiver, block.into_start()) };
            self.heap.outbox.with_mut(add);
        } else {
            // SAFETY: this value owns the heap, and does not use it in the meantime.
            unsafe { Self::post_after_sending(self.heap, block) };
        }
    }

    /// Sends what is in the outbox, and then puts `block` there. It is never inlined and takes no
    /// reference to an owner, so that a block that only waits needs no stack frame.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new) and [`post`](Self::post).
    #[cold]
    #[inline(never)]
    unsafe fn post_after_sending(heap: &'static ThreadHeap<P>, block: BlockPtr) {
        // SAFETY: the caller owns the heap and does not use it in the meantime (contract).
        let mut owner = ManuallyDrop::new(unsafe { Self::new(heap) });
        owner.send_outbox();
        // SAFETY: the block belongs to another heap over the same source (contract).
        unsafe { owner.post(block) };
    }

    /// Sends the blocks in the outbox, reclaims what others freed, and unmaps every empty arena,
    /// including those that the source retains. Also takes over all other inboxes, and purges the
    /// pages that contain only blocks that wait there. Call it before the owner becomes idle.
    pub fn flush(&mut self) {
        self.send_outbox();
        self.heap.heaps.take_over_inboxes(1);
        self.enter(Heap::trim);
    }

    /// Counts what is in use in this heap. O(pools).
    pub fn stats(&self) -> Stats {
        self.read(Heap::stats)
    }

    /// Returns how many empty arenas the source counts as retained by this heap.
    pub(crate) fn retained_arenas(&self) -> usize {
        self.read(Heap::retained_arenas)
    }

    /// Asserts every rule of the single-owner heap. For tests.
    ///
    /// # Panics
    ///
    /// Panics if a rule is broken.
    pub fn check_invariants(&self) {
        self.read(Heap::check_invariants);
    }

    #[inline]
    fn enter<R>(&mut self, visit: impl FnOnce(&mut OwnHeap<P>) -> R) -> R {
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        self.heap.own.with_mut(|own| visit(unsafe { &mut *own }))
    }

    fn read<R>(&self, visit: impl FnOnce(&OwnHeap<P>) -> R) -> R {
        // SAFETY: this value owns the heap (invariant), and is borrowed, so nobody changes the heap.
        self.heap.own.with(|own| visit(unsafe { &*own }))
    }

    /// Sends the blocks in the outbox, and reclaims what others freed. A thread that frees and
    /// allocates on its fast paths only has no other occasion to reclaim.
    fn send_outbox(&mut self) {
        self.reclaim_inbox();
        let packed = self.heap.outbox.with_mut(|outbox| {
            // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
            let (receiver, blocks) = unsafe { &mut *outbox }.take()?;
            // SAFETY: a block of the outbox stays in use until its owner frees it.
            let size = |block| unsafe { ThreadHeap::<P>::size_of_block(block) };
            // SAFETY: the outbox gave up the blocks, which have at least `LEAST_BLOCK` bytes.
            Some((receiver, unsafe { Batches::pack(blocks, size) }?))
        });
        if let Some((receiver, batches)) = packed {
            self.heap.heaps.send(receiver, batches);
        }
    }

    /// Frees the blocks that wait in the inbox.
    #[inline]
    fn reclaim_inbox(&mut self) {
        let nodes = self.heap.inbox.take_all();
        // SAFETY: the inbox contains blocks of this heap only.
        unsafe { self.reclaim(nodes) };
    }

    /// Frees blocks that other threads sent.
    ///
    /// # Safety
    ///
    /// The blocks must belong to this heap.
    unsafe fn reclaim(&mut self, nodes: Chain<Batch>) {
        for node in nodes {
            // SAFETY: we own the node, which is a packed batch or the head of a table.
            if unsafe { Batch::blocks(node) }.is_none() {
                // SAFETY: the node is a table. The blocks belong to this heap (contract).
                unsafe { self.reclaim_table(node) };
                continue;
            }
            // SAFETY: the blocks belong to this heap (contract of `reclaim`).
            let free = |start| unsafe { self.free_own(start) };
            // SAFETY: a sender packed the batch and gave it up.
            unsafe { Batch::unpack(node, free) };
        }
    }

    /// Frees the blocks in the table that a takeover of the inbox has made.
    ///
    /// # Safety
    ///
    /// - `node` must be the head of a table, and the caller must exclusively own it.
    /// - The blocks must belong to this heap.
    #[cold]
    #[inline(never)]
    unsafe fn reclaim_table(&mut self, node: NonNull<Batch>) {
        // SAFETY: we own `node`, which is the head of a table (contract of `reclaim_table`).
        let table = unsafe { WaitingPools::<P::Geometry>::from_node(node) };
        let lower = self.heap.heaps.shared.lower();
        // SAFETY: the block belongs to this heap (contract of `reclaim_table`).
        table.unload(lower, |start| unsafe { self.free_own(start) });
    }

    /// Frees a block of this heap.
    ///
    /// # Safety
    ///
    /// `start` must be a block of this heap that nobody uses any more.
    #[inline]
    unsafe fn free_own(&mut self, start: NonNull<u8>) {
        // SAFETY: nobody uses the block any more (contract of `free_own`).
        let block = unsafe { BlockPtr::from_start(start) };
        // SAFETY: it belongs to this heap (contract of `free_own`).
        self.enter(|own| unsafe { own.free(block) });
    }
}

impl<P: Parts> Drop for Owner<P> {
    fn drop(&mut self) {
        // Loom allows no access while a failed model unwinds.
        if sync::IS_MODEL && std::thread::panicking() {
            return;
        }
        self.send_outbox();
        loop {
            self.reclaim_inbox();
            self.enter(Heap::unmap_free_arenas);
            if self.heap.inbox.abandon() {
                return;
            }
        }
    }
}

impl<P: Parts> fmt::Debug for Owner<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owner").field(&self.heap).finish()
    }
}

impl<P: Parts> ThreadHeap<P> {
    /// Pushes freed blocks of this heap to its inbox. If the heap has no owner, the caller becomes
    /// its owner, frees the blocks, and abandons the heap again. Returns true if the blocks wait in
    /// the inbox.
    pub(super) fn deliver(&'static self, nodes: Segment<Batch>) -> bool {
        let Some(nodes) = self.inbox.push(nodes) else { return true };
        // SAFETY: the nodes came back, so the caller owns the heap.
        let mut owner = unsafe { Owner::new(self) };
        // SAFETY: the blocks belong to this heap.
        unsafe { owner.reclaim(nodes.into_chain()) };
        false
    }
}

impl<P: Parts> Heaps<P> {
    /// Frees a block for a thread that has no heap. The block is sent to its owner at once.
    ///
    /// # Safety
    ///
    /// - `block` must have come from one of these heaps.
    /// - Nobody may use it any more.
    // Never inlined, so that the common path of the caller needs no stack frame.
    #[inline(never)]
    pub unsafe fn free_remote(&self, block: BlockPtr) {
        let start = block.into_start();
        // SAFETY: the block is in use, in one of these heaps (contract of `free_remote`).
        let receiver = unsafe { ThreadHeap::of_block(start) };
        // SAFETY: as above.
        let size = unsafe { ThreadHeap::<P>::size_of_block(start) };
        // SAFETY: the block is given up, and every block has at least `LEAST_BLOCK` bytes.
        self.send(receiver, unsafe { Batches::of(start, size) });
    }

    /// Sends freed blocks of `receiver`. Limits how many blocks wait for owners that do not take
    /// them.
    fn send(&self, receiver: NonNull<ThreadHeap<P>>, batches: Batches) {
        // SAFETY: the receiver is in the list of heaps, and those live forever.
        let receiver: &'static ThreadHeap<P> = unsafe { receiver.as_ref() };
        let is_waiting = receiver.deliver(batches.nodes);
        if is_waiting && receiver.inbox.count(batches.bytes, STEP) {
            self.limit_waiting();
        }
    }

    /// Takes over inboxes if too much waits in all of them together. O(heaps).
    #[cold]
    #[inline(never)]
    fn limit_waiting(&self) {
        let waiting = self.list.iter().map(|heap| heap.inbox.waiting());
        if waiting.fold(0, usize::saturating_add) > MOST_WAITING {
            self.take_over_inboxes(STEP);
        }
    }

    /// Takes over the inboxes in which at least `least` bytes wait, and purges the pages that
    /// contain waiting blocks only. Does nothing if another thread is doing so.
    ///
    /// O(heaps + waiting blocks), and a system call for each range of pages.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_over_inboxes(&self, least: usize) {
        if self.shared.purges_are_refused.load(Relaxed) {
            return;
        }
        let Some(_guard) = sync::try_lock(&self.takeovers) else { return };
        // A sender may be inside a call that must not change `errno`, because it frees memory.
        preserving_errno(|| {
            for heap in self.list.iter().filter(|heap| heap.inbox.waiting() >= least) {
                self.take_over(heap);
            }
        });
    }

    /// Takes over the inbox of `heap`.
    fn take_over(&self, heap: &'static ThreadHeap<P>) {
        let bytes = heap.inbox.restart_count();
        let Some(nodes) = heap.inbox.take_over() else { return };
        let (nodes, has_batches) = takeover::purge(&self.shared, nodes, bytes);
        let Some(nodes) = nodes else { return };
        if heap.deliver(nodes) && has_batches {
            heap.inbox.count(bytes, STEP);
        }
    }
}
