//! Opening a heap: adopting an abandoned one, or creating a new one.

use obmalloc::HeapTag;
use raw_mem::MemAlloc;
use sync::atomic::Ordering::Relaxed;

use super::{Heaps, ThreadHeap, owner::Owner};
use crate::{parts::Parts, shared_arenas::SharedArenas};

impl<P: Parts> Heaps<P> {
    /// Opens a heap for the caller, which becomes its owner. Adopts an abandoned heap if there is
    /// one, and otherwise creates a heap. Returns `None` if a heap must be created and the metadata
    /// allocator either cannot allocate memory for it or returns memory that is insufficiently
    /// aligned.
    ///
    /// O(heaps). The number of heaps is the largest number of heaps that have had an owner at the
    /// same time.
    pub fn open(&'static self) -> Option<Owner<P>> {
        self.list.iter().find_map(Owner::adopt).or_else(|| self.create())
    }

    /// Opens a heap for the thread whose number is `thread`. Looks for a heap that either is
    /// abandoned or was left open by an earlier thread with the same number, and opens the first
    /// heap that it finds. If there is no such heap, creates one. Returns `None` in the same cases
    /// as [`open`](Self::open).
    ///
    /// # Safety
    ///
    /// - Every heap whose [`ThreadHeap::thread`] equals `thread` must have been opened by a thread
    ///   that has ended. That thread must not have ended during a call into the heap.
    pub(crate) unsafe fn open_as(&'static self, thread: usize) -> Option<Owner<P>> {
        // Relaxed is enough. The number of a thread is an address in its thread-local memory, so a
        // thread with the same number as an earlier one uses the same memory. The C library makes
        // the end of the earlier thread happen before the new thread uses this memory.
        let open = |heap: &'static ThreadHeap<P>| match heap.thread.load(Relaxed) == thread {
            // SAFETY: the thread that owned the heap has ended, and did not end during a call into
            // the heap (contract of `open_as`).
            true => Some(unsafe { Owner::new(heap) }),
            false => Owner::adopt(heap),
        };
        self.list.iter().find_map(open).or_else(|| self.create())
    }

    /// Creates a heap that the caller owns. Returns `None` if the metadata allocator cannot
    /// allocate memory for the heap, or if it returns memory that is insufficiently aligned.
    fn create(&'static self) -> Option<Owner<P>> {
        let lower = self.shared.lower();
        let block = lower.malloc(size_of::<ThreadHeap<P>>())?;
        let place = block.cast::<ThreadHeap<P>>();
        if !place.is_aligned() {
            // SAFETY: the block came from `lower` just now, and nobody else refers to it.
            unsafe { lower.free(Some(block)) };
            return None;
        }
        let tag = HeapTag(place.as_ptr().cast_const().cast());
        let heap = ThreadHeap::new(self, SharedArenas::of(&self.shared), lower.clone(), tag);
        // SAFETY: we own the block, which has the size of a `ThreadHeap` and is sufficiently
        // aligned for it.
        unsafe { place.write(heap) };
        // SAFETY: the heap was written just now and is never freed. From now on there are only
        // shared references to it.
        let heap: &'static ThreadHeap<P> = unsafe { place.as_ref() };
        self.list.add(heap);
        // SAFETY: the inbox of a new heap says that the heap has an owner, so no other thread can
        // adopt it. The caller becomes this owner.
        Some(unsafe { Owner::new(heap) })
    }
}
