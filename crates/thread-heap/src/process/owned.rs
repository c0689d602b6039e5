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
/// An `OwnedHeap` is made for a runtime whose threads take turns under a lock, such as a CPython
/// interpreter with its GIL. The runtime keeps the `OwnedHeap` where the lock protects it.
/// Whichever thread holds the lock then allocates from this one heap and frees into it directly. If
/// each thread had its own heap, a freed block would have to wait until the thread that allocated
/// it runs again.
///
/// The blocks of an `OwnedHeap` lie in the same arenas as those of [`PerThread`](crate::PerThread),
/// and each of the two can free the blocks of the other.
///
/// Dropping an `OwnedHeap` abandons its heap. Live blocks stay valid, and another owner can adopt
/// the heap later.
///
/// # Fork
///
/// In the child of a fork, the heap is consistent only if no other thread was inside a call of this
/// value during the fork. Otherwise the child must neither use nor drop the value. It must pass the
/// value to [`lose`](Self::lose) or leak it.
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
// mutably, so only one thread at a time can change the heap. Whatever moves the value to another
// thread also makes the first thread's changes visible there.
unsafe impl Send for OwnedHeap {}

impl OwnedHeap {
    /// Opens a heap. It adopts an abandoned heap if there is one, and otherwise creates a heap.
    /// Returns `None` if there is no memory for a new heap. O(heaps).
    pub fn open() -> Option<Self> {
        fork::guard();
        Some(Self::new(HEAPS.open()?))
    }

    /// Takes the calling thread's heap, with all blocks in it, away from the thread. If the thread
    /// has no heap, [opens](Self::open) one instead. The thread opens another heap when it next
    /// allocates.
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

    /// Gives the heap up without accessing its contents. It is meant for the child of a fork during
    /// which another thread may have been inside the heap. The blocks of the heap can still be
    /// freed, but their memory is not used again.
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
        // The field `owner` is dropped after this function, and then abandons the heap.
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
