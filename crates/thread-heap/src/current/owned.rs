//! A heap of the process whose owner is not a thread.

use std::{fmt, mem, ptr};

use sync::atomic::Ordering::Relaxed;

use obmalloc::{BlockPtr, SizeClass, Stats};

use super::{HEAPS, NO_HEAP, Parts, fork, slot};
use crate::{heaps::HeapsStats, parts::ThreadGeometry, thread_heap::ThreadHeap};

/// A heap of the process that belongs to whoever has this value, not to a thread.
///
/// A runtime whose threads take turns under a lock of their own, such as the interpreters of
/// CPython with their GILs, keeps one in the place that the lock protects. Every thread that holds
/// the lock then allocates from the same heap and frees into it directly, so no memory waits for an
/// idle thread. Its blocks and those of [`PerThread`](crate::PerThread) belong to the same arenas,
/// and either can free the other's.
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
pub struct OwnedHeap {
    /// # Invariant
    ///
    /// Owned, and by this value alone.
    heap: &'static ThreadHeap<Parts>,
}

impl OwnedHeap {
    /// Opens a heap: an abandoned one, or a new one. Returns `None` if there is no memory for it.
    ///
    /// O(heaps).
    pub fn open() -> Option<Self> {
        #[cfg(unix)]
        fork::guard_forks();
        Some(Self::new(HEAPS.open()?))
    }

    /// Takes the calling thread's heap away from it, with every block in it, or
    /// [opens](Self::open) one if the thread has none. The thread opens another heap when it next
    /// needs one.
    pub fn of_this_thread() -> Option<Self> {
        let heap = slot::get();
        if ptr::eq(heap, &NO_HEAP) {
            return Self::open();
        }
        slot::set(&NO_HEAP);
        Some(Self::new(heap))
    }

    /// Wraps `heap`, whose ownership passes from the caller to the new value.
    fn new(heap: &'static ThreadHeap<Parts>) -> Self {
        heap.outlives_threads().store(true, Relaxed);
        Self { heap }
    }

    /// Takes a block of `class` from the free list of its pool. `None` does not mean that memory
    /// is short: [`alloc`](Self::alloc) tries everything else.
    #[inline]
    pub fn alloc_listed(&mut self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        // SAFETY: this value owns the heap, and is borrowed mutably, so nobody else is inside.
        unsafe { self.heap.alloc_listed(class) }
    }

    /// Takes a block of `class`, uninitialised. Returns `None` if no arena can be had.
    #[inline]
    pub fn alloc(&mut self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        // SAFETY: this value owns the heap, and is borrowed mutably, so nobody else is inside.
        unsafe { self.heap.alloc(class) }
    }

    /// Frees a block of any heap of the process. A block of another owner is sent to it together
    /// with others, no later than the next [`flush`](Self::flush).
    ///
    /// # Safety
    ///
    /// - `block` came from an `OwnedHeap` or from [`PerThread`](crate::PerThread).
    /// - Nobody uses it any more.
    #[inline]
    pub unsafe fn free(&mut self, block: BlockPtr) {
        // SAFETY: the block is in use, in one of the process's heaps.
        let owner = unsafe { ThreadHeap::of_block(block.start()) };
        if ptr::eq(owner.as_ptr(), self.heap) {
            // SAFETY: this value owns the heap, and the block carries its tag.
            unsafe { self.heap.free(block) };
        } else {
            // SAFETY: the block is in use, in another heap.
            unsafe { self.free_elsewhere(block) };
        }
    }

    /// Frees a block of another heap. It looks the owner up again, so that [`free`](Self::free) can
    /// compare the owner in memory and needs no stack frame.
    ///
    /// # Safety
    ///
    /// - `block` belongs to another one of the process's heaps.
    /// - Nobody uses it any more.
    #[cold]
    #[inline(never)]
    unsafe fn free_elsewhere(&mut self, block: BlockPtr) {
        // SAFETY: the block is in use, in one of these heaps.
        let owner = unsafe { ThreadHeap::of_block(block.start()) };
        // SAFETY: this value owns its heap; the block is `owner`'s, and given up.
        unsafe { self.heap.free_other(owner, block) };
    }

    /// Sends the blocks that wait for other owners, frees those that others sent here, and returns
    /// every arena that can go, including those that the process retains for later.
    pub fn flush(&mut self) {
        // SAFETY: this value owns the heap, and is borrowed mutably, so nobody else is inside.
        unsafe { self.heap.flush() };
    }

    /// Gives the heap up without entering it: for the child of a fork, in which another thread may
    /// have been inside. Its blocks can still be freed, but its memory is not used again.
    pub fn lose(self) {
        self.heap.outlives_threads().store(false, Relaxed);
        mem::forget(self);
    }

    /// Counts what is in use in this heap. O(pools).
    pub fn stats(&mut self) -> Stats {
        // SAFETY: this value owns the heap, and is borrowed mutably, so nobody else is inside.
        unsafe { self.heap.stats() }
    }

    /// Counts what is in use in this heap, in the calling thread's heap and in the abandoned ones.
    /// O(heaps + pools).
    pub fn stats_of_all(&mut self) -> HeapsStats {
        let of_thread = slot::get();
        let owned = |heap: &ThreadHeap<Parts>| ptr::eq(heap, self.heap) || ptr::eq(heap, of_thread);
        // SAFETY: this value owns its heap and is borrowed mutably; the thread owns the other one.
        unsafe { HEAPS.stats_with(owned) }
    }
}

impl Drop for OwnedHeap {
    fn drop(&mut self) {
        self.heap.outlives_threads().store(false, Relaxed);
        // SAFETY: this value owned the heap, and is gone.
        unsafe { HEAPS.close(self.heap) };
    }
}

impl fmt::Debug for OwnedHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedHeap").field(&self.heap).finish()
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
            let heap = owned.heap;
            assert!(heap.outlives_threads().load(Relaxed));
            end(owned);
            assert!(!heap.outlives_threads().load(Relaxed));
        }
    }
}
