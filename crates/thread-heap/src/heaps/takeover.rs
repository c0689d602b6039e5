//! Inboxes of idle owners: any thread can give the memory of the blocks that wait there back.
//!
//! ```text
//!   inbox    carrier ► carrier ► carrier           what senders pushed
//!               │ a takeover, by any thread
//!               ▼
//!   inbox    table                                 pages of waiting blocks are with the system
//!               │ take_all, by the owner
//!               ▼
//!   pools    every block is free                   pages come back as they are written to
//! ```
//!
//! An owner that does not run leaves its inbox as it is. Its heap cannot be entered, but the
//! blocks in the inbox belong to whoever takes them out. So another thread takes them out, purges
//! the pages that they cover, and pushes back a [table](WaitingPools) of them. This happens
//!
//! - when a thread asks for it ([`PerThread::flush`](crate::PerThread::flush)), to every inbox;
//! - when a sender finds that more than [`MOST_WAITING`] bytes wait in all inboxes together, to
//!   those in which at least [`STEP`] wait.
//!
//! Without memory for a table, the blocks go back as they are.

use std::ptr::NonNull;

use raw_mem::{ArenaSource, preserving_errno};
use sync::{MutexGuard, atomic::Ordering::Relaxed};

use crate::{
    carrier::{Batch, Carrier},
    heaps::Heaps,
    link::{Chain, Nodes},
    parts::Parts,
    thread_heap::{ThreadHeap, deliver},
    waiting_pools::{PAGE, WaitingPools},
};

/// The most bytes that wait in all inboxes together before senders take inboxes over: as many as
/// the arenas that [`RetainingArenas`](raw_mem::RetainingArenas) keeps.
const MOST_WAITING: usize = 16 << 20;

/// The bytes of one inbox after which a sender adds up what waits in all of them.
const STEP: usize = 256 << 10;

impl<P: Parts> Heaps<P> {
    /// Sends freed blocks of `receiver`. Also limits how many blocks wait for owners that do not
    /// take them.
    pub(crate) fn send(&self, receiver: NonNull<ThreadHeap<P>>, batch: Batch) {
        // SAFETY: a receiver is a registered heap, and those live forever.
        let receiver: &ThreadHeap<P> = unsafe { receiver.as_ref() };
        let is_waiting = deliver(receiver, batch.chain);
        if is_waiting && receiver.inbox.count(batch.bytes, STEP) {
            self.limit_waiting();
        }
    }

    /// Takes inboxes over if too much waits in all of them together. O(heaps).
    #[cold]
    #[inline(never)]
    fn limit_waiting(&self) {
        let waiting = self.registry.iter().map(|heap| heap.inbox.waiting());
        if waiting.fold(0, usize::saturating_add) > MOST_WAITING {
            self.take_over_inboxes(STEP);
        }
    }

    /// Takes over the inboxes in which at least `least` bytes wait, and purges the pages that
    /// hold nothing but waiting blocks. If another thread is doing so, that is left to it.
    ///
    /// O(heaps + waiting blocks), and a system call for each range of pages.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_over_inboxes(&self, least: usize) {
        if self.purges_are_refused.load(Relaxed) {
            return;
        }
        let Some(_taking_over) = sync::try_lock(&self.takeovers) else { return };
        // A sender is in a call that frees memory, which must leave `errno` alone.
        preserving_errno(|| {
            for heap in self.registry.iter().filter(|heap| heap.inbox.waiting() >= least) {
                self.take_over(heap);
            }
        });
    }

    /// Waits until no inbox is being taken over, and keeps it so until the guard is dropped. A
    /// fork must happen under it, or the child loses what another thread has taken out.
    pub(crate) fn pause_takeovers(&self) -> MutexGuard<'_, ()> {
        sync::lock(&self.takeovers)
    }

    /// Takes over the inbox of `heap`.
    pub(super) fn take_over(&self, heap: &ThreadHeap<P>) {
        let bytes = heap.inbox.restart_count();
        let Some(nodes) = heap.inbox.take_over() else { return };
        let (chain, is_complete) = self.purge(nodes, bytes);
        let Some(chain) = chain else { return };
        if deliver(heap, chain) && !is_complete {
            heap.inbox.count(bytes, STEP);
        }
    }

    /// Puts the blocks of `nodes` into one table, if there is memory for it, and purges the pages
    /// that they cover. The nodes were taken out of an inbox after about `bytes` had been pushed
    /// there. Returns the chain to push back, and false if it still contains carriers.
    fn purge(&self, mut nodes: Nodes<Carrier>, bytes: usize) -> (Option<Chain<Carrier>>, bool) {
        // SAFETY: the nodes are ours, and are carriers or tables.
        let blocks = |node| unsafe { Carrier::blocks(node) };
        let mut table = match nodes.take_out(|node| blocks(node).is_none()) {
            // SAFETY: the node is ours, and the head of a table.
            Some(node) => Some(unsafe { WaitingPools::<P::Geometry>::from_node(node) }),
            // So little covers no page.
            None if bytes < PAGE => None,
            None => WaitingPools::new(&self.lower),
        };
        let mut back = None;
        for node in nodes {
            let with_room = table
                .as_mut()
                .zip(blocks(node))
                .and_then(|(table, blocks)| table.reserve(blocks, &self.lower).then_some(table));
            match with_room {
                Some(table) => {
                    // SAFETY: a sender gave the block up, and its owner has not taken it.
                    let add = |block| unsafe { table.add(block) };
                    // SAFETY: its sender loaded it, and it is ours now with all that it carries.
                    unsafe { Carrier::unload(node, add) };
                }
                // SAFETY: the node is ours, and given to the chain.
                None => unsafe { put(&mut back, node) },
            }
        }
        let is_complete = back.is_none();
        if let Some(mut table) = table {
            table.purge(|start, len| self.purge_pages(start, len));
            // SAFETY: the table is ours, and given to the chain.
            unsafe { put(&mut back, table.into_node()) };
        }
        (back, is_complete)
    }

    /// Gives pages back to the system. If the system does not take them, they stay as they are, and
    /// no inbox is taken over again.
    fn purge_pages(&self, start: NonNull<u8>, len: usize) {
        let mut source = sync::lock(&self.source);
        // SAFETY: the range lies in one arena, which is mapped because blocks of it are in use;
        // all of its bytes belong to blocks that the caller owns and does not read again.
        if unsafe { source.purge(start, len) }.is_err() {
            self.purges_are_refused.store(true, Relaxed);
        }
    }
}

/// Puts `node` before the others.
///
/// # Safety
///
/// The caller owns the node, and gives it to the chain.
unsafe fn put(chain: &mut Option<Chain<Carrier>>, node: NonNull<Carrier>) {
    match chain {
        // SAFETY: the caller's promise.
        Some(chain) => unsafe { chain.push(node) },
        // SAFETY: as above.
        None => *chain = Some(unsafe { Chain::of(node) }),
    }
}
