//! The type [`Owner`], which represents the ownership of a heap, and the functions that send freed
//! blocks to their owner.
//!
//! Both are in one module because each needs the other. An owner sends the blocks of other heaps
//! that it has freed. If a thread sends blocks to an abandoned heap, the thread becomes the owner
//! of that heap until it has freed these blocks.

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

/// The limit for the freed blocks that wait in all inboxes together, in bytes. When a sender finds
/// that more bytes wait, it takes inboxes over to purge pages. The limit of [retained
/// arenas](raw_mem::RetainingArenas) is the same.
const MOST_WAITING: usize = 16 << 20;

/// The number of bytes that an inbox receives between two checks of the limit. A check adds up the
/// bytes that wait in all inboxes, which is too slow to be done for every batch.
const STEP: usize = 256 << 10;

/// Exclusive ownership of a heap. Dropping an `Owner` abandons its heap.
///
/// [`Heaps::open`] returns an owner, and [`PerThread`](crate::PerThread) uses one for every thread.
/// An owner cannot be copied, and every operation that changes the heap borrows the owner mutably,
/// so nobody else can be inside the heap at the same time. An owner must stay on its thread,
/// because the child of a fork regards the heaps of all other threads as lost.
/// [`OwnedHeap`](crate::OwnedHeap) is an owner that may move to another thread.
///
/// Live blocks of the heap stay valid when the heap is abandoned. The heap stays abandoned until
/// another owner adopts it.
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
/// An `Owner` cannot be used after it is dropped, and cannot be sent to another thread:
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
    /// This value owns the heap. Another `Owner` of the same heap may exist only if the two are
    /// never used at the same time, and if the other one is never dropped.
    heap: &'static ThreadHeap<P>,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl<P: Parts> Owner<P> {
    /// Creates the owner of `heap`.
    ///
    /// # Safety
    ///
    /// - The caller must own the heap.
    /// - The caller may keep its own ownership. In that case, nobody may use the heap in another
    ///   way while this value is in use, and this value must not be dropped.
    #[inline]
    pub(crate) unsafe fn new(heap: &'static ThreadHeap<P>) -> Self {
        // INVARIANT: the caller owned the heap (contract of `new`).
        Self { heap, stays_on_its_thread: PhantomData }
    }

    /// Makes the caller the owner of `heap`, which must be abandoned. Returns `None` if the heap
    /// already has an owner.
    pub(crate) fn adopt(heap: &'static ThreadHeap<P>) -> Option<Self> {
        // SAFETY: the heap had no owner, and the caller has just become its owner.
        heap.inbox.adopt().then(|| unsafe { Self::new(heap) })
    }

    /// Returns the heap that this value owns.
    #[inline]
    pub(crate) fn heap(&self) -> &'static ThreadHeap<P> {
        self.heap
    }

    /// Returns the tag of the heap, which is stored with every block of the heap. No two heaps have
    /// the same tag.
    pub fn tag(&self) -> HeapTag {
        self.heap.tag()
    }

    /// Allocates a block of `class` from the free list of the first pool of that class. Returns
    /// `None` if that list is empty. There may still be memory in that case, and
    /// [`alloc`](Self::alloc) tries every other way to get a block.
    #[inline]
    pub fn alloc_listed(&mut self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        unsafe { self.heap.alloc_listed(class) }
    }

    /// Allocates an uninitialised block of `class`. Returns `None` if the block needs a new arena
    /// and no arena can be mapped.
    #[inline]
    pub fn alloc(&mut self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // We work with a copy of this value, because a copy can stay in a register. The fast path
        // then needs no stack frame.
        // SAFETY: this value owns the heap, and is not used in the meantime.
        let mut owner = ManuallyDrop::new(unsafe { Self::new(self.heap) });
        owner.reclaim_inbox();
        let block = owner.enter(|own| own.alloc(class));
        block.or_else(|| Self::alloc_after_flush(owner, class))
    }

    /// Allocates a block of `class` after an arena could not be mapped. The heap and the source
    /// first release the arenas that they retain, because the source may then be able to map one.
    #[cold]
    fn alloc_after_flush(
        mut owner: ManuallyDrop<Self>,
        class: SizeClass<P::Geometry>,
    ) -> Option<BlockPtr> {
        owner.flush();
        owner.enter(|own| own.alloc(class))
    }

    /// Frees a block of any heap over the same source. A block of another heap goes to the outbox
    /// first, and is sent to its owner together with other blocks. The next [`flush`](Self::flush)
    /// sends it at the latest.
    ///
    /// # Safety
    ///
    /// - `block` must have come from a heap over the same source.
    /// - Nobody may use the block any more.
    #[inline]
    pub unsafe fn free(&mut self, block: BlockPtr) {
        // SAFETY: this value owns the heap (invariant). The block came from a heap over the same
        // source (contract of `free`).
        if let Some(block) = unsafe { self.heap.free_if_own(block) } {
            // SAFETY: the block came from a heap over the same source (contract of `free`), and
            // `free_if_own` has found that it does not belong to this heap.
            unsafe { self.free_elsewhere(block) };
        }
    }

    /// Frees a block of another heap. This function is never inlined, so that [`free`](Self::free)
    /// needs no stack frame.
    ///
    /// # Safety
    ///
    /// - The requirements of [`post`](Self::post) must be met.
    #[cold]
    #[inline(never)]
    unsafe fn free_elsewhere(&mut self, block: BlockPtr) {
        // SAFETY: the block belongs to another heap over the same source (contract of
        // `free_elsewhere`).
        unsafe { self.post(block) };
    }

    /// Puts a block of another heap into the outbox. If the outbox has no room for the block, sends
    /// the blocks in the outbox first.
    ///
    /// # Safety
    ///
    /// - `block` must belong to another heap over the same source.
    #[inline]
    pub(crate) unsafe fn post(&mut self, block: BlockPtr) {
        // SAFETY: the block is in use, in a heap over the same source (contract of `post`).
        let receiver = unsafe { ThreadHeap::of_block(block.start()) };
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        if self.heap.outbox.with(|outbox| unsafe { &*outbox }.has_room_for(receiver)) {
            // SAFETY: this value owns the heap (invariant). The outbox has room, and `block` is
            // exclusive ownership of the block.
            let add =
                |outbox: *mut Outbox<_>| unsafe { (*outbox).add(receiver, block.into_start()) };
            self.heap.outbox.with_mut(add);
        } else {
            // SAFETY: this value owns the heap, and does not use it in the meantime.
            unsafe { Self::post_after_sending(self.heap, block) };
        }
    }

    /// Sends the blocks in the outbox, and then puts `block` into it. The function is never inlined
    /// and takes no reference to an `Owner`. A block that only has to be put into the outbox
    /// therefore needs no stack frame.
    ///
    /// # Safety
    ///
    /// - The requirements of [`new`](Self::new) and [`post`](Self::post) must be met.
    #[cold]
    #[inline(never)]
    unsafe fn post_after_sending(heap: &'static ThreadHeap<P>, block: BlockPtr) {
        // SAFETY: the caller owns the heap and does not use it in the meantime (contract).
        let mut owner = ManuallyDrop::new(unsafe { Self::new(heap) });
        owner.send_outbox();
        // SAFETY: the block belongs to another heap over the same source (contract).
        unsafe { owner.post(block) };
    }

    /// Sends the blocks in the outbox, reclaims the blocks that other threads freed into this heap,
    /// and unmaps every empty arena, including those that the source retains. It also takes over
    /// the inboxes of all other heaps, and purges the pages that contain nothing but blocks waiting
    /// there. Call it before the owner becomes idle.
    pub fn flush(&mut self) {
        self.send_outbox();
        self.heap.heaps.take_over_inboxes(1);
        self.enter(Heap::trim);
    }

    /// Counts the memory in use in this heap. O(pools).
    pub fn stats(&self) -> Stats {
        self.read(Heap::stats)
    }

    /// Returns how many empty arenas the source counts as retained by this heap.
    pub(crate) fn retained_arenas(&self) -> usize {
        self.read(Heap::retained_arenas)
    }

    /// Checks every invariant of the single-owner heap. For tests.
    ///
    /// # Panics
    ///
    /// Panics if an invariant does not hold.
    pub fn check_invariants(&self) {
        self.read(Heap::check_invariants);
    }

    #[inline]
    fn enter<R>(&mut self, visit: impl FnOnce(&mut OwnHeap<P>) -> R) -> R {
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        self.heap.own.with_mut(|own| visit(unsafe { &mut *own }))
    }

    fn read<R>(&self, visit: impl FnOnce(&OwnHeap<P>) -> R) -> R {
        // SAFETY: this value owns the heap (invariant). It is borrowed, so nobody changes the heap.
        self.heap.own.with(|own| visit(unsafe { &*own }))
    }

    /// Sends the blocks in the outbox, after it has reclaimed the blocks in the inbox. The fast
    /// paths of freeing and allocating never look at the inbox, so a thread that stays on them
    /// would otherwise never reclaim these blocks.
    fn send_outbox(&mut self) {
        self.reclaim_inbox();
        let packed = self.heap.outbox.with_mut(|outbox| {
            // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
            let (receiver, blocks) = unsafe { &mut *outbox }.take()?;
            // SAFETY: a block in the outbox counts as in use until the owner of its heap frees it.
            let size = |block| unsafe { ThreadHeap::<P>::size_of_block(block) };
            // SAFETY: the outbox gave up the ownership of the blocks, which have at least
            // `LEAST_BLOCK` bytes.
            Some((receiver, unsafe { Batches::pack(blocks, size) }?))
        });
        if let Some((receiver, batches)) = packed {
            self.heap.heaps.send(receiver, batches);
        }
    }

    /// Frees the blocks that other threads have sent to the inbox.
    #[inline]
    fn reclaim_inbox(&mut self) {
        let nodes = self.heap.inbox.take_all();
        // SAFETY: the inbox contains blocks of this heap only.
        unsafe { self.reclaim(nodes) };
    }

    /// Frees the blocks of `nodes`, which other threads have sent to this heap.
    ///
    /// # Safety
    ///
    /// - The blocks of `nodes` must belong to this heap.
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
            // SAFETY: a sender packed the batch and gave up its ownership of it.
            unsafe { Batch::unpack(node, free) };
        }
    }

    /// Frees the blocks in a table. A thread that took over the inbox of this heap has put them
    /// there.
    ///
    /// # Safety
    ///
    /// - `node` must be the head of a table, and the caller must exclusively own it.
    /// - The blocks in the table must belong to this heap.
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
    /// - `start` must be a block of this heap that nobody uses any more.
    #[inline]
    unsafe fn free_own(&mut self, start: NonNull<u8>) {
        // SAFETY: nobody uses the block any more (contract of `free_own`).
        let block = unsafe { BlockPtr::from_start(start) };
        // SAFETY: the block belongs to this heap (contract of `free_own`).
        self.enter(|own| unsafe { own.free(block) });
    }
}

impl<P: Parts> Drop for Owner<P> {
    fn drop(&mut self) {
        // When a model has failed and its threads unwind, loom does not allow any further access.
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
    /// its owner, frees the blocks, and abandons the heap again. Returns true if the blocks now
    /// wait in the inbox.
    pub(super) fn deliver(&'static self, nodes: Segment<Batch>) -> bool {
        let Some(nodes) = self.inbox.push(nodes) else { return true };
        // SAFETY: the inbox returned the nodes, which means that the caller is now the owner of the
        // heap.
        let mut owner = unsafe { Owner::new(self) };
        // SAFETY: the caller pushes only blocks of this heap.
        unsafe { owner.reclaim(nodes.into_chain()) };
        false
    }
}

impl<P: Parts> Heaps<P> {
    /// Frees a block for a thread that has no heap, and therefore no outbox. The block is sent to
    /// its owner at once.
    ///
    /// # Safety
    ///
    /// - `block` must have come from one of these heaps.
    /// - Nobody may use the block any more.
    // This function is never inlined, so that the common path of the caller needs no stack frame.
    #[inline(never)]
    pub unsafe fn free_remote(&self, block: BlockPtr) {
        let start = block.into_start();
        // SAFETY: the block is in use, in one of these heaps (contract of `free_remote`).
        let receiver = unsafe { ThreadHeap::of_block(start) };
        // SAFETY: as above.
        let size = unsafe { ThreadHeap::<P>::size_of_block(start) };
        // SAFETY: the caller gives up the block, and every block has at least `LEAST_BLOCK` bytes.
        self.send(receiver, unsafe { Batches::of(start, size) });
    }

    /// Sends freed blocks to `receiver`, the heap that they belong to. If its owner does not
    /// reclaim blocks, more and more of them wait, so this function also enforces the limit for
    /// waiting blocks.
    fn send(&self, receiver: NonNull<ThreadHeap<P>>, batches: Batches) {
        // SAFETY: the receiver is in the list of heaps, and the heaps in the list live forever.
        let receiver: &'static ThreadHeap<P> = unsafe { receiver.as_ref() };
        let is_waiting = receiver.deliver(batches.nodes);
        if is_waiting && receiver.inbox.count(batches.bytes, STEP) {
            self.limit_waiting();
        }
    }

    /// Takes over inboxes if the blocks that wait in all inboxes have more than [`MOST_WAITING`]
    /// bytes together. O(heaps).
    #[cold]
    #[inline(never)]
    fn limit_waiting(&self) {
        let waiting = self.list.iter().map(|heap| heap.inbox.waiting());
        if waiting.fold(0, usize::saturating_add) > MOST_WAITING {
            self.take_over_inboxes(STEP);
        }
    }

    /// Takes over the inboxes in which at least `least` bytes wait, and purges the pages that
    /// contain only waiting blocks. Does nothing if another thread is already taking over inboxes.
    ///
    /// O(heaps + waiting blocks). It also makes a system call for each range of pages.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_over_inboxes(&self, least: usize) {
        if self.shared.purges_are_refused.load(Relaxed) {
            return;
        }
        let Some(_guard) = sync::try_lock(&self.takeovers) else { return };
        // A sender may be freeing memory for its caller, and a free must not change `errno`.
        preserving_errno(|| {
            for heap in self.list.iter().filter(|heap| heap.inbox.waiting() >= least) {
                self.take_over(heap);
            }
        });
    }

    /// Takes the waiting blocks out of the inbox of `heap`, purges the pages that they cover, and
    /// pushes the blocks back.
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
