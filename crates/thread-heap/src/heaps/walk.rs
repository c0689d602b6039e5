//! A walk over the blocks in use of all heaps of a quiet process.

use std::mem::ManuallyDrop;

use obmalloc::LiveBlock;

use super::{Heaps, owner::Owner};
use crate::parts::Parts;

impl<P: Parts> Heaps<P> {
    /// Calls `visit` with each block in use of all heaps. O(heaps + blocks).
    ///
    /// Before the function visits the blocks of a heap, it reclaims the blocks that other threads
    /// have freed and that still wait in the heap's inbox. Freed blocks are therefore not visited.
    /// Large blocks are not visited either, because they belong to no heap.
    ///
    /// # Safety
    ///
    /// - During the call, no other thread may use a heap that this [`Heaps`] manages.
    /// - `visit` must neither allocate from these heaps nor free their blocks.
    pub unsafe fn for_each_block(&'static self, mut visit: impl FnMut(LiveBlock)) {
        // SAFETY: nothing else uses a heap (contract).
        unsafe { self.with_each_owner(Owner::send_outbox) };
        // SAFETY: as above. `visit` does not use a heap either (contract).
        unsafe {
            self.with_each_owner(|owner| {
                owner.reclaim_inbox();
                owner.for_each_block(&mut visit);
            });
        }
    }

    /// Calls `visit` with the owner of each heap, or with a temporary owner if the heap is
    /// abandoned.
    ///
    /// # Safety
    ///
    /// - Nothing else may use a heap of this family during the call.
    unsafe fn with_each_owner(&'static self, mut visit: impl FnMut(&mut Owner<P>)) {
        for heap in self.list.iter() {
            // Dropping an owner that has adopted the heap abandons the heap again.
            if let Some(mut owner) = Owner::adopt(heap) {
                visit(&mut owner);
                continue;
            }
            // SAFETY: the heap's owner does not use it during the call (contract). The copy is not
            // dropped.
            let mut owner = ManuallyDrop::new(unsafe { Owner::new(heap) });
            visit(&mut owner);
        }
    }
}
