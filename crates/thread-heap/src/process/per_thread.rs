//! An allocator that uses the heap of the calling thread.

use std::{
    mem::ManuallyDrop,
    ptr::{self, NonNull},
    time::Duration,
};

use obmalloc::{ArenaTotals, BlockPtr, Blocks, LiveBlock, SizeClass, Stats};
use raw_mem::{HugePages, LimitReached, Limits, MemoryPressure};
use sync::atomic::Ordering::Relaxed;

use super::{
    decay, exit, fork,
    heaps::{CurrentParts, HEAPS, NO_HEAP},
    slot,
};
use crate::{
    heaps::{ThreadHeap, figures::Figures, owner::Owner, stats::HeapsStats},
    parts::ThreadGeometry,
};

/// An allocator that gives each thread of the process its own heap.
///
/// Any thread may free any block. A block is aligned to the largest power of two that divides its
/// size, but at most to 16 KiB: a 64-byte block is aligned to 64 bytes, and a 48-byte block to 16.
///
/// ```
/// use thread_heap::PerThread;
/// use thread_heap::obmalloc::{Blocks, SizeClass};
///
/// let block = PerThread.alloc(SizeClass::of(100).unwrap()).expect("there is memory");
/// // SAFETY: the block came from these heaps, and is not used again.
/// unsafe { PerThread.free(block) };
/// PerThread.flush();
/// ```
///
/// The allocator also works in a forked child, and in destructors that run when a thread ends. A
/// signal handler must not use the allocator if the signal interrupted a call to the allocator. The
/// same holds if the signal interrupted a call to `malloc`, because the first request of a thread
/// can make the C library call `malloc`, which is not reentrant. A coroutine may move to another
/// thread, but not during a call to the allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerThread;

impl PerThread {
    /// Tells the compiler that the calling thread's heap is about to be used.
    ///
    /// If this function is called before a loop, the compiler loads the offset of the thread-local
    /// slot only once.
    #[inline]
    pub fn prepare(self) {
        slot::prepare();
    }

    /// Counts the memory in use in the calling thread's heap. O(pools).
    ///
    /// Opens a heap if the thread has none. Returns `None` if there is no memory for a new heap.
    pub fn stats(self) -> Option<Stats> {
        with_heap(|owner| owner.stats())
    }

    /// Counts the memory in use in the calling thread's heap and in all abandoned heaps.
    ///
    /// O(heaps + pools).
    pub fn stats_of_all(self) -> HeapsStats {
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        match unsafe { slot::owner() } {
            Some(owner) => HEAPS.stats(&[&*owner]),
            None => HEAPS.stats(&[]),
        }
    }

    /// Returns true if `address` lies in an arena of one of the process's heaps. Takes no lock.
    #[inline]
    pub fn holds(self, address: usize) -> bool {
        HEAPS.holds(address)
    }

    /// Keeps the reserved range of addresses of the process's heaps from growing beyond `bytes`.
    ///
    /// If the address space of the process is limited, call this function before the first request.
    /// The heaps take their arenas from one reserved range of addresses. The range stays reserved
    /// even after its arenas are unmapped, so other parts of the process cannot use these
    /// addresses. When the whole range is in use, the heaps map further arenas outside the range.
    /// If such an arena is unmapped, its addresses become available to the whole process again.
    pub fn reserve_at_most(self, bytes: usize) {
        fork::lock_source().reserve_at_most(bytes);
    }

    /// Counts the memory of the process's heaps, without stopping their owners. O(units).
    pub fn figures(self) -> Figures {
        fork::guard();
        HEAPS.figures()
    }

    /// Like [`figures`](Self::figures), but without the size classes. This needs little stack.
    pub fn totals(self) -> Figures<ArenaTotals> {
        fork::guard();
        HEAPS.totals()
    }

    /// Like [`figures`](Self::figures), but returns `None` if another thread is mapping memory.
    ///
    /// A signal handler may call this function at any time.
    pub fn try_figures(self) -> Option<Figures> {
        HEAPS.try_figures()
    }

    /// Calls `visit` with each block in use of all heaps of the process.
    ///
    /// See [`Heaps::for_each_block`](crate::Heaps::for_each_block).
    ///
    /// # Safety
    ///
    /// - No other thread may allocate or free during the call.
    /// - `visit` must neither allocate nor free.
    pub unsafe fn for_each_block(self, visit: impl FnMut(LiveBlock)) {
        // SAFETY: the contract is the same.
        unsafe { HEAPS.for_each_block(visit) };
    }

    /// Limits the memory of the process's heaps. Memory that is already in use is not affected.
    ///
    /// The limits apply to arenas and large blocks. They are checked whenever memory is mapped.
    pub fn set_limits(self, limits: Limits) {
        fork::lock_source().set_limits(limits);
    }

    /// Sets a callback, which is called before a request is refused because of the hard limit.
    ///
    /// The callback may allocate and free memory. If it returns true, the request that exceeded the
    /// hard limit is tried again. If the callback itself makes a request that exceeds the limit,
    /// that request fails without another call of the callback. If the callback panics, the process
    /// is aborted.
    pub fn before_refusal(self, callback: fn(LimitReached) -> bool) {
        HEAPS.before_refusal(callback);
    }

    /// Returns unused memory to the system. Call this function before the thread becomes idle.
    ///
    /// Flushes the calling thread's heap as [`Owner::flush`] describes. From the heaps of other
    /// running threads, the system gets back only the memory of freed blocks that still wait for
    /// their owners. Once an owner has reclaimed a freed block, the block's memory stays in the
    /// owner's heap. The result is the number of bytes returned to the system. It can include pages
    /// that were never backed by memory, such as parts of an unmapped arena that no block has ever
    /// used.
    pub fn flush(self) -> usize {
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        match unsafe { slot::owner() } {
            Some(mut owner) => owner.flush(),
            None => {
                fork::guard();
                HEAPS.flush_others() + fork::lock_source().trim()
            }
        }
    }

    /// Lets the calling thread's heap, if there is one, return memory that has been free for a long
    /// time.
    pub(super) fn visit_heap(self) {
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        if let Some(mut owner) = unsafe { slot::owner() } {
            owner.visit();
        }
    }

    /// Sets when the process's heaps return free memory to the system automatically.
    ///
    /// A heap returns memory to the system once the memory has been free for the time `decay`. The
    /// default is one second. If `decay` is zero, free memory is returned immediately. If `decay`
    /// is `None`, only [`flush`](Self::flush) returns memory.
    ///
    /// The setting applies to the calling thread's heap and to heaps that are opened later.
    pub fn set_decay(self, decay: Option<Duration>) {
        decay::set(decay);
        self.apply_policy();
    }

    /// Sets whether the process's heaps use huge pages. The default is [`HugePages::Off`].
    ///
    /// Huge pages are used only in the range of addresses that the heaps reserve for their arenas
    /// and large mappings. Memory outside this range has ordinary pages. The
    /// function [`reserve_at_most`](Self::reserve_at_most) limits the size of the range.
    ///
    /// Returning a part of a huge page to the system breaks up the huge page. A heap that uses huge
    /// pages therefore returns only whole arenas, and keeps the free parts of other arenas. It
    /// returns these parts only while memory is short or during a [`flush`](Self::flush).
    ///
    /// Call this function before any thread makes its first request. A heap that another thread has
    /// opened before this call does not get the new setting. It still returns free parts of its
    /// arenas, which breaks up huge pages.
    pub fn use_huge_pages(self, huge: HugePages) {
        decay::use_huge_pages(huge);
        self.apply_policy();
    }

    /// Makes the heaps return unused memory while `pressure` reports that memory is short.
    ///
    /// While memory is short, each thread that makes requests returns the unused memory of its own
    /// heap, at most twice a second. One of these threads also returns the unused memory of
    /// abandoned heaps, and the memory of freed blocks that still wait for the owner of their heap.
    ///
    /// Only the first call of this function has an effect. The setting applies to the calling
    /// thread's heap and to heaps that are opened later, but not to heaps that other threads have
    /// already opened.
    pub fn trim_when_short(self, pressure: MemoryPressure) {
        decay::trim_when_short(pressure);
        self.apply_policy();
    }

    /// Does the same as [`free`](Blocks::free) for a linked block, but is faster.
    ///
    /// # Safety
    ///
    /// - `block` must have come from one of the process's heaps.
    /// - `block` must not be used afterwards.
    /// - The class of `block` must be [linked](SizeClass::is_linked), which means that each free
    ///   block of the class contains a link to the next one.
    #[inline]
    pub unsafe fn free_linked(self, block: BlockPtr) {
        let heap = slot::get();
        // SAFETY: the block is linked and came from these heaps (contract). The calling thread owns
        // the heap in its slot, unless that heap is `NO_HEAP`, which never has an arena.
        if let Some(block) = unsafe { heap.free_linked_or_span_if_own(block) } {
            // SAFETY: `heap` is the heap in the slot, and the block does not belong to it.
            unsafe { free_linked_elsewhere(heap, block) };
        }
    }

    /// Does the same as [`free`](Blocks::free) for a span, but is faster.
    ///
    /// # Safety
    ///
    /// - `block` must have come from one of the process's heaps.
    /// - `block` must not be used afterwards.
    /// - The class of `block` must be a class of [spans](SizeClass::is_span), which are blocks that
    ///   have a pool of their own.
    #[inline]
    pub unsafe fn free_span(self, block: BlockPtr) {
        let heap = slot::get();
        // SAFETY: the block is a span and came from these heaps (contract). The calling thread owns
        // the heap in its slot, unless that heap is `NO_HEAP`, which never has an arena.
        if let Some(block) = unsafe { heap.free_span_if_own(block) } {
            // SAFETY: `heap` is the heap in the slot, and the block does not belong to it.
            unsafe { free_elsewhere(heap, block) };
        }
    }

    /// Allocates a block for `size` bytes from a free list of the calling thread's heap.
    /// See [`Heap::alloc_linked`](obmalloc::Heap::alloc_linked).
    #[inline]
    pub fn alloc_linked(self, size: usize) -> Option<BlockPtr> {
        // SAFETY: the calling thread owns the heap, or it is `NO_HEAP`, which never has an arena.
        unsafe { slot::get().alloc_linked(size) }
    }

    /// Allocates an unlinked block for `size` bytes from a free list of the calling thread's heap.
    /// See [`Heap::alloc_unlinked`](obmalloc::Heap::alloc_unlinked).
    #[inline]
    pub fn alloc_unlinked(self, size: usize) -> Option<BlockPtr> {
        // SAFETY: the calling thread owns the heap, or it is `NO_HEAP`, which never has an arena.
        unsafe { slot::get().alloc_unlinked(size) }
    }

    fn apply_policy(self) {
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        if let Some(mut owner) = unsafe { slot::owner() } {
            owner.set_purge_policy(decay::policy());
        }
    }
}

// SAFETY: the blocks of these heaps overlap neither each other nor other memory. Only the owner of
// a heap enters the heap. The arena map contains the arenas of these heaps and no other memory.
unsafe impl Blocks for PerThread {
    type Geometry = ThreadGeometry;

    #[inline]
    fn alloc_listed(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        // SAFETY: the calling thread owns the heap, or it is `NO_HEAP`, which never has an arena.
        unsafe { slot::get().alloc_listed(class) }
    }

    #[inline]
    fn alloc(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        with_heap(|owner| owner.alloc(class))?
    }

    fn alloc_zeroed(&self, class: SizeClass<ThreadGeometry>, bytes: usize) -> Option<BlockPtr> {
        with_heap(|owner| owner.alloc_zeroed(class, bytes))?
    }

    fn trim(&self) -> usize {
        self.flush()
    }

    #[inline]
    unsafe fn free(&self, block: BlockPtr) {
        let heap = slot::get();
        // SAFETY: the block came from these heaps (contract). The calling thread owns the heap in
        // its slot, unless it is `NO_HEAP`, which never has an arena.
        if let Some(block) = unsafe { heap.free_if_own(block) } {
            // SAFETY: `heap` is the heap in the slot, and the block does not belong to it.
            unsafe { free_elsewhere(heap, block) };
        }
    }

    #[inline]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        if !HEAPS.holds(ptr.addr().get()) {
            return Some(ptr);
        }
        // SAFETY: `ptr` lies in an arena of these heaps, so it is the start of a live block that
        // the caller owns (contract).
        unsafe { self.free(BlockPtr::from_start(ptr)) };
        None
    }

    #[inline]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: a block in an arena of these heaps is in use (contract of `size_if_ours`).
        let size = || unsafe { ThreadHeap::<CurrentParts>::size_of_block(ptr) };
        HEAPS.holds(ptr.addr().get()).then(size)
    }
}

/// Frees a block that does not belong to the calling thread's heap.
///
/// # Safety
///
/// - `heap` must be the heap in the calling thread's slot.
/// - `block` must belong to another heap of the process.
#[cold]
#[inline(never)]
pub(super) unsafe fn free_elsewhere(heap: &'static ThreadHeap<CurrentParts>, block: BlockPtr) {
    if ptr::eq(heap, &NO_HEAP) {
        // SAFETY: the block came from these heaps (contract of `free_elsewhere`).
        return unsafe { HEAPS.free_remote(block) };
    }
    // SAFETY: the calling thread owns the heap in its slot, and uses it only through the owner.
    let mut owner = ManuallyDrop::new(unsafe { Owner::new(heap) });
    // SAFETY: the block belongs to another heap (contract of `free_elsewhere`).
    unsafe { owner.post_or_send(block) };
}

/// Frees a linked block that does not belong to the calling thread's heap.
///
/// # Safety
///
/// - The requirements of [`free_elsewhere`] must be met.
#[cold]
#[inline(never)]
unsafe fn free_linked_elsewhere(heap: &'static ThreadHeap<CurrentParts>, block: BlockPtr) {
    if ptr::eq(heap, &NO_HEAP) {
        // SAFETY: the block came from these heaps (contract).
        return unsafe { HEAPS.free_remote(block) };
    }
    // SAFETY: the calling thread owns the heap in its slot, and uses it only through the owner.
    let mut owner = ManuallyDrop::new(unsafe { Owner::new(heap) });
    // SAFETY: the block belongs to another heap (contract).
    unsafe { owner.post(block) };
}

/// Calls `visit` with the owner of the calling thread's heap, and opens a heap if necessary.
pub(super) fn with_heap<R>(visit: impl FnOnce(&mut Owner<CurrentParts>) -> R) -> Option<R> {
    // SAFETY: the owner is not dropped, and the slot does not change while it is used.
    match unsafe { slot::owner() } {
        Some(mut owner) => Some(visit(&mut owner)),
        None => with_new_heap(visit),
    }
}

/// Calls `visit` with a new heap for the calling thread, which must have no heap.
///
/// The thread keeps the heap only if the heap can be closed automatically when the thread ends.
#[cold]
#[inline(never)]
fn with_new_heap<R>(visit: impl FnOnce(&mut Owner<CurrentParts>) -> R) -> Option<R> {
    let is_guarded = fork::guard();
    // Registering the handlers may allocate from these heaps, which opens a heap for this thread.
    // SAFETY: the owner is not dropped, and the slot does not change while it is used.
    if let Some(mut owner) = unsafe { slot::owner() } {
        return Some(visit(&mut owner));
    }
    let thread = slot::thread();
    // SAFETY: the thread has no heap, and its number is unique among live threads. If a heap has
    // this number, an ended thread left the heap open. A forked child resets the numbers of lost
    // threads.
    let mut opened = unsafe { HEAPS.open_as(thread) }?;
    opened.set_purge_policy(decay::policy());
    slot::put(opened);
    // The slot must be set before this call, because the call can allocate from these heaps.
    let is_noticed = exit::will_be_noticed();
    if is_noticed && is_guarded {
        slot::get().thread.store(thread, Relaxed);
    }
    // SAFETY: the owner is not dropped, and the slot does not change while it is used.
    let result = unsafe { slot::owner() }.map(|mut owner| visit(&mut owner));
    if !is_noticed {
        drop(slot::take());
    }
    result
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Regression test: a thread must not open a heap for each request (mutant 5).
    #[test]
    fn a_thread_uses_the_same_heap_for_all_its_requests() {
        thread::spawn(|| {
            let class = SizeClass::of(100).expect("it is small");
            let blocks = [(); 2].map(|()| PerThread.alloc(class).expect("there is memory"));
            let [first, second] = blocks;
            // SAFETY: the block came from these heaps, and is not used again.
            unsafe { PerThread.free(first) };
            let again = PerThread.alloc_listed(class).expect("a block is on the free list");
            for block in [again, second] {
                // SAFETY: as above.
                unsafe { PerThread.free(block) };
            }
        })
        .join()
        .expect("the thread does not panic");
    }
}
