//! A heap of the process that belongs to a value instead of a thread.

use std::mem;

use obmalloc::{BlockPtr, SizeClass, Stats};
use sync::atomic::Ordering::Relaxed;

use super::{
    decay, fork,
    heaps::{CurrentParts, HEAPS},
    slot,
};
use crate::{
    before_refusal,
    heaps::{owner::Owner, stats::HeapsStats},
    parts::ThreadGeometry,
};

/// An [`Owner`] of one of the process's heaps that can move between threads.
///
/// In a runtime with a global lock, all threads can share one `OwnedHeap`. A block that was freed
/// by one thread can then be reused immediately by another.
///
/// An `OwnedHeap` can free the blocks of every other `OwnedHeap` and
/// of [`PerThread`](crate::PerThread), the allocator that gives each thread its own heap.
/// `PerThread` can also free the blocks of every `OwnedHeap`.
///
/// When an `OwnedHeap` is dropped, its blocks stay valid. Its heap is abandoned, which means that
/// it has no owner until another `OwnedHeap` adopts it. A thread never adopts the heap for its own
/// requests, because the blocks of an `OwnedHeap` are aligned differently.
///
/// New pools use [`BlockStart::AsInCPython`](obmalloc::BlockStart::AsInCPython), because Python's
/// garbage collector walks over objects at these addresses faster.
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
///
/// # Fork
///
/// If another thread is using an `OwnedHeap` during a fork, the heap may be inconsistent in the
/// child. The child must then neither use nor drop the `OwnedHeap`. Instead, it can pass the value
/// to [`lose`](Self::lose).
#[derive(Debug)]
pub struct OwnedHeap {
    owner: Owner<CurrentParts>,
}

// SAFETY: operations that change the heap borrow the value mutably, so only one thread at a time
// changes it. The synchronisation that moves the value also makes the changes visible.
unsafe impl Send for OwnedHeap {}

impl OwnedHeap {
    /// Opens a heap. Adopts an abandoned heap or creates a new one. See [`Heaps::open`].
    ///
    /// [`Heaps::open`]: crate::Heaps::open
    ///
    /// Returns `None` if the memory for a new heap cannot be allocated.
    pub fn open() -> Option<Self> {
        fork::guard();
        Some(Self::new(HEAPS.open()?))
    }

    /// Turns the calling thread's heap, with all of its blocks, into an `OwnedHeap`.
    ///
    /// If the thread has no heap, [opens](Self::open) one. The thread's next allocation opens
    /// another heap.
    ///
    /// If this function is called by the callback that was set
    /// with [`before_refusal`](crate::PerThread::before_refusal), it [opens](Self::open) another
    /// heap. The callback runs during a request to the thread's heap, so the thread's heap is still
    /// in use.
    pub fn of_this_thread() -> Option<Self> {
        if before_refusal::is_asking() {
            return Self::open();
        }
        slot::take().map(Self::new).or_else(Self::open)
    }

    fn new(mut owner: Owner<CurrentParts>) -> Self {
        owner.shift_blocks();
        owner.set_purge_policy(decay::policy());
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

    /// Allocates a block of `class` whose first `bytes` bytes are zero.
    /// See [`Owner::alloc_zeroed`].
    pub fn alloc_zeroed(
        &mut self,
        class: SizeClass<ThreadGeometry>,
        bytes: usize,
    ) -> Option<BlockPtr> {
        self.owner.alloc_zeroed(class, bytes)
    }

    /// Frees a block of any heap of the process. See [`Owner::free`].
    ///
    /// # Safety
    ///
    /// - `block` must have come from an `OwnedHeap` or from [`PerThread`](crate::PerThread).
    /// - `block` must not be used afterwards.
    #[inline]
    pub unsafe fn free(&mut self, block: BlockPtr) {
        // SAFETY: the block came from one of the process's heaps (contract of `free`).
        unsafe { self.owner.free(block) };
    }

    /// Frees `block`, which must be linked or a span. It can belong to any heap of the process.
    ///
    /// See [`Owner::free_linked_or_span`].
    ///
    /// # Safety
    ///
    /// - The requirements of [`free`](Self::free) must be met.
    /// - The class of `block` must be [linked](SizeClass::is_linked) or
    ///   a [span](SizeClass::is_span).
    #[inline]
    pub unsafe fn free_linked_or_span(&mut self, block: BlockPtr) {
        // SAFETY: the block came from one of the process's heaps, is not used afterwards, and is
        // small or a span (contract).
        unsafe { self.owner.free_linked_or_span(block) };
    }

    /// Returns as much unused memory to the system as this heap can. See [`Owner::flush`].
    ///
    /// The result is the number of bytes returned to the system. Some of these bytes may never have
    /// been in memory.
    pub fn flush(&mut self) -> usize {
        self.owner.flush()
    }

    /// Lets the heap return memory that has been free for a long time.
    ///
    /// See [`Heap::visit`](obmalloc::Heap::visit).
    #[inline]
    pub fn visit(&mut self) {
        self.owner.visit();
    }

    /// Counts the memory in use in this heap. See [`Owner::stats`].
    pub fn stats(&mut self) -> Stats {
        self.owner.stats()
    }

    /// Consumes the value without accessing the heap, which may be inconsistent in a forked child.
    ///
    /// The blocks of the heap can still be freed, but their memory is not reused.
    pub fn lose(self) {
        self.owner.heap().outlives_threads.store(false, Relaxed);
        mem::forget(self);
    }

    /// Counts the memory in use in this heap, the calling thread's heap, and all abandoned heaps.
    /// O(heaps + pools).
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
        // The field `owner` is dropped after this function, which abandons the heap.
        self.owner.heap().outlives_threads.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use obmalloc::{Blocks, Shape};

    use super::*;
    use crate::PerThread;

    fn offset(block: &BlockPtr) -> usize {
        // SAFETY: the block is in use.
        unsafe { Shape::<ThreadGeometry>::first_block_at(block.start()) }
    }

    #[test]
    fn blocks_begin_as_in_cpython_and_no_thread_adopts_the_heap() {
        let class = SizeClass::of(64).unwrap();
        let heap = std::thread::spawn(move || {
            let mut owned = OwnedHeap::open().unwrap();
            let block = owned.alloc(class).unwrap();
            assert_eq!(offset(&block) % 64, 48);
            // SAFETY: the block came from this heap, and is not used again.
            unsafe { owned.free(block) };
            let heap = owned.owner.heap();
            drop(owned);
            heap
        });
        let heap = heap.join().unwrap();
        std::thread::spawn(move || {
            let block = PerThread.alloc(class).unwrap();
            assert_eq!(offset(&block) % 64, 0);
            assert!(!std::ptr::eq(slot::get(), heap));
            // SAFETY: the block came from these heaps, and is not used again.
            unsafe { PerThread.free(block) };
        })
        .join()
        .unwrap();
    }

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
