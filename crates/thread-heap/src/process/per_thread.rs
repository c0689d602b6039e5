//! An allocator that uses the heap of the calling thread.

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

/// An allocator that gives each thread of the process its own heap. A thread allocates from its own
/// heap, and any thread may free any block.
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
/// The allocator works from the first instruction of the process to the last. It also works in all
/// destructors that run when a thread ends, and in a forked child, even if the parent process has
/// many threads. In a signal handler it works if the signal has interrupted neither this allocator
/// nor the allocator of the C library. The second condition is needed because the first allocation
/// of a thread may call the allocator of the C library. It does so only in a process that has more
/// than 31 keys for thread-specific values.
///
/// A coroutine may allocate and free on every thread that it runs on. It may move to another thread
/// at any time except during a call of this allocator. The allocator calls no code of its user, so
/// a coroutine can move during such a call only if a signal handler switches stacks. Signal
/// handlers must not do this.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerThread;

impl PerThread {
    /// Hints to the compiler that the calling thread's heap is about to be used.
    ///
    /// The compiler then loads the offset of the thread's slot here, and a loop loads it once. It
    /// would otherwise load the offset in the branch that uses the heap.
    #[inline]
    pub fn prepare(self) {
        slot::prepare();
    }

    /// Counts the memory in use in the calling thread's heap. If the thread has no heap yet, opens
    /// one. Returns `None` if the memory for a new heap cannot be allocated. O(pools).
    pub fn stats(self) -> Option<Stats> {
        with_heap(|owner| owner.stats())
    }

    /// Counts the memory in use in the calling thread's heap and in all abandoned heaps. O(heaps +
    /// pools).
    pub fn stats_of_all(self) -> HeapsStats {
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        match unsafe { slot::owner() } {
            Some(owner) => HEAPS.stats(&[&*owner]),
            None => HEAPS.stats(&[]),
        }
    }

    /// Returns true if `address` lies in an arena of one of the process's heaps. The function looks
    /// up the address in the arena map and takes no lock.
    #[inline]
    pub fn holds(self, address: usize) -> bool {
        HEAPS.holds(address)
    }

    /// Returns as much unused memory to the system as the calling thread can. Call this function
    /// before the thread becomes idle.
    ///
    /// - It sends the blocks of other heaps that this thread has freed to the owners of these
    ///   heaps.
    /// - It reclaims the blocks of this thread's heap that other threads have freed.
    /// - It unmaps every empty arena of this thread's heap, and every arena that the arena source
    ///   of the process retains.
    ///
    /// Blocks that were freed by other threads wait in the inbox of their heap until the owner of
    /// the heap reclaims them. This function also takes over the inboxes of other heaps, and purges
    /// the pages that contain only waiting blocks. This works even if the threads that own these
    /// heaps are blocked. Free memory that another thread has already reclaimed stays with that
    /// thread.
    pub fn flush(self) {
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        match unsafe { slot::owner() } {
            Some(mut owner) => owner.flush(),
            None => {
                HEAPS.take_over_inboxes(1);
                HEAPS.lock_source().trim();
            }
        }
    }
}

// SAFETY: the blocks of these heaps overlap neither each other nor other memory. Only the owner of
// a heap enters the heap. The arena map contains the arenas of these heaps and no other memory.
unsafe impl Blocks for PerThread {
    type Geometry = ThreadGeometry;

    #[inline]
    fn alloc_listed(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        // SAFETY: the calling thread owns the heap in its slot, unless this heap is `NO_HEAP`,
        // which never has an arena.
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
        // heap in its slot, unless this heap is `NO_HEAP`, which never has an arena.
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
        // SAFETY: `ptr` lies in an arena of these heaps, so it is a block that the caller gives up
        // (contract of `free_if_ours`).
        unsafe { self.free(BlockPtr::from_start(ptr)) };
        None
    }

    #[inline]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: if `ptr` lies in an arena of these heaps, it is a block in use (contract of
        // `size_if_ours`).
        let size = || unsafe { ThreadHeap::<CurrentParts>::size_of_block(ptr) };
        HEAPS.holds(ptr.addr().get()).then(size)
    }
}

/// Frees a block that does not belong to the calling thread's heap. [`PerThread::free`] compares
/// the block's tag, which is the address of the block's heap, directly in memory with the address
/// of the thread's heap. The tag is never loaded into a register, so this function has to look up
/// the block's heap again.
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
    // SAFETY: the calling thread owns the heap in its slot. Nothing else uses this heap while the
    // owner exists.
    let mut owner = ManuallyDrop::new(unsafe { Owner::new(heap) });
    // SAFETY: the block belongs to another heap (contract of `free_elsewhere`).
    unsafe { owner.post(block) };
}

/// Calls `visit` with the owner of the calling thread's heap. If the thread has no heap, opens one
/// first. Returns `None` if the memory for a new heap cannot be allocated.
fn with_heap<R>(visit: impl FnOnce(&mut Owner<CurrentParts>) -> R) -> Option<R> {
    // SAFETY: the owner is not dropped, and the slot does not change while it is used.
    match unsafe { slot::owner() } {
        Some(mut owner) => Some(visit(&mut owner)),
        None => with_new_heap(visit),
    }
}

/// Opens a heap for the calling thread, which must have no heap, and calls `visit` with the owner
/// of the heap. If we can arrange for the heap to be closed at the end of the thread, the thread
/// keeps the heap. Otherwise the heap is closed after the call of `visit`. Returns `None` if the
/// memory for a new heap cannot be allocated.
#[cold]
#[inline(never)]
fn with_new_heap<R>(visit: impl FnOnce(&mut Owner<CurrentParts>) -> R) -> Option<R> {
    let is_guarded = fork::guard();
    // Registering the handlers may have allocated memory, and malloc may be implemented with these
    // heaps. This allocation may already have opened a heap for this thread.
    // SAFETY: the owner is not dropped, and the slot does not change while it is used.
    if let Some(mut owner) = unsafe { slot::owner() } {
        return Some(visit(&mut owner));
    }
    let thread = slot::thread();
    // SAFETY: no other live thread has the number of this thread, and this thread has no heap. If a
    // heap has this number, it was therefore left open by an earlier thread with the same number,
    // which has ended. In the child of a fork, the numbers of the other threads' heaps were reset.
    slot::put(unsafe { HEAPS.open_as(thread) }?);
    // We have set the slot before this call, because the call may allocate through these heaps.
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

    /// Regression test: a thread must not open another heap for each of its requests (mutant 5).
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
