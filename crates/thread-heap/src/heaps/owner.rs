//! The type [`Owner`], which represents the ownership of a heap, and the functions that send freed
//! blocks to the owner of their heap.
//!
//! Both are in one module because each of them needs the other. When an owner has freed blocks of
//! other heaps, it sends these blocks to the heaps that they belong to. When a thread sends blocks
//! to an abandoned heap, the thread becomes the owner of this heap until it has put the blocks back
//! into the heap's pools.

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

/// The limit for the total size of the freed blocks that wait in all inboxes, in bytes. When a
/// thread that sends blocks finds that more bytes wait, it takes over inboxes and purges pages of
/// the waiting blocks. The limit is as large as the limit of [retained
/// arenas](raw_mem::RetainingArenas).
const MOST_WAITING: usize = 16 << 20;

/// The number of bytes that an inbox receives between two checks of [`MOST_WAITING`]. A check adds
/// up the bytes that wait in all inboxes, so checking after every batch would be too slow.
const STEP: usize = 256 << 10;

/// Exclusive ownership of a heap. Dropping an `Owner` abandons its heap.
///
/// [`Heaps::open`] returns an `Owner`, and [`PerThread`](crate::PerThread) uses an `Owner` for
/// every thread. An `Owner` cannot be copied, and every operation that changes the heap borrows the
/// `Owner` mutably. No two operations can therefore change the heap at the same time.
///
/// An `Owner` must stay on its thread, because the child of a fork regards the heaps of all threads
/// except the forking one as lost. [`OwnedHeap`](crate::OwnedHeap) is an owner that may move to
/// another thread.
///
/// When the heap is abandoned, its live blocks stay valid. Another owner can adopt the abandoned
/// heap later.
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
    /// This value owns the heap. A second `Owner` of the same heap may exist temporarily, but the
    /// two must never be used at the same time, and the second `Owner` must never be dropped.
    heap: &'static ThreadHeap<P>,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl<P: Parts> Owner<P> {
    /// Creates the owner of `heap`.
    ///
    /// # Safety
    ///
    /// - The caller must own the heap.
    /// - The caller may keep its own ownership. In that case, the heap must be used only through
    ///   the returned value as long as that value is in use, and the returned value must not be
    ///   dropped.
    #[inline]
    pub(crate) unsafe fn new(heap: &'static ThreadHeap<P>) -> Self {
        // INVARIANT: the caller owned the heap (contract of `new`).
        Self { heap, stays_on_its_thread: PhantomData }
    }

    /// Makes the caller the owner of `heap` if the heap is abandoned. Returns `None` if the heap
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

    /// Returns the tag of the heap, which can be found from every block of the heap. No two heaps
    /// have the same tag.
    pub fn tag(&self) -> HeapTag {
        self.heap.tag()
    }

    /// Allocates a block of `class` from the free list of the first pool of that class. Returns
    /// `None` if this free list is empty. The caller should then call [`alloc`](Self::alloc), which
    /// tries every other way to get a block.
    #[inline]
    pub fn alloc_listed(&mut self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        unsafe { self.heap.alloc_listed(class) }
    }

    /// Allocates an uninitialised block of `class`. Returns `None` if the block needs a new arena
    /// and no arena can be mapped.
    #[inline]
    pub fn alloc(&mut self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // We use a copy of this value, because the compiler can keep a copy in a register. A
        // reference to `self` would force the value into memory, so the fast path would need a
        // stack frame.
        // SAFETY: this value owns the heap (invariant), and is not used as long as the copy is in
        // use. The copy is not dropped.
        let mut owner = ManuallyDrop::new(unsafe { Self::new(self.heap) });
        owner.reclaim_inbox();
        let block = owner.enter(|own| own.alloc(class));
        block.or_else(|| Self::alloc_after_flush(owner, class))
    }

    /// Allocates a block of `class` after an arena could not be mapped. First unmaps all free
    /// arenas that the heap and the source retain, because the source may then be able to map an
    /// arena.
    #[cold]
    fn alloc_after_flush(
        mut owner: ManuallyDrop<Self>,
        class: SizeClass<P::Geometry>,
    ) -> Option<BlockPtr> {
        owner.flush();
        owner.enter(|own| own.alloc(class))
    }

    /// Frees a block of this heap, or of any other heap that uses the same arena source. A block of
    /// another heap first goes to the outbox, from which it is later sent to the owner of its heap
    /// together with other blocks. It is sent no later than in the next call of
    /// [`flush`](Self::flush).
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

    /// Puts a block of another heap into the outbox. If the outbox is full, or contains blocks of a
    /// third heap, sends these blocks first.
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
            // SAFETY: this value owns the heap (invariant). The outbox has room for the block, and
            // whoever has the `BlockPtr` exclusively owns the block.
            let add =
                |outbox: *mut Outbox<_>| unsafe { (*outbox).add(receiver, block.into_start()) };
            self.heap.outbox.with_mut(add);
        } else {
            // SAFETY: this value owns the heap, and does not use it in the meantime.
            unsafe { Self::post_after_sending(self.heap, block) };
        }
    }

    /// Sends the blocks in the outbox, and then puts `block` into the outbox. The function is never
    /// inlined and takes no reference to an `Owner`. If the outbox has room, its caller
    /// [`post`](Self::post) therefore needs no stack frame.
    ///
    /// # Safety
    ///
    /// - The requirements of [`new`](Self::new) and [`post`](Self::post) must be met.
    #[cold]
    #[inline(never)]
    unsafe fn post_after_sending(heap: &'static ThreadHeap<P>, block: BlockPtr) {
        // SAFETY: the caller owns the heap and does not use it during this call (contract). The new
        // value is not dropped.
        let mut owner = ManuallyDrop::new(unsafe { Self::new(heap) });
        owner.send_outbox();
        // SAFETY: the block belongs to another heap over the same source (contract).
        unsafe { owner.post(block) };
    }

    /// Returns unused memory to the system. Call this function before the owner becomes idle.
    ///
    /// - Sends the blocks in the outbox to the heaps that they belong to.
    /// - Reclaims the blocks of this heap that other threads have freed.
    /// - Unmaps every empty arena of this heap, and every arena that the source retains.
    /// - Takes over the inboxes of all other heaps, and purges the pages that contain only blocks
    ///   waiting in an inbox.
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

    /// Sends the blocks in the outbox. Before that, reclaims the blocks in the inbox. The fast
    /// paths of freeing and allocating never look at the inbox. A thread that uses only these fast
    /// paths, and sends its outbox from time to time, would otherwise never reclaim the blocks in
    /// its inbox.
    fn send_outbox(&mut self) {
        self.reclaim_inbox();
        let packed = self.heap.outbox.with_mut(|outbox| {
            // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
            let (receiver, blocks) = unsafe { &mut *outbox }.take()?;
            // SAFETY: the heap of a block in the outbox treats the block as in use until the owner
            // of that heap reclaims it.
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
        // SAFETY: other threads push only blocks of this heap to its inbox.
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

    /// Frees the blocks in a table. A thread that took over the inbox of this heap has collected
    /// the blocks in the table.
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
        // If a model has failed and its threads unwind, loom does not allow further accesses to its
        // objects, so we do not abandon the heap.
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
    /// Pushes `nodes`, which contain freed blocks of this heap, to the inbox of the heap. If the
    /// heap has no owner, the caller instead becomes its owner, puts the blocks back into the
    /// heap's pools, and abandons the heap again. Returns true if the blocks now wait in the inbox.
    pub(super) fn deliver(&'static self, nodes: Segment<Batch>) -> bool {
        let Some(nodes) = self.inbox.push(nodes) else { return true };
        // SAFETY: the inbox returned the nodes, which means that the caller is now the owner of the
        // heap.
        let mut owner = unsafe { Owner::new(self) };
        // SAFETY: every caller passes only blocks of this heap.
        unsafe { owner.reclaim(nodes.into_chain()) };
        false
    }
}

impl<P: Parts> Heaps<P> {
    /// Frees a block. The block is sent to the owner of its heap at once. This function is meant
    /// for a thread that has no heap, and therefore no outbox in which it could collect blocks.
    ///
    /// # Safety
    ///
    /// - `block` must have come from one of these heaps.
    /// - Nobody may use the block any more.
    // This function is never inlined, so that its caller needs no stack frame on the common path,
    // which does not call this function.
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

    /// Sends freed blocks to `receiver`, which is the heap that they belong to. If the owner of
    /// `receiver` does not reclaim blocks, more and more blocks wait in the inbox. This function
    /// therefore also enforces the limit [`MOST_WAITING`].
    fn send(&self, receiver: NonNull<ThreadHeap<P>>, batches: Batches) {
        // SAFETY: the receiver is in the list of heaps, and the heaps in the list live forever.
        let receiver: &'static ThreadHeap<P> = unsafe { receiver.as_ref() };
        let is_waiting = receiver.deliver(batches.nodes);
        if is_waiting && receiver.inbox.count(batches.bytes, STEP) {
            self.limit_waiting();
        }
    }

    /// Adds up the sizes of the blocks that wait in all inboxes. If the sum is more than
    /// [`MOST_WAITING`] bytes, takes over inboxes. O(heaps).
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
        // The calling thread may be freeing a block, and freeing must not change `errno`.
        preserving_errno(|| {
            for heap in self.list.iter().filter(|heap| heap.inbox.waiting() >= least) {
                self.take_over(heap);
            }
        });
    }

    /// Takes the waiting blocks out of the inbox of `heap`, purges the pages that contain only
    /// these blocks, and pushes the blocks back to the inbox.
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
