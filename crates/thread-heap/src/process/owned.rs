//! A heap of the process that belongs to a value, not to a thread.

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
/// It serves a runtime whose threads take turns under a lock, such as the interpreters of CPython
/// with their GILs. The value lives where the lock protects it. Every thread that holds the lock then
/// allocates from the same heap and frees into it directly, so no memory waits for an idle thread.
/// Its blocks and those of [`PerThread`](crate::PerThread) lie in the same arenas, and either can
/// free the other's.
///
/// Dropping it abandons the heap. Live blocks stay valid, and another owner adopts the heap later.
///
/// # Fork
///
/// In the child of a fork, the heap is consistent only if no other thread was inside it at the time
/// of the fork. Otherwise the child must give the value up with [`lose`](Self::lose) or leak it,
/// and must not use or drop it.
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

// SAFETY: every operation borrows the value, and those that change the heap borrow it mutably, so
// one thread at a time is inside. What one thread did happens before another has the value.
unsafe impl Send for OwnedHeap {}

impl OwnedHeap {
    /// Opens a heap: an abandoned one, or else a new one. Returns `None` if there is no memory for
    /// it. O(heaps).
    pub fn open() -> Option<Self> {
        fork::guard();
        Some(Self::new(HEAPS.open()?))
    }

    /// Takes the calling thread's heap away from it, with every block in it, or
    /// [opens](Self::open) one if the thread has none. The thread opens another heap when it next
    /// needs one.
    pub fn of_this_thread() -> Option<Self> {
        slot::take().map(Self::new).or_else(Self::open)
    }

    fn new(owner: Owner<CurrentParts>) -> Self {
        owner.heap().outlives_threads.store(true, Relaxed);
        Self { owner }
    }

    /// As [`Owner::alloc_listed`].
    #[inline]
    pub fn alloc_listed(&mut self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        self.owner.alloc_listed(class)
    }

    /// As [`Owner::alloc`].
    #[inline]
    pub fn alloc(&mut self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        self.owner.alloc(class)
    }

    /// As [`Owner::free`], for a block of any heap of the process.
    ///
    /// # Safety
    ///
    /// - `block` must have come from an `OwnedHeap` or from [`PerThread`](crate::PerThread).
    /// - Nobody may use it any more.
    #[inline]
    pub unsafe fn free(&mut self, block: BlockPtr) {
        // SAFETY: the block came from one of the process's heaps (contract of `free`).
        unsafe { self.owner.free(block) };
    }

    /// As [`Owner::flush`].
    pub fn flush(&mut self) {
        self.owner.flush();
    }

    /// As [`Owner::stats`].
    pub fn stats(&mut self) -> Stats {
        self.owner.stats()
    }

    /// Gives the heap up without entering it, for the child of a fork in which another thread may
    /// have been inside. Its blocks can still be freed, but its memory is not used again.
    pub fn lose(self) {
        self.owner.heap().outlives_threads.store(false, Relaxed);
        mem::forget(self);
    }

    /// Counts what is in use in this heap, in the calling thread's heap and in the abandoned ones.
    /// O(heaps + pools).
    pub fn stats_of_all(&mut self) -> HeapsStats {
        // SAFETY: the value is used at once, and not dropped.
        match unsafe { slot::owner() } {
            Some(of_thread) => HEAPS.stats(&[&self.owner, &*of_thread]),
            None => HEAPS.stats(&[&self.owner]),
        }
    }
}

impl Drop for OwnedHeap {
    fn drop(&mut self) {
        // The owner is dropped next, and abandons the heap.
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
