//! The calling thread's heap: the one room with thread-locals, and the heaps of a process.
//!
//! ```text
//!   a thread's life:   NO_HEAP ──first block──► its heap ──thread-local destructor──► NO_HEAP
//! ```
//!
//! A thread that has no heap points to one that never has an arena: it has no block at hand, and
//! no block is its own, so the fast paths need no test. After the thread's destructor has run,
//! later destructors still allocate and free: each request then opens a heap and closes it again.

#[cfg(unix)]
mod fork;
mod owned;
mod slot;

use std::{ptr, ptr::NonNull};

use obmalloc::{BlockPtr, Blocks, HeapTag, SizeClass, Stats};
use raw_mem::{MmapArenas, PageBlocks, WarmArenas};

use crate::{
    heaps::{Heaps, HeapsStats},
    parts::ThreadGeometry,
    shared_arenas::SharedArenas,
    thread_heap::ThreadHeap,
};

pub use owned::OwnedHeap;

/// What the process's heaps are made of. Their records are on pages of their own: whatever is
/// malloc in this process, it may stand on these heaps.
type Parts = (WarmArenas<MmapArenas>, PageBlocks, ThreadGeometry);

/// The heaps of the process's threads.
pub type CurrentHeaps = Heaps<Parts>;

static HEAPS: CurrentHeaps = Heaps::new(WarmArenas::new(MmapArenas::new()), PageBlocks);

/// The heap of a thread that has none: never entered but to find nothing.
static NO_HEAP: ThreadHeap<Parts> = ThreadHeap::new(SharedArenas::NONE, PageBlocks, HeapTag::NONE);

thread_local! {
    /// Leaves the thread's heap when the thread ends.
    static LEAVER: Leaver = const { Leaver };
}

struct Leaver;

impl Drop for Leaver {
    fn drop(&mut self) {
        let heap = slot::get();
        slot::set(&NO_HEAP);
        if !ptr::eq(heap, &NO_HEAP) {
            // SAFETY: the heap was this thread's, and it has just let go of it.
            unsafe { HEAPS.close(heap) };
        }
    }
}

/// The heaps of the process's threads, as one heap: each thread allocates from its own, and any
/// thread frees any block.
///
/// It works from the first instruction of the process to the last, in thread-local destructors,
/// in a signal handler that interrupted neither it nor the C library's allocator (which the first
/// block of a thread may need, for the thread's destructors), and in a forked child: of a process
/// with many threads as well.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerThread;

impl PerThread {
    /// Counts what the calling thread's heap has in use. O(pools).
    pub fn stats(self) -> Option<Stats> {
        // SAFETY: the calling thread owns its heap.
        with_heap(|heap| unsafe { heap.stats() })
    }

    /// Counts what is in use in the calling thread's heap and in those of threads that have ended.
    /// O(heaps + pools).
    pub fn stats_of_all(self) -> HeapsStats {
        let heap = slot::get();
        let owned = (!ptr::eq(heap, &NO_HEAP)).then_some(heap);
        // SAFETY: the calling thread owns its heap.
        unsafe { HEAPS.stats(owned) }
    }

    /// Returns true if `address` lies in an arena of one of the process's heaps. Reads the arena map,
    /// without a lock.
    #[inline]
    pub fn holds(self, address: usize) -> bool {
        HEAPS.holds(address)
    }

    /// Sends the blocks of other threads that this one has freed and holds back, takes home what
    /// others have freed of its own, and gives back what arenas can go, those that all threads
    /// keep for later as well: for a thread that is about to wait for long.
    ///
    /// Blocks of other threads that were sent and wait for their owner are purged: pages that hold
    /// nothing else go back to the system, even if the owner is blocked. What another thread
    /// freed itself and retains stays with it.
    pub fn flush(self) {
        let heap = slot::get();
        if ptr::eq(heap, &NO_HEAP) {
            HEAPS.take_over_inboxes(1);
            HEAPS.close_source().trim();
        } else {
            // SAFETY: the calling thread owns its heap.
            unsafe { heap.flush() };
        }
    }
}

// SAFETY: a heap's blocks are apart from each other and from all other memory; one owner at a time
// enters it; the arena map knows all arenas.
unsafe impl Blocks for PerThread {
    type Geometry = ThreadGeometry;

    #[inline]
    fn alloc_listed(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        // SAFETY: the slot has the heap that this thread owns, or the one without arenas.
        unsafe { slot::get().alloc_listed(class) }
    }

    #[inline]
    fn alloc(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        // SAFETY: the calling thread owns the heap.
        with_heap(|heap| unsafe { heap.alloc(class) })?
    }

    fn trim(&self) {
        self.flush();
    }

    #[inline]
    unsafe fn free(&self, block: BlockPtr) {
        let heap = slot::get();
        // SAFETY: the caller holds a block of one of these heaps.
        let owner = unsafe { ThreadHeap::of_block(block.start()) };
        if ptr::eq(owner.as_ptr(), heap) {
            // SAFETY: the block carries this heap's tag, and only an open heap has blocks.
            unsafe { heap.free(block) };
        } else {
            // SAFETY: the block is of the heap `owner`, which is not this thread's.
            unsafe { free_elsewhere(heap, owner, block) };
        }
    }

    #[inline]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        if !HEAPS.holds(ptr.addr().get()) {
            return Some(ptr);
        }
        // SAFETY: it is in an arena of ours, so it is a block, which the caller gives up.
        unsafe { self.free(BlockPtr::from_start(ptr)) };
        None
    }

    #[inline]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: if it is in an arena of ours, it is a block in use, which the caller holds.
        HEAPS.holds(ptr.addr().get()).then(|| unsafe { ThreadHeap::<Parts>::size_of_block(ptr) })
    }
}

/// Frees a block of `owner`, another thread's heap.
///
/// # Safety
///
/// The caller gives up a block of `owner`; `heap` is what the slot says.
#[cold]
#[inline(never)]
unsafe fn free_elsewhere(
    heap: &'static ThreadHeap<Parts>,
    owner: NonNull<ThreadHeap<Parts>>,
    block: BlockPtr,
) {
    if ptr::eq(heap, &NO_HEAP) {
        // SAFETY: this thread has no heap, so it is not the owner.
        unsafe { HEAPS.free_remote(block) };
        return;
    }
    // SAFETY: the calling thread owns `heap`; the block is `owner`'s, and given up.
    unsafe { heap.free_other(owner, block) };
}

/// Calls `visit` with a heap that the calling thread owns: its own, opened if need be.
fn with_heap<R>(visit: impl FnOnce(&'static ThreadHeap<Parts>) -> R) -> Option<R> {
    let current = slot::get();
    if !ptr::eq(current, &NO_HEAP) {
        return Some(visit(current));
    }
    #[cfg(unix)]
    fork::guard_forks();
    let heap = HEAPS.open()?;
    // Before the destructor is registered: that may allocate.
    slot::set(heap);
    let stays = LEAVER.try_with(|_| ()).is_ok();
    let result = visit(heap);
    if !stays {
        // The thread's destructor has run, so nobody would close the heap later.
        slot::set(&NO_HEAP);
        // SAFETY: the heap was opened above, and is this thread's no longer.
        unsafe { HEAPS.close(heap) };
    }
    Some(result)
}
