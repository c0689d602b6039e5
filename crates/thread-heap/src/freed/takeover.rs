//! The part of a takeover that purges pages. In a takeover, a thread takes all blocks out of an
//! inbox, collects them in a table, and purges the pages that contain only these blocks. Then it
//! pushes the table to the inbox.
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
//! A thread that takes blocks out of an inbox exclusively owns these blocks, even if the thread is
//! not the owner of the heap. If the memory for a table cannot be allocated, the thread pushes the
//! blocks back unchanged.

use raw_mem::ArenaSource;
use sync::{
    atomic::Ordering::Relaxed,
    link::{Chain, Segment},
};

use super::{
    batch::Batch,
    waiting_pools::{PAGE, WaitingPools},
};
use crate::{parts::Parts, shared_source::SharedSource};

/// Moves the blocks of `nodes` into one table, and purges the pages that contain only these blocks.
/// If the memory for the table cannot be allocated, some batches stay unchanged. `bytes` is the
/// approximate number of bytes that were pushed to the inbox before the inbox was taken over.
/// Returns the nodes that the caller must push back to the inbox, and true if some of these nodes
/// are batches.
pub(crate) fn purge<P: Parts>(
    shared: &SharedSource<P>,
    nodes: Chain<Batch>,
    bytes: usize,
) -> (Option<Segment<Batch>>, bool) {
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
    // Blocks that have fewer bytes than a page cannot cover a page. No page could be purged, so we
    // do not create a table.
    if table.is_none() && bytes >= PAGE {
        table = WaitingPools::new(shared.lower());
    }
    let mut back = None;
    for batch in batches {
        // SAFETY: we own the batch.
        let blocks = unsafe { Batch::blocks(batch) };
        let with_room = table
            .as_mut()
            .zip(blocks)
            .and_then(|(table, blocks)| table.reserve(blocks, shared.lower()).then_some(table));
        match with_room {
            Some(table) => {
                // SAFETY: the thread that sent the block gave up its ownership, and we took the
                // block out of the inbox, so we own it. The owner of the heap has not reclaimed the
                // block, so the block still is in use from the point of view of the heap.
                let add = |block| unsafe { table.add(block) };
                // SAFETY: we own the batch and its blocks.
                unsafe { Batch::unpack(batch, add) };
            }
            // SAFETY: we own the batch, and give it up.
            None => unsafe { Segment::push(&mut back, batch) },
        }
    }
    let has_batches = back.is_some();
    if let Some(mut table) = table {
        table.purge(|start, len| {
            // SAFETY: the range lies in one arena. The arena is mapped, because the heap treats the
            // waiting blocks in it as in use. Each byte of the range belongs to a block that we own
            // and do not read again.
            if unsafe { shared.source().purge(start, len) }.is_err() {
                shared.purges_are_refused.store(true, Relaxed);
            }
        });
        // SAFETY: we own the table, and give it up.
        unsafe { Segment::push(&mut back, table.into_node()) };
    }
    (back, has_batches)
}
