//! The owner of a heap, and how a freed block is returned to that owner.

use std::{fmt, marker::PhantomData, mem::ManuallyDrop, ptr::NonNull};

use obmalloc::{BlockPtr, Heap, HeapTag, LiveBlock, PurgePolicy, SizeClass, Stats};
use raw_mem::preserving_errno;
use sync::{
    atomic::Ordering::Relaxed,
    link::{Chain, Segment},
};

use super::{Heaps, OwnHeap, ThreadHeap};
use crate::{
    before_refusal,
    freed::{
        batch::{Batch, Batches, Kind},
        inbox::Inbox,
        outbox::Outbox,
        takeover,
        waiting_pools::{MEDIUM, SMALL, WaitingPools},
    },
    parts::Parts,
};

/// The number of freed bytes that may wait for idle owners before their pages are purged.
const MOST_WAITING: usize = 16 << 20;

/// The number of freed bytes that may wait for all owners together before their pages are purged.
const MOST_WAITING_FOR_ALL: usize = 4 * MOST_WAITING;

/// After an inbox has received this many bytes, we check whether [`MOST_WAITING`] is exceeded. The
/// check is slow.
const STEP: usize = 256 << 10;

/// Exclusive ownership of a heap. Dropping an `Owner` abandons its heap.
///
/// The live blocks of an abandoned heap stay valid, and another owner can adopt the heap later.
///
/// A forked child contains only the thread that called `fork`, and any other thread may have been
/// changing its heap at that moment. The child can therefore use only the heaps of the forking
/// thread. An `Owner` cannot be sent to another thread, so no thread ever gets the heap of another
/// thread. An [`OwnedHeap`](crate::OwnedHeap) can be sent, but the program must ensure that a
/// forked child uses no `OwnedHeap` that another thread was using during the fork.
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
    /// This value owns the heap.
    ///
    /// An `Owner` and its copies must not be used at the same time. Only one of these values may be
    /// dropped.
    heap: &'static ThreadHeap<P>,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl<P: Parts> Owner<P> {
    /// Creates the owner of `heap`.
    ///
    /// # Safety
    ///
    /// - The caller must own `heap`.
    /// - While the returned `Owner` exists, the caller must use `heap` only through this `Owner`.
    /// - A caller that wants to remain the owner must not drop the returned `Owner`, because
    ///   dropping it abandons the heap.
    #[inline]
    pub(crate) unsafe fn new(heap: &'static ThreadHeap<P>) -> Self {
        // INVARIANT: the caller owned the heap (contract of `new`).
        Self { heap, stays_on_its_thread: PhantomData }
    }

    /// Makes the caller the owner of `heap`. Returns `None` if the heap already has an owner.
    pub(crate) fn adopt(heap: &'static ThreadHeap<P>) -> Option<Self> {
        // SAFETY: the heap had no owner, and the caller has just become its owner.
        heap.inbox.adopt().then(|| unsafe { Self::new(heap) })
    }

    /// Sets when the heap returns free memory to the system automatically. See [`PurgePolicy`].
    pub fn set_purge_policy(&mut self, policy: PurgePolicy) {
        self.enter(|own| own.set_purge_policy(policy));
    }

    /// Carves all future pools so that their blocks begin at the same offset as in CPython.
    pub(crate) fn shift_blocks(&mut self) {
        self.heap.is_shifted.store(true, Relaxed);
        self.enter(|own| own.begin_blocks_as_in_cpython());
    }

    #[inline]
    pub(crate) fn heap(&self) -> &'static ThreadHeap<P> {
        self.heap
    }

    /// Returns the tag of the heap, which is unique. Each block of the heap leads to the tag.
    pub fn tag(&self) -> HeapTag {
        self.heap.tag()
    }

    /// Allocates from the free list of the class's first pool.
    ///
    /// Returns `None` if this list is empty. The caller should then call [`alloc`](Self::alloc).
    #[inline]
    pub fn alloc_listed(&mut self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
        unsafe { self.heap.alloc_listed(class) }
    }

    /// Allocates an uninitialised block. Returns `None` if no arena can be mapped for it.
    #[inline]
    pub fn alloc(&mut self, class: SizeClass<P::Geometry>) -> Option<BlockPtr> {
        // We use a copy of `self`. It can stay in a register, so the fast path needs no stack
        // frame.
        // SAFETY: this value owns the heap (invariant). The copy replaces it and is not dropped.
        let mut owner = ManuallyDrop::new(unsafe { Self::new(self.heap) });
        if let Some(block) = owner.enter_slowly(|own| own.alloc_from_next_pool(class)) {
            return Some(block);
        }
        owner.reclaim_inbox();
        let block = owner.enter_slowly(|own| own.alloc(class));
        block.or_else(|| Self::alloc_after_flush(owner, class))
    }

    /// Allocates a block whose first `bytes` bytes are zero. See [`Heap::alloc_zeroed`].
    ///
    /// Returns `None` if no arena can be mapped for it.
    pub fn alloc_zeroed(
        &mut self,
        class: SizeClass<P::Geometry>,
        bytes: usize,
    ) -> Option<BlockPtr> {
        self.reclaim_inbox();
        let block = self.enter_slowly(|own| own.alloc_zeroed(class, bytes));
        block.or_else(|| self.retry(|own| own.alloc_zeroed(class, bytes)))
    }

    /// Allocates a block of `class` at a multiple of `align` bytes. See [`Heap::alloc_aligned`].
    pub fn alloc_aligned(
        &mut self,
        class: SizeClass<P::Geometry>,
        align: usize,
    ) -> Option<BlockPtr> {
        self.reclaim_inbox();
        let block = self.enter_slowly(|own| own.alloc_aligned(class, align));
        block.or_else(|| self.retry(|own| own.alloc_aligned(class, align)))
    }

    #[cold]
    fn alloc_after_flush(
        mut owner: ManuallyDrop<Self>,
        class: SizeClass<P::Geometry>,
    ) -> Option<BlockPtr> {
        owner.retry(|own| own.alloc(class))
    }

    /// Retries a request that has failed. The first retry follows a flush, and the second one
    /// follows the program's callback.
    ///
    /// We skip the flush if three conditions hold: the last flush of this heap did not help, no
    /// memory has been returned to the arena source since then, and this heap retains nothing.
    /// Another flush is then unlikely to help. Without this rule, a program that keeps running at
    /// its limit could spend most of its time in flushes.
    #[cold]
    fn retry(&mut self, request: impl Fn(&mut OwnHeap<P>) -> Option<BlockPtr>) -> Option<BlockPtr> {
        // We forget earlier refusals, so that the callback is called only if a limit refuses the
        // first retry.
        before_refusal::note(None);
        self.send_outbox();
        let returned = preserving_errno(|| self.heap.heaps.shared.lock().returned);
        if self.heap.vain_flush.load(Relaxed) != returned || self.retains() {
            self.flush();
        }
        // The callback may allocate and free, because this owner does not use the heap during the
        // call.
        self.enter_slowly(&request).or_else(|| {
            self.heap.vain_flush.store(returned, Relaxed);
            let may_retry = self.heap.heaps.ask_before_refusal();
            self.reclaim_inbox();
            if may_retry { self.enter_slowly(&request) } else { None }
        })
    }

    /// Returns true if the heap retains an arena or a large block.
    fn retains(&self) -> bool {
        self.retained_arenas() > 0 || self.granted_large() > 0
    }

    /// Frees a block of this heap, or of another heap that uses the same arena source.
    ///
    /// Blocks of another heap are sent to that heap in batches. [`flush`](Self::flush) sends the
    /// blocks that are left.
    ///
    /// # Safety
    ///
    /// - `block` must have come from a heap over the same source.
    /// - `block` must not be used afterwards.
    #[inline]
    pub unsafe fn free(&mut self, block: BlockPtr) {
        // SAFETY: this value owns the heap (invariant). The block has the same source (contract).
        if let Some(block) = unsafe { self.heap.free_if_own(block) } {
            // SAFETY: the block belongs to another heap over the same source (contract of `free`).
            unsafe { self.free_elsewhere(block) };
        }
    }

    /// Does the same as [`free`](Self::free) for a linked block or a span, but is faster.
    ///
    /// # Safety
    ///
    /// - The requirements of [`free`](Self::free) must be met.
    /// - The class of `block` must be [linked](SizeClass::is_linked) or
    ///   a [span](SizeClass::is_span).
    #[inline]
    pub unsafe fn free_linked_or_span(&mut self, block: BlockPtr) {
        // SAFETY: this value owns the heap (invariant). The block is linked or a span, and came
        // from the same source (contract).
        if let Some(block) = unsafe { self.heap.free_linked_or_span_if_own(block) } {
            // SAFETY: the block belongs to another heap over the same source (contract).
            unsafe { self.free_elsewhere(block) };
        }
    }

    /// Frees a block of another heap. It is not inlined, so [`free`](Self::free) needs no stack
    /// frame.
    ///
    /// # Safety
    ///
    /// - The requirements of [`post`](Self::post) must be met.
    #[cold]
    #[inline(never)]
    unsafe fn free_elsewhere(&mut self, block: BlockPtr) {
        // SAFETY: the requirements of `post` are met (contract of `free_elsewhere`).
        unsafe { self.post_or_send(block) };
    }

    /// Frees a block of another heap.
    ///
    /// A block that is alone in its pool may be large, so it is sent to its heap immediately.
    ///
    /// # Safety
    ///
    /// - The requirements of [`post`](Self::post) must be met.
    #[inline]
    pub(crate) unsafe fn post_or_send(&mut self, block: BlockPtr) {
        // SAFETY: the block is in use, in a heap over the same source (contract).
        if unsafe { ThreadHeap::<P>::is_span(block.start()) } {
            // SAFETY: as above.
            unsafe { self.heap.heaps.free_remote(block) };
        } else {
            // SAFETY: the contract is the same.
            unsafe { self.post(block) };
        }
    }

    /// Puts a block of another heap into the outbox. If there is no room, sends the outbox first.
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
            // SAFETY: this value owns the heap (invariant). The outbox has room, and we own the
            // block.
            let add =
                |outbox: *mut Outbox<_>| unsafe { (*outbox).add(receiver, block.into_start()) };
            self.heap.outbox.with_mut(add);
        } else {
            // SAFETY: this value owns the heap, and does not use it in the meantime.
            unsafe { Self::post_after_sending(self.heap, block) };
        }
    }

    /// Sends the blocks in the outbox, and then puts `block` into the outbox.
    ///
    /// This function is not inlined and takes no `Owner`, so [`post`](Self::post) needs no stack
    /// frame.
    ///
    /// # Safety
    ///
    /// - The requirements of [`new`](Self::new) and [`post`](Self::post) must be met.
    #[cold]
    #[inline(never)]
    unsafe fn post_after_sending(heap: &'static ThreadHeap<P>, block: BlockPtr) {
        // SAFETY: the caller owns the heap (contract) and does not use it. The copy is not dropped.
        let mut owner = ManuallyDrop::new(unsafe { Self::new(heap) });
        owner.send_outbox();
        // SAFETY: the block belongs to another heap over the same source (contract).
        unsafe { owner.post(block) };
    }

    /// Returns unused memory to the system. Call this function before the owner becomes idle.
    ///
    /// This function takes the following steps:
    /// - It returns blocks that this owner has freed to the heaps that they came from.
    /// - It reclaims blocks of this heap that other threads have freed.
    /// - It unmaps all empty arenas of this heap and of the arena source.
    /// - In this heap and in abandoned heaps, it purges all pages without a live block.
    /// - In all other heaps, it purges pages that consist only of freed blocks.
    ///
    /// The result is the number of bytes returned to the system. Some of these bytes may never have
    /// been in memory.
    pub fn flush(&mut self) -> usize {
        self.send_outbox();
        self.heap.heaps.flush_others() + self.enter_slowly(Heap::trim)
    }

    /// Lets the heap return memory that has been free for a long time. See [`Heap::visit`].
    #[inline]
    pub fn visit(&mut self) {
        self.enter_slowly(Heap::visit);
    }

    /// Counts the memory in use in this heap. O(pools).
    pub fn stats(&self) -> Stats {
        self.read(Heap::stats)
    }

    /// Calls `visit` with each block in use, except those that wait in the inbox.
    ///
    /// `visit` must not use the heap in any other way.
    pub(super) fn for_each_block(&self, visit: impl FnMut(LiveBlock)) {
        self.read(|own| own.for_each_block(visit));
    }

    pub(crate) fn retained_arenas(&self) -> usize {
        self.read(Heap::retained_arenas)
    }

    /// Returns the number of slots of large mappings that the source allows this heap to retain.
    pub(crate) fn granted_large(&self) -> usize {
        self.read(Heap::granted_large)
    }

    /// Checks every invariant of the heap. For tests.
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

    /// Calls `visit` with the heap. `visit` may change which large blocks the heap retains.
    #[inline]
    pub(super) fn enter_slowly<R>(&mut self, visit: impl FnOnce(&mut OwnHeap<P>) -> R) -> R {
        let heap = self.heap;
        self.enter(|own| {
            let result = visit(own);
            heap.publish_retained(own);
            result
        })
    }

    fn read<R>(&self, visit: impl FnOnce(&OwnHeap<P>) -> R) -> R {
        // SAFETY: this value owns the heap (invariant). It is borrowed, so the heap does not
        // change.
        self.heap.own.with(|own| visit(unsafe { &*own }))
    }

    /// Sends the outbox. Also reclaims the inbox, because the fast paths never reclaim it.
    pub(super) fn send_outbox(&mut self) {
        self.reclaim_inbox();
        let packed = self.heap.outbox.with_mut(|outbox| {
            // SAFETY: this value owns the heap (invariant), and is borrowed mutably.
            let (receiver, blocks) = unsafe { &mut *outbox }.take()?;
            // SAFETY: a block in the outbox stays in use until the owner of its heap reclaims it.
            let size = |block| unsafe { ThreadHeap::<P>::size_of_block(block) };
            // SAFETY: the outbox gave up the blocks, which have at least `LEAST_BLOCK` bytes.
            Some((receiver, unsafe { Batches::pack(blocks, size) }?))
        });
        if let Some((receiver, batches)) = packed {
            self.heap.heaps.send(receiver, batches);
        }
    }

    #[inline]
    pub(super) fn reclaim_inbox(&mut self) {
        let nodes = self.heap.inbox.take_all();
        if !nodes.is_empty() {
            // SAFETY: other threads push only blocks of this heap to its inbox.
            unsafe { self.reclaim(nodes) };
        }
    }

    /// Frees the blocks of `nodes`.
    ///
    /// # Safety
    ///
    /// - The blocks of `nodes` must belong to this heap.
    unsafe fn reclaim(&mut self, nodes: Chain<Batch>) {
        for node in nodes {
            // SAFETY: we own the node, which is a packed batch or the head of a table.
            match unsafe { Batch::kind(node) } {
                Kind::Blocks(_) => {}
                Kind::TableOf(SMALL) => {
                    // SAFETY: the node is a table. The blocks belong to this heap (contract).
                    unsafe { self.reclaim_table::<SMALL>(node) };
                    continue;
                }
                Kind::TableOf(_) => {
                    // SAFETY: as above.
                    unsafe { self.reclaim_table::<MEDIUM>(node) };
                    continue;
                }
            }
            // SAFETY: we own the node, which is a packed batch.
            unsafe { takeover::note_reused::<P>(node) };
            // SAFETY: the blocks belong to this heap (contract of `reclaim`).
            let free = |start| unsafe { self.free_own(start) };
            // SAFETY: a sender packed the batch and gave up its ownership of it.
            unsafe { Batch::unpack(node, free) };
        }
    }

    /// Frees the blocks in a table that another thread has built from this heap's inbox.
    ///
    /// # Safety
    ///
    /// - `node` must be the node of a `WaitingPools<_, PAGES>` of this heap's blocks.
    /// - The caller must own `node` exclusively.
    #[cold]
    #[inline(never)]
    unsafe fn reclaim_table<const PAGES: usize>(&mut self, node: NonNull<Batch>) {
        // SAFETY: we own `node`, which is the head of a table (contract of `reclaim_table`).
        let table = unsafe { WaitingPools::<P::Geometry, PAGES>::from_node(node) };
        let lower = self.heap.heaps.shared.lower();
        // SAFETY: the block belongs to this heap (contract of `reclaim_table`).
        table.unload(lower, |start| unsafe { self.free_own(start) });
    }

    /// Frees a block of this heap.
    ///
    /// # Safety
    ///
    /// - `start` must be a block that was allocated by this heap and is no longer used.
    #[inline]
    unsafe fn free_own(&mut self, start: NonNull<u8>) {
        // SAFETY: the block is no longer used (contract of `free_own`).
        let block = unsafe { BlockPtr::from_start(start) };
        // SAFETY: the block belongs to this heap (contract of `free_own`), and this value owns the
        // heap (invariant).
        unsafe { self.heap.free_own(block) };
    }
}

impl<P: Parts> Drop for Owner<P> {
    fn drop(&mut self) {
        // Loom does not allow further accesses to its objects while a failed model unwinds.
        if sync::IS_MODEL && std::thread::panicking() {
            return;
        }
        self.send_outbox();
        loop {
            self.reclaim_inbox();
            self.enter_slowly(Heap::unmap_free_arenas);
            if self.heap.inbox.abandon() {
                break;
            }
        }
        self.heap.heaps.stack(self.heap);
    }
}

impl<P: Parts> fmt::Debug for Owner<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owner").field(&self.heap).finish()
    }
}

impl<P: Parts> ThreadHeap<P> {
    /// Pushes freed blocks of this heap to its inbox. Returns true if the blocks now wait there.
    ///
    /// If the heap has no owner, the caller owns the heap during this call, and frees the blocks
    /// itself.
    pub(super) fn deliver(&'static self, nodes: Segment<Batch>) -> bool {
        let Some(nodes) = self.inbox.push(nodes) else { return true };
        // SAFETY: the inbox returned the nodes, so the caller is now the owner of the heap.
        let mut owner = unsafe { Owner::new(self) };
        // SAFETY: every caller passes only blocks of this heap.
        unsafe { owner.reclaim(nodes.into_chain()) };
        false
    }
}

impl<P: Parts> Heaps<P> {
    /// Frees a block by sending it to the owner of its heap immediately.
    ///
    /// This function is meant for threads that have no heap. An [`Owner`] sends blocks in batches.
    ///
    /// # Safety
    ///
    /// - `block` must have come from one of these heaps.
    /// - `block` must not be used afterwards.
    #[inline(never)] // The caller then needs no stack frame on its common path.
    pub unsafe fn free_remote(&self, block: BlockPtr) {
        let start = block.into_start();
        // SAFETY: the block is in use, in one of these heaps (contract of `free_remote`).
        let receiver = unsafe { ThreadHeap::of_block(start) };
        // SAFETY: as above.
        let size = unsafe { ThreadHeap::<P>::size_of_block(start) };
        // SAFETY: the caller gives up the block, and every block has at least `LEAST_BLOCK` bytes.
        self.send(receiver, unsafe { Batches::of(start, size) });
    }

    /// Sends freed blocks to the heap that they belong to. Also limits the number of bytes that
    /// wait in all inboxes.
    fn send(&self, receiver: NonNull<ThreadHeap<P>>, batches: Batches) {
        // SAFETY: the receiver is in the list of heaps, and the heaps in the list live forever.
        let receiver: &'static ThreadHeap<P> = unsafe { receiver.as_ref() };
        let is_waiting = receiver.deliver(batches.nodes);
        if is_waiting && receiver.inbox.count(batches.bytes, STEP) {
            self.limit_waiting();
        }
    }

    /// Takes over inboxes if too many bytes wait in them.
    ///
    /// Blocks freed by other threads wait in the inbox of their heap until the owner of the heap
    /// reclaims them. There are two limits for the number of waiting bytes:
    /// - If more than [`MOST_WAITING`] bytes wait in the inboxes of idle owners, we take over these
    ///   inboxes in order to purge their pages.
    /// - If more than [`MOST_WAITING_FOR_ALL`] bytes wait in all inboxes together, we also take
    ///   over the inboxes of active owners. This limit is higher, because an active owner is likely
    ///   to reclaim and reuse its blocks soon.
    ///
    /// We skip inboxes in which fewer than [`STEP`] bytes wait. O(heaps).
    #[cold]
    #[inline(never)]
    fn limit_waiting(&self) {
        let now = raw_mem::coarse_now().as_millis() as usize;
        let (mut for_idle, mut for_all) = (0_usize, 0_usize);
        for inbox in self.list.iter().map(|heap| &heap.inbox) {
            let waiting = inbox.waiting();
            for_all = for_all.saturating_add(waiting);
            if inbox.is_idle(now) {
                for_idle = for_idle.saturating_add(waiting);
            }
        }
        if for_all > MOST_WAITING_FOR_ALL {
            self.take_over_inboxes(|inbox| inbox.waiting() >= STEP);
        } else if for_idle > MOST_WAITING {
            self.take_over_inboxes(|inbox| inbox.waiting() >= STEP && inbox.is_idle(now));
        }
    }

    /// Purges the pages of freed blocks that wait in inboxes, and the unused pages of abandoned
    /// heaps.
    ///
    /// The result is the number of bytes returned to the system.
    pub(crate) fn flush_others(&self) -> usize {
        let mut bytes = self.take_over_inboxes(|inbox| inbox.waiting() > 0);
        for mut owner in self.list.iter().filter_map(Owner::adopt) {
            bytes += owner.enter(Heap::trim);
        }
        bytes
    }

    /// Purges pages of freed blocks in all inboxes for which `is_chosen` returns true.
    ///
    /// Returns the number of bytes that were returned to the system. The function does nothing and
    /// returns 0 in two cases:
    /// - Another thread is already running this function.
    /// - An earlier purge has failed, for example because the process has locked its memory.
    ///   Another purge would probably fail too.
    ///
    /// The cost is linear in the number of heaps and waiting blocks, plus a system call for each
    /// range of pages.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_over_inboxes(&self, is_chosen: impl Fn(&Inbox<Batch>) -> bool) -> usize {
        if self.shared.purges_are_refused.load(Relaxed) {
            return 0;
        }
        let Some(_guard) = sync::try_lock(&self.takeovers) else { return 0 };
        // The caller may be freeing a block, which must not change `errno`.
        preserving_errno(|| {
            let heaps = self.list.iter().filter(|heap| is_chosen(&heap.inbox));
            heaps.map(|heap| self.take_over(heap)).sum()
        })
    }

    fn take_over(&self, heap: &'static ThreadHeap<P>) -> usize {
        let bytes = heap.inbox.restart_count();
        let Some(nodes) = heap.inbox.take_over() else { return 0 };
        let (nodes, has_others, purged) = takeover::purge(&self.shared, nodes, bytes);
        let Some(nodes) = nodes else { return purged };
        if !has_others {
            heap.inbox.note_purged(bytes);
        }
        match heap.deliver(nodes) {
            true if has_others => _ = heap.inbox.count(bytes, STEP),
            true => {}
            false => heap.inbox.forget_purged(),
        }
        purged
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::vec::Vec;

    use raw_mem::{Limits, Malloc, MmapArenas, ReservedArenas};

    use super::*;
    use crate::{ThreadGeometry, heap_list::visits};

    type TestParts = (MmapArenas, Malloc, ThreadGeometry);

    const LIMIT: usize = 8 << 20;

    /// Allocates spans until the limit is reached.
    fn fill<P: Parts>(owner: &mut Owner<P>) -> Vec<BlockPtr> {
        let class = SizeClass::of(100_000).unwrap();
        std::iter::from_fn(|| owner.alloc(class)).collect()
    }

    /// Frees blocks of `owner`, or of another heap with the same source.
    fn free<P: Parts>(owner: &mut Owner<P>, blocks: Vec<BlockPtr>) {
        for block in blocks {
            // SAFETY: the block came from a heap of the same source, and is not used again.
            unsafe { owner.free(block) };
        }
    }

    /// Regression test: each request that got no arena searched all heaps and all pools.
    #[test]
    fn a_flush_that_did_not_help_is_repeated_only_after_memory_was_returned() {
        static HEAPS: Heaps<TestParts> = Heaps::new(MmapArenas::new(), Malloc);
        let (mut mine, mut other) = (HEAPS.open().unwrap(), HEAPS.open().unwrap());
        let large = HEAPS.alloc_large(2 << 20, 16).unwrap().block;
        HEAPS.lock_source().set_limits(Limits::hard(LIMIT));
        let blocks = fill(&mut mine);
        assert!(!blocks.is_empty());
        let refusals = |owner: &mut Owner<_>| {
            visits::during(|| (0..100).for_each(|_| assert!(fill(owner).is_empty())))
        };
        assert_eq!(refusals(&mut mine), 0);
        assert!(refusals(&mut other) > 0, "this heap was not flushed yet");
        assert_eq!(refusals(&mut other), 0);
        // SAFETY: the block came from this family, and is not used again.
        unsafe { HEAPS.free_large(large) };
        HEAPS.lock_source().set_limits(Limits::hard(0));
        assert!(refusals(&mut mine) > 0);
        assert_eq!(refusals(&mut mine), 0);
        free(&mut mine, blocks);
    }

    #[test]
    fn a_retained_large_block_makes_room_for_spans_after_a_flush_in_vain() {
        static HEAPS: Heaps<(ReservedArenas<MmapArenas>, Malloc, ThreadGeometry)> =
            Heaps::new(ReservedArenas::new(MmapArenas::new()), Malloc);
        let mut owner = HEAPS.open().unwrap();
        let alloc_large = |owner: &mut Owner<_>| owner.alloc_large(2 << 20, 16).unwrap().block;
        // SAFETY: the block came from this family, and is not used again.
        let free_large = |owner: &mut Owner<_>, block| unsafe { owner.free_large(block) };
        // The source lets a heap retain a large block only if such blocks were freed and requested
        // again before.
        for _ in 0..4 {
            let block = alloc_large(&mut owner);
            free_large(&mut owner, block);
        }
        HEAPS.lock_source().set_limits(Limits::hard(LIMIT));
        let mut blocks = fill(&mut owner);
        assert!(fill(&mut owner).is_empty());
        HEAPS.lock_source().set_limits(Limits::hard(LIMIT + (3 << 20)));
        let large = alloc_large(&mut owner);
        blocks.extend(fill(&mut owner));
        free_large(&mut owner, large);
        assert!(owner.granted_large() > 0, "the heap retains the block");
        let more = fill(&mut owner);
        assert!(!more.is_empty());
        blocks.extend(more);
        free(&mut owner, blocks);
    }

    /// Regression test: spans counted as waiting even after their pages were purged.
    #[test]
    fn purged_blocks_do_not_count_as_waiting() {
        for size in [128, 3000, 50_000, 200_000] {
            static HEAPS: Heaps<TestParts> = Heaps::new(MmapArenas::new(), Malloc);
            blocks_are_purged(&HEAPS, size);
        }
    }

    fn blocks_are_purged(heaps: &'static Heaps<TestParts>, size: usize) {
        let (mut idle, mut mine) = (heaps.open().unwrap(), heaps.open().unwrap());
        let class = SizeClass::of(size).unwrap();
        let blocks: Vec<_> = (0..(1 << 20) / size).map(|_| idle.alloc(class).unwrap()).collect();
        for block in blocks {
            // SAFETY: the block came from a heap of the same source, and is not used again.
            unsafe { mine.free(block) };
        }
        assert!(idle.heap().inbox.waiting() > 0);
        // This flush sends the remaining blocks, and takes over the inbox.
        mine.flush();
        assert_eq!(idle.heap().inbox.waiting(), 0, "{size} bytes");
        assert_eq!(heaps.figures().allocated(), 0, "{size} bytes");
        assert!(idle.stats().bytes.in_use > 0, "the owner has not reclaimed the blocks");
        idle.flush();
        assert_eq!((idle.stats().bytes.in_use, heaps.figures().allocated()), (0, 0));
    }
}
