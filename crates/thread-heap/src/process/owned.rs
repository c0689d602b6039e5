//! A heap of the process that belongs to a value instead of a thread.

use std::mem;

use obmalloc::{BlockPtr, SizeClass, Stats};
use sync::atomic::Ordering::Relaxed;

use super::{
    fork,
    heaps::{CurrentParts, HEAPS},
    slot,
};
use crate::{
    heaps::{owner::Owner, stats::HeapsStats},
    parts::ThreadGeometry,
};

/// An [`Owner`] of one of the process's heaps that may move between threads.
///
/// An `OwnedHeap` is made for a runtime in which only the thread that holds a certain lock runs,
/// such as a CPython interpreter with its GIL. The runtime stores the `OwnedHeap` in data that the
/// lock protects. The thread that holds the lock then allocates from this one heap and frees
/// directly into it. If each thread had its own heap instead, a block freed by another thread could
/// be reused only after the thread that allocated it runs again.
///
/// An `OwnedHeap` gets its arenas from the same source as the heaps of
/// [`PerThread`](crate::PerThread). An `OwnedHeap` can free blocks that were allocated from
/// [`PerThread`](crate::PerThread), and the other way round.
///
/// Dropping an `OwnedHeap` abandons its heap. Live blocks stay valid, and another owner can adopt
/// the heap later.
///
/// # Fork
///
/// In the child of a fork, the heap is consistent only if no other thread was calling a method of
/// this value during the fork. If another thread may have been doing so, the child must neither use
/// nor drop the value. It must pass the value to [`lose`](Self::lose) or leak the value.
///
/// ```
/// use thread_heap::{OwnedHeap, obmalloc::SizeClass};
///
/// let mut heap = OwnedHeap::open().expect("there is memory");
/// let block = heap.alloc(SizeClass::of(100).unwrap()).expect("there is memory");
/// let mut heap = std::thread::spawn(move || heap).join().unwrap();
/// // SAFETY: the block came from one of the process's heaps, and is not used again.
/// unsafe { heap.free(block) };
/// ```
#[derive(Debug)]
pub struct OwnedHeap {
    owner: Owner<CurrentParts>,
}

// SAFETY: every operation borrows the value, and the operations that change the heap borrow it
// mutably, so only one thread at a time can change the heap. Moving the value to another thread
// needs synchronisation, which also makes the first thread's changes visible to the other thread.
unsafe impl Send for OwnedHeap {}

impl OwnedHeap {
    /// Opens a heap. Adopts an abandoned heap if there is one, and otherwise creates a heap.
    /// Returns `None` if the memory for a new heap cannot be allocated. O(heaps).
    pub fn open() -> Option<Self> {
        fork::guard();
        Some(Self::new(HEAPS.open()?))
    }

    /// Turns the calling thread's heap, with all of its blocks, into an `OwnedHeap`. The thread
    /// then has no heap, and opens another one when it next allocates. If the thread has no heap,
    /// [opens](Self::open) a heap for the `OwnedHeap` instead.
    pub fn of_this_thread() -> Option<Self> {
        slot::take().map(Self::new).or_else(Self::open)
    }

    fn new(owner: Owner<CurrentParts>) -> Self {
        owner.heap().outlives_threads.store(true, Relaxed);
        Self { owner }
    }

    /// Allocates a block of `class` from a free list. See [`Owner::alloc_listed`].
    #[inline]
    pub fn alloc_listed(&mut self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        self.owner.alloc_listed(class)
    }

    /// Allocates an uninitialised block of `class`. See [`Owner::alloc`].
    #[inline]
    pub fn alloc(&mut self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        self.owner.alloc(class)
    }

    /// Frees a block of any heap of the process. See [`Owner::free`].
    ///
    /// # Safety
    ///
    /// - `block` must have come from an `OwnedHeap` or from [`PerThread`](crate::PerThread).
    /// - Nobody may use the block any more.
    #[inline]
    pub unsafe fn free(&mut self, block: BlockPtr) {
        // SAFETY: the block came from one of the process's heaps (contract of `free`).
        unsafe { self.owner.free(block) };
    }

    /// Returns as much unused memory to the system as this heap can. See [`Owner::flush`].
    pub fn flush(&mut self) {
        self.owner.flush();
    }

    /// Counts the memory in use in this heap. See [`Owner::stats`].
    pub fn stats(&mut self) -> Stats {
        self.owner.stats()
    }

    /// Consumes the value without accessing the contents of the heap. This function is meant for
    /// the child of a fork, if another thread may have been changing the heap during the fork. The
    /// blocks of the heap can still be freed, but their memory is not used again.
    pub fn lose(self) {
        self.owner.heap().outlives_threads.store(false, Relaxed);
        mem::forget(self);
    }

    /// Counts the memory in use in this heap, in the calling thread's heap, and in all abandoned
    /// heaps. O(heaps + pools).
    pub fn stats_of_all(&mut self) -> HeapsStats {
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        match unsafe { slot::owner() } {
            Some(of_thread) => HEAPS.stats(&[&self.owner, &*of_thread]),
            None => HEAPS.stats(&[&self.owner]),
        }
    }
}

impl Drop for OwnedHeap {
    fn drop(&mut self) {
        // The field `owner` is dropped after this function has returned. Dropping it abandons the
        // heap.
        self.owner.heap().outlives_threads.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_outlives_threads_until_it_is_dropped_or_lost() {
        let ends: [fn(OwnedHeap); 2] = [drop, OwnedHeap::lose];
        for end in ends {
            let owned = OwnedHeap::open().unwrap();
            let heap = owned.owner.heap();
            assert!(heap.outlives_threads.load(Relaxed));
            end(owned);
            assert!(!heap.outlives_threads.load(Relaxed));
        }
    }
}
