//! The part of a takeover that purges pages.
//!
//! A takeover moves the blocks of an inbox into a table. Pages that waiting blocks cover completely
//! are then purged.
//!
//! Any thread may perform a takeover, because taking blocks out of an inbox makes the thread their
//! owner.

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

/// Moves the blocks of `nodes` into a table, and purges the pages that they fill.
///
/// Returns the nodes to push back to the inbox, and true if some blocks are not in the table.
///
/// `bytes` is the approximate size of all blocks.
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
    // Fewer bytes than a page cannot fill a page.
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
                // SAFETY: we took the block out of the inbox, and its heap counts it as in use.
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
            // SAFETY: our blocks fill the range, keep its arena mapped, and are not read again.
            if unsafe { shared.source().purge(start, len) }.is_err() {
                shared.purges_are_refused.store(true, Relaxed);
            }
        });
        // SAFETY: we own the table, and give it up.
        unsafe { Segment::push(&mut back, table.into_node()) };
    }
    (back, has_batches)
}
