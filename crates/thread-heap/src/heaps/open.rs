//! How threads get a heap.

use obmalloc::HeapTag;
use raw_mem::MemAlloc;
use sync::atomic::Ordering::Relaxed;

use super::{Heaps, ThreadHeap, owner::Owner};
use crate::{parts::Parts, shared_arenas::SharedArenas};

impl<P: Parts> Heaps<P> {
    /// Opens a heap for the caller: an abandoned one, or else a new one. Returns `None` if the
    /// allocator of metadata has no suitable memory for a new one.
    ///
    /// O(heaps). There are at most as many heaps as ever had an owner at the same time.
    pub fn open(&'static self) -> Option<Owner<P>> {
        self.list.iter().find_map(Owner::adopt).or_else(|| self.create())
    }

    /// Opens a heap for the thread with the number `thread`: the first one that is abandoned or that
    /// a thread with this number left open, or else a new one. Returns `None` as
    /// [`open`](Self::open) does.
    ///
    /// # Safety
    ///
    /// Every heap that has this number (see [`ThreadHeap::thread`]) must have been owned by a thread
    /// that ended outside of any call into the heap.
    pub(crate) unsafe fn open_as(&'static self, thread: usize) -> Option<Owner<P>> {
        // Relaxed is enough. The C library makes the end of the old thread happen before a new
        // thread uses the same memory for its thread-locals, and their address is the number.
        let open = |heap: &'static ThreadHeap<P>| match heap.thread.load(Relaxed) == thread {
            // SAFETY: its owner has ended outside of the heap (contract of `open_as`).
            true => Some(unsafe { Owner::new(heap) }),
            false => Owner::adopt(heap),
        };
        self.list.iter().find_map(open).or_else(|| self.create())
    }

    /// Creates a heap. Returns `None` if the allocator of metadata has no memory for it, or aligns
    /// its blocks to less than the heap needs.
    fn create(&'static self) -> Option<Owner<P>> {
        let lower = self.shared.lower();
        let block = lower.malloc(size_of::<ThreadHeap<P>>())?;
        let place = block.cast::<ThreadHeap<P>>();
        if !place.is_aligned() {
            // SAFETY: the block came from `lower` just now, and nobody uses it.
            unsafe { lower.free(Some(block)) };
            return None;
        }
        let tag = HeapTag(place.as_ptr().cast_const().cast());
        let heap = ThreadHeap::new(self, SharedArenas::of(&self.shared), lower.clone(), tag);
        // SAFETY: we own the block, which has the size and the alignment of a heap.
        unsafe { place.write(heap) };
        // SAFETY: the heap was written just now, is never freed, and is only shared from now on.
        let heap: &'static ThreadHeap<P> = unsafe { place.as_ref() };
        self.list.add(heap);
        // SAFETY: a new heap has an owner, which is the caller.
        Some(unsafe { Owner::new(heap) })
    }
}
