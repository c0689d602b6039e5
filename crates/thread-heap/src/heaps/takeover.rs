//! Takeovers of inboxes, which purge the blocks that wait for idle owners.
//!
//! ```text
//!   inbox    batch ► batch ► batch    pushed by senders
//!              │ a takeover by any thread
//!              ▼
//!   inbox    table                    the pages of waiting blocks are purged
//!              │ take_all by the owner
//!              ▼
//!   pools    every block is free      a page comes back when it is written to
//! ```
//!
//! An owner that does not run leaves its inbox as it is, and nobody else may enter its heap. But the
//! blocks in the inbox belong to whoever takes them out. Another thread can therefore take them out,
//! purge the pages that they cover, and push back a [table](WaitingPools) of them. This happens
//!
//! - to every inbox, when a thread [flushes](crate::PerThread::flush);
//! - to each inbox with at least [`STEP`] waiting bytes, when a sender finds that more than
//!   [`MOST_WAITING`] bytes wait in all inboxes together.
//!
//! If there is no memory for a table, the blocks are pushed back as they are.

use std::ptr::NonNull;

use raw_mem::{Advice, ArenaSource, preserving_errno};
use sync::{
    MutexGuard,
    atomic::Ordering::Relaxed,
    link::{Chain, Segment},
};

use super::Heaps;
use crate::{
    freed::{
        batch::Batch,
        waiting_pools::{PAGE, WaitingPools},
    },
    parts::Parts,
    thread_heap::ThreadHeap,
};

/// The most bytes that wait in all inboxes together before senders take inboxes over. The limit of
/// [retained arenas](raw_mem::WarmArenas) is the same.
const MOST_WAITING: usize = 16 << 20;

/// A sender adds up what waits in all inboxes when one of them has received this many bytes.
pub(super) const STEP: usize = 256 << 10;

impl<P: Parts> Heaps<P> {
    /// Takes over inboxes if too much waits in all of them together. O(heaps).
    #[cold]
    #[inline(never)]
    pub(super) fn limit_waiting(&self) {
        let waiting = self.list.iter().map(|heap| heap.inbox.waiting());
        if waiting.fold(0, usize::saturating_add) > MOST_WAITING {
            self.take_over_inboxes(STEP);
        }
    }

    /// Takes over the inboxes in which at least `least` bytes wait, and purges the pages that
    /// contain waiting blocks only. Does nothing if another thread is doing so.
    ///
    /// O(heaps + waiting blocks), and a system call for each range of pages.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_over_inboxes(&self, least: usize) {
        if self.purges_are_refused.load(Relaxed) {
            return;
        }
        let Some(_guard) = sync::try_lock(&self.takeovers) else { return };
        // A sender may be inside a call that must not change `errno`, because it frees memory.
        preserving_errno(|| {
            for heap in self.list.iter().filter(|heap| heap.inbox.waiting() >= least) {
                self.take_over(heap);
            }
        });
    }

    /// Prevents takeovers until the guard is dropped, after waiting for one that runs. A fork must
    /// happen under this lock. Otherwise the child loses what another thread has taken out.
    pub(crate) fn pause_takeovers(&self) -> MutexGuard<'_, ()> {
        sync::lock(&self.takeovers)
    }

    /// Takes over the inbox of `heap`.
    fn take_over(&self, heap: &ThreadHeap<P>) {
        let bytes = heap.inbox.restart_count();
        let Some(nodes) = heap.inbox.take_over() else { return };
        let (nodes, has_batches) = self.purge(nodes, bytes);
        let Some(nodes) = nodes else { return };
        if heap.deliver(nodes) && has_batches {
            heap.inbox.count(bytes, STEP);
        }
    }

    /// Moves the blocks of `nodes` into one table, as far as there is memory for it, and purges the
    /// pages that they cover. About `bytes` had been pushed to the inbox before it was taken over.
    /// Returns the nodes to push back, and true if they include batches.
    fn purge(&self, nodes: Chain<Batch>, bytes: usize) -> (Option<Segment<Batch>>, bool) {
        let lower = self.shared.lower();
        let (mut table, mut batches) = (None, Chain::EMPTY);
        for node in nodes {
            // SAFETY: we own the node, which is a packed batch or the head of a table.
            if table.is_none() && unsafe { Batch::blocks(node) }.is_none() {
                // SAFETY: we own the node, which is the head of a table.
                table = Some(unsafe { WaitingPools::<P::Geometry>::from_node(node) });
            } else {
                // SAFETY: we own the node, and give it up.
                unsafe { batches.push(node) };
            }
        }
        // Fewer bytes than a page cover none.
        if table.is_none() && bytes >= PAGE {
            table = WaitingPools::new(lower);
        }
        let mut back = None;
        for batch in batches {
            // SAFETY: we own the batch.
            let blocks = unsafe { Batch::blocks(batch) };
            match table.as_mut().zip(blocks) {
                Some((table, blocks)) if table.reserve(blocks, lower) => {
                    // SAFETY: a sender gave the block up, and its owner has not taken it.
                    let add = |block| unsafe { table.add(block) };
                    // SAFETY: we own the batch and its blocks.
                    unsafe { Batch::unpack(batch, add) };
                }
                // SAFETY: we own the batch, and give it up.
                _ => unsafe { Segment::push(&mut back, batch) },
            }
        }
        let has_batches = back.is_some();
        if let Some(mut table) = table {
            table.purge(|start, len| self.purge_pages(start, len));
            // SAFETY: we own the table, and give it up.
            unsafe { Segment::push(&mut back, table.into_node()) };
        }
        (back, has_batches)
    }

    /// Purges pages. If the system refuses, they stay as they are, and no inbox is taken over again.
    fn purge_pages(&self, start: NonNull<u8>, len: usize) {
        let mut source = self.shared.source();
        // SAFETY: the range lies in one arena, which is mapped because blocks in it are in use. We
        // own the blocks that all bytes of the range belong to, and do not read them again.
        if unsafe { source.advise(start, len, Advice::DontNeed) }.is_err() {
            self.purges_are_refused.store(true, Relaxed);
        }
    }
}
