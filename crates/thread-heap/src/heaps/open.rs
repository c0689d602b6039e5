//! Opening a heap: adopting an abandoned one, or creating a new one.

use obmalloc::HeapTag;
use raw_mem::MemAlloc;
use sync::atomic::Ordering::Relaxed;

use super::{Heaps, ThreadHeap, owner::Owner};
use crate::{parts::Parts, shared_arenas::SharedArenas};

impl<P: Parts> Heaps<P> {
    /// Opens a heap that the caller owns. Adopts an abandoned heap or creates a new one.
    ///
    /// Returns `None` if the metadata allocator cannot provide suitably aligned memory for a new
    /// heap. The call takes O(heaps) time, because it may look at every heap in the list. Abandoned
    /// heaps are reused, so the list is about as long as the largest number of owners that have
    /// existed at the same time.
    pub fn open(&'static self) -> Option<Owner<P>> {
        self.list.iter().find_map(Owner::adopt).or_else(|| self.create())
    }

    /// Opens a heap for the thread whose number is `thread`.
    ///
    /// A thread's number is an address in its thread-local memory, so a new thread can have the
    /// same number as a thread that has already ended. If that earlier thread ended without closing
    /// its heap, the heap still carries this number, and the new thread can take it. The function
    /// opens the first heap in the list that is either abandoned or carries the number `thread`. If
    /// the list contains no such heap, the function creates a new one.
    ///
    /// The heap's blocks are naturally aligned: a 64-byte block is aligned to 64 bytes, and a
    /// 48-byte block to 16.
    ///
    /// # Safety
    ///
    /// Each heap whose [`ThreadHeap::thread`] is the given number must meet these requirements:
    ///
    /// - The thread that opened the heap has ended.
    /// - The thread did not end during a call into the heap.
    pub(crate) unsafe fn open_as(&'static self, thread: usize) -> Option<Owner<P>> {
        // Relaxed is enough. The number is an address in thread-local memory, and the C library
        // synchronises the reuse of that memory.
        let open = |heap: &'static ThreadHeap<P>| match heap.thread.load(Relaxed) == thread {
            // SAFETY: the owning thread has ended, but not during a call into the heap (contract).
            true => Some(unsafe { Owner::new(heap) }),
            false => Owner::adopt(heap),
        };
        // Only an owner sets the flag, so it cannot change while we own the heap.
        let aligned = |owner: &Owner<P>| !owner.heap().is_shifted.load(Relaxed);
        let heaps = self.list.iter();
        heaps.filter_map(open).find(aligned).or_else(|| self.create())
    }

    /// Creates a heap that the caller owns. Fails like [`open`](Self::open).
    fn create(&'static self) -> Option<Owner<P>> {
        let lower = self.shared.lower();
        let block = lower.malloc(size_of::<ThreadHeap<P>>())?;
        let place = block.cast::<ThreadHeap<P>>();
        if !place.is_aligned() {
            // SAFETY: the block came from `lower` just now, and nothing else refers to it.
            unsafe { lower.free(Some(block)) };
            return None;
        }
        let tag = HeapTag(place.as_ptr().cast_const().cast());
        let heap = ThreadHeap::new(self, SharedArenas::of(&self.shared), lower.clone(), tag);
        // SAFETY: we own the block, which is large and aligned enough for a `ThreadHeap`.
        unsafe { place.write(heap) };
        // SAFETY: the heap was written just now, is never freed, and is only shared from now on.
        let heap: &'static ThreadHeap<P> = unsafe { place.as_ref() };
        self.list.add(heap);
        // SAFETY: a new inbox is marked as having an owner, so no other thread can adopt the heap.
        Some(unsafe { Owner::new(heap) })
    }
}
