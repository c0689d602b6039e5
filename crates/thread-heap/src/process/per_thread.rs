//! The calling thread's heap as an allocator.

use std::{
    mem::ManuallyDrop,
    ptr::{self, NonNull},
};

use obmalloc::{BlockPtr, Blocks, SizeClass, Stats};
use sync::atomic::Ordering::Relaxed;

use super::{
    exit, fork,
    heaps::{CurrentParts, HEAPS, NO_HEAP},
    slot,
};
use crate::{
    heaps::{ThreadHeap, owner::Owner, stats::HeapsStats},
    parts::ThreadGeometry,
};

/// The heaps of the process's threads. Each thread allocates from its own heap, and any thread may
/// free any block.
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
    /// Counts what is in use in the calling thread's heap. Returns `None` if there is no memory for
    /// a heap. O(pools).
    pub fn stats(self) -> Option<Stats> {
        with_heap(|owner| owner.stats())
    }

    /// Counts what is in use in the calling thread's heap and in the abandoned ones.
    /// O(heaps + pools).
    pub fn stats_of_all(self) -> HeapsStats {
        // SAFETY: the value is used at once, and not dropped.
        match unsafe { slot::owner() } {
            Some(owner) => HEAPS.stats(&[&*owner]),
            None => HEAPS.stats(&[]),
        }
    }

    /// Returns true if `address` lies in an arena of one of the process's heaps. Reads the arena map
    /// without a lock.
    #[inline]
    pub fn holds(self, address: usize) -> bool {
        HEAPS.holds(address)
    }

    /// Sends the blocks of other heaps that this thread has freed, reclaims what others freed, and
    /// unmaps every empty arena, including those that the process retains. Call it before the thread
    /// becomes idle.
    ///
    /// It also purges the pages that contain only blocks which wait for other threads, even if those
    /// threads are blocked. What another thread freed itself stays with that thread.
    pub fn flush(self) {
        // SAFETY: the value is used at once, and not dropped.
        match unsafe { slot::owner() } {
            Some(mut owner) => owner.flush(),
            None => {
                HEAPS.take_over_inboxes(1);
                HEAPS.lock_source().trim();
            }
        }
    }
}

// SAFETY: the blocks of these heaps overlap neither each other nor other memory. Only its owner
// enters a heap. The arena map contains exactly the arenas of these heaps.
unsafe impl Blocks for PerThread {
    type Geometry = ThreadGeometry;

    #[inline]
    fn alloc_listed(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        // SAFETY: the calling thread owns the heap in its slot, unless that is `NO_HEAP`.
        unsafe { slot::get().alloc_listed(class) }
    }

    #[inline]
    fn alloc(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        with_heap(|owner| owner.alloc(class))?
    }

    fn trim(&self) {
        self.flush();
    }

    #[inline]
    unsafe fn free(&self, block: BlockPtr) {
        let heap = slot::get();
        // SAFETY: the block came from these heaps (contract of `free`). The calling thread owns the
        // heap in its slot, unless that is `NO_HEAP`.
        if let Some(block) = unsafe { heap.free_if_own(block) } {
            // SAFETY: the block belongs to another heap than the one in the slot.
            unsafe { free_elsewhere(heap, block) };
        }
    }

    #[inline]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        if !HEAPS.holds(ptr.addr().get()) {
            return Some(ptr);
        }
        // SAFETY: it lies in an arena of ours, so the caller gives up a block (contract).
        unsafe { self.free(BlockPtr::from_start(ptr)) };
        None
    }

    #[inline]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: if it lies in an arena of ours, it is a block in use (contract).
        let size = || unsafe { ThreadHeap::<CurrentParts>::size_of_block(ptr) };
        HEAPS.holds(ptr.addr().get()).then(size)
    }
}

/// Frees a block of a heap that is not the calling thread's. It looks up that heap again, so that
/// [`PerThread::free`] can compare it in memory without loading it into a register.
///
/// # Safety
///
/// - `heap` must be the heap in the calling thread's slot.
/// - `block` must belong to another heap of the process.
#[cold]
#[inline(never)]
unsafe fn free_elsewhere(heap: &'static ThreadHeap<CurrentParts>, block: BlockPtr) {
    if ptr::eq(heap, &NO_HEAP) {
        // SAFETY: the block came from these heaps (contract of `free_elsewhere`).
        return unsafe { HEAPS.free_remote(block) };
    }
    // SAFETY: the calling thread owns the heap in its slot, which nobody uses in the meantime.
    let mut owner = ManuallyDrop::new(unsafe { Owner::new(heap) });
    // SAFETY: the block belongs to another heap (contract of `free_elsewhere`).
    unsafe { owner.post(block) };
}

/// Calls `visit` with the owner of the calling thread's heap, which is opened if the thread has
/// none. Returns `None` if there is no memory for a heap.
fn with_heap<R>(visit: impl FnOnce(&mut Owner<CurrentParts>) -> R) -> Option<R> {
    // SAFETY: the value is used at once, and not dropped.
    match unsafe { slot::owner() } {
        Some(mut owner) => Some(visit(&mut owner)),
        None => with_new_heap(visit),
    }
}

/// As [`with_heap`], for a thread that has no heap. The thread stays the owner if its end will be
/// noticed.
#[cold]
#[inline(never)]
fn with_new_heap<R>(visit: impl FnOnce(&mut Owner<CurrentParts>) -> R) -> Option<R> {
    let is_guarded = fork::guard();
    // The call above may have allocated through these heaps.
    // SAFETY: the value is used at once, and not dropped.
    if let Some(mut owner) = unsafe { slot::owner() } {
        return Some(visit(&mut owner));
    }
    let thread = slot::thread();
    // SAFETY: this thread is alive and has no heap. A heap with its number was therefore left open
    // by another thread, which has ended. A forked child resets the numbers.
    slot::put(unsafe { HEAPS.open_as(thread) }?);
    // The slot is set first, because the registration may allocate through these heaps.
    let is_noticed = exit::will_be_noticed();
    if is_noticed && is_guarded {
        slot::get().thread.store(thread, Relaxed);
    }
    // SAFETY: the value is used at once, and not dropped.
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

    /// mutants 5: each request of a thread opened a heap of its own.
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
