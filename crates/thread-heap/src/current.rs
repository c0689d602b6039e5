//! The calling thread's heap: the one room with thread-locals, and the heaps of a process.
//!
//! ```text
//!   a thread's life:   NO_HEAP ──first block──► its heap ──destructor of our key──► NO_HEAP
//! ```
//!
//! A thread that has no heap points to one that never has an arena: it has no block at hand, and
//! no block is its own, so the fast paths need no test. After the destructor has run, later
//! destructors of the thread may still allocate and free. Each such request opens a heap and closes
//! it again.

mod exit;
#[cfg(unix)]
mod fork;
mod owned;
mod slot;

use std::{ptr, ptr::NonNull};

use obmalloc::{BlockPtr, Blocks, HeapTag, SizeClass, Stats};
use raw_mem::{MmapArenas, PageBlocks, RetainingArenas};
use sync::atomic::Ordering::Relaxed;

use crate::{
    heaps::{Heaps, HeapsStats},
    parts::ThreadGeometry,
    shared_arenas::SharedArenas,
    thread_heap::ThreadHeap,
};

pub use owned::OwnedHeap;

/// What the process's heaps are made of. Their records are on pages of their own: whatever is
/// malloc in this process, it may stand on these heaps.
type Parts = (RetainingArenas<MmapArenas>, PageBlocks, ThreadGeometry);

/// The heaps of the process's threads.
pub type CurrentHeaps = Heaps<Parts>;

static HEAPS: CurrentHeaps = Heaps::new(RetainingArenas::new(MmapArenas::new()), PageBlocks);

/// The heap of a thread that has none: never entered but to find nothing.
static NO_HEAP: ThreadHeap<Parts> = ThreadHeap::new(SharedArenas::NONE, PageBlocks, HeapTag::NONE);

/// The heaps of the process's threads, as one heap: each thread allocates from its own, and any
/// thread frees any block.
///
/// It works from the first instruction of the process to the last, in every destructor that runs
/// when a thread ends, and in a forked child, even if the process has many threads. It also works
/// in a signal handler, provided that the handler interrupted neither this allocator nor the C
/// library's. The first block of a thread may need the C library's allocator, but only in a process
/// that has more than 31 keys for thread-specific values.
///
/// A coroutine may allocate and free on every thread that it runs on. It may move to another thread
/// whenever it is not inside a call of this allocator. The allocator calls no code of its user, so
/// only a signal handler that switches stacks could break this rule.
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
            unsafe { free_elsewhere(heap, block) };
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

/// Frees a block of a heap that is not the calling thread's. It looks the owner up again, so that
/// [`PerThread::free`] can compare the owner in memory and does not load it into a register.
///
/// # Safety
///
/// - `heap` is what the slot of the calling thread holds.
/// - `block` belongs to another one of the process's heaps.
/// - Nobody uses the block any more.
#[cold]
#[inline(never)]
unsafe fn free_elsewhere(heap: &'static ThreadHeap<Parts>, block: BlockPtr) {
    if ptr::eq(heap, &NO_HEAP) {
        // SAFETY: this thread has no heap, so it is not the owner.
        unsafe { HEAPS.free_remote(block) };
        return;
    }
    // SAFETY: the block is in use, in one of these heaps.
    let owner = unsafe { ThreadHeap::of_block(block.start()) };
    // SAFETY: the calling thread owns `heap`; the block is `owner`'s, and given up.
    unsafe { heap.free_other(owner, block) };
}

/// Calls `visit` with a heap that the calling thread owns, which is opened if the thread has none.
/// Returns `None` if there is no memory for a heap.
fn with_heap<R>(visit: impl FnOnce(&'static ThreadHeap<Parts>) -> R) -> Option<R> {
    let heap = slot::get();
    if ptr::eq(heap, &NO_HEAP) { with_new_heap(visit) } else { Some(visit(heap)) }
}

/// As [`with_heap`], for a thread that has no heap. The thread keeps the heap if its end will be
/// noticed.
#[cold]
#[inline(never)]
fn with_new_heap<R>(visit: impl FnOnce(&'static ThreadHeap<Parts>) -> R) -> Option<R> {
    #[cfg(unix)]
    let is_guarded = fork::guard_forks();
    #[cfg(not(unix))]
    let is_guarded = true;
    // The call above may have allocated through these heaps.
    let current = slot::get();
    if !ptr::eq(current, &NO_HEAP) {
        return Some(visit(current));
    }
    let thread = slot::thread();
    // SAFETY: this thread is alive and has no heap, so a heap with its number was left by another
    // thread, which has ended. A forked child resets the numbers.
    let heap = unsafe { HEAPS.open_as(thread) }?;
    // The slot is set first, because the registration below may allocate through these heaps.
    slot::set(heap);
    if exit::will_be_noticed() {
        if is_guarded {
            heap.thread().store(thread, Relaxed);
        }
        return Some(visit(heap));
    }
    let result = visit(heap);
    slot::set(&NO_HEAP);
    // SAFETY: the heap was opened above, and is this thread's no longer.
    unsafe { HEAPS.close(heap) };
    Some(result)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// mutants 5: no thread kept its heap, so each request opened one.
    #[test]
    fn a_thread_keeps_its_heap_from_one_request_to_the_next() {
        thread::spawn(|| {
            let class = SizeClass::of(100).expect("it is small");
            let blocks = [(); 2].map(|()| PerThread.alloc(class).expect("there is memory"));
            let [first, second] = blocks;
            // SAFETY: the block is in use, and given up.
            unsafe { PerThread.free(first) };
            let again = PerThread.alloc_listed(class).expect("the block is at hand");
            for block in [again, second] {
                // SAFETY: as above.
                unsafe { PerThread.free(block) };
            }
        })
        .join()
        .expect("the thread ends well");
    }
}
