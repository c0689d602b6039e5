//! Freeing blocks of heaps that the calling thread does not own.

use std::ptr::NonNull;

use obmalloc::BlockPtr;

use super::{Heaps, takeover::STEP};
use crate::{freed::batch::Batches, parts::Parts, thread_heap::ThreadHeap};

impl<P: Parts> Heaps<P> {
    /// Frees a block for a thread that has no heap. The block is sent to its owner at once.
    ///
    /// # Safety
    ///
    /// - `block` must have come from one of these heaps.
    /// - Nobody may use it any more.
    // Never inlined, so that the common path of the caller needs no stack frame.
    #[inline(never)]
    pub unsafe fn free_remote(&self, block: BlockPtr) {
        let start = block.into_start();
        // SAFETY: the block is in use, in one of these heaps (contract of `free_remote`).
        let receiver = unsafe { ThreadHeap::<P>::of_block(start) };
        // SAFETY: as above.
        let size = unsafe { ThreadHeap::<P>::size_of_block(start) };
        // SAFETY: the block is given up, has `size` bytes, and is as large as the alignment.
        if let Some(batches) = unsafe { Batches::pack(&[start], |_| size) } {
            self.send(receiver, batches);
        }
    }

    /// Frees a block of another heap through the outbox of `heap`.
    ///
    /// # Safety
    ///
    /// - The caller must own `heap`.
    /// - `block` must belong to another heap of these.
    #[inline]
    pub(crate) unsafe fn free_elsewhere(&self, heap: &ThreadHeap<P>, block: BlockPtr) {
        // SAFETY: the block is in use, in one of these heaps (contract of `free_elsewhere`).
        let receiver = unsafe { ThreadHeap::<P>::of_block(block.start()) };
        // SAFETY: the caller owns `heap` (contract), and the block belongs to `receiver`.
        if let Some(block) = unsafe { heap.post(receiver, block) } {
            // SAFETY: as above.
            unsafe { self.free_after_sending(heap, receiver, block) };
        }
    }

    /// Sends the blocks in the outbox of `heap`, and then adds `block`.
    ///
    /// # Safety
    ///
    /// The caller must own `heap`, and `block` must belong to the heap `receiver`.
    #[cold]
    #[inline(never)]
    unsafe fn free_after_sending(
        &self,
        heap: &ThreadHeap<P>,
        receiver: NonNull<ThreadHeap<P>>,
        block: BlockPtr,
    ) {
        // SAFETY: the caller owns `heap` (contract of `free_after_sending`).
        unsafe { self.send_outbox(heap) };
        // SAFETY: as above, and the block belongs to `receiver` (contract).
        let refused = unsafe { heap.post(receiver, block) };
        debug_assert!(refused.is_none(), "an empty outbox has room");
    }

    /// Sends the blocks in the outbox of `heap`, and reclaims what others freed. A thread that
    /// frees and allocates on its fast paths only has no other occasion to reclaim.
    ///
    /// It is never inlined, so that a block that only waits needs no stack frame.
    ///
    /// # Safety
    ///
    /// The caller must own `heap`.
    #[inline(never)]
    pub(crate) unsafe fn send_outbox(&self, heap: &ThreadHeap<P>) {
        // SAFETY: the caller owns `heap` (contract of `send_outbox`).
        unsafe { heap.reclaim_inbox() };
        // SAFETY: as above.
        if let Some((receiver, batches)) = unsafe { heap.pack_outbox() } {
            self.send(receiver, batches);
        }
    }

    /// Sends freed blocks of `receiver`. Limits how many blocks wait for owners that do not take
    /// them.
    fn send(&self, receiver: NonNull<ThreadHeap<P>>, batches: Batches) {
        // SAFETY: the receiver is in the list of heaps, and those live forever.
        let receiver: &ThreadHeap<P> = unsafe { receiver.as_ref() };
        let is_waiting = receiver.deliver(batches.nodes);
        if is_waiting && receiver.inbox.count(batches.bytes, STEP) {
            self.limit_waiting();
        }
    }
}
