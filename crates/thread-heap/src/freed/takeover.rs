//! The part of a takeover that purges pages.
//!
//! Blocks that other threads have freed wait in the inbox of their heap until the heap's owner
//! reclaims them. To return the memory of waiting blocks to the system earlier, any thread may
//! perform a takeover: it takes all blocks out of the inbox, which makes it their owner, and enters
//! them into a table. For each page, the table counts the bytes that belong to waiting blocks. The
//! thread purges all pages that waiting blocks cover completely, and puts the table into the inbox.
//!
//! A pool of more than 32 pages is too large for the table in which a takeover counts the waiting
//! blocks of each page. In our own geometry, however, such a pool contains only one block. If this
//! block waits in an inbox, all pages of the pool are unused, and the thread can purge them without
//! a table. The thread keeps only the first page, because the inbox is a linked list of freed
//! blocks: the first page stores the block's link to the next one and its count (see [`Batch`]).
//!
//! In other geometries, such a pool can have several blocks. A takeover does not purge its pages.

use std::{cell::Cell, ptr::NonNull};

use obmalloc::{Geometry, SizeClass};
use raw_mem::{ArenaSource, MemAlloc, mark_accessible, mark_inaccessible};
use sync::{
    atomic::Ordering::Relaxed,
    link::{Chain, Segment},
};

use super::{
    batch::{Batch, Kind},
    waiting_pools::{MEDIUM, PAGE, SMALL, WaitingPools},
};
use crate::{parts::Parts, shared_source::SharedSource};

/// Moves the blocks of `nodes` into tables, and purges the pages that these blocks cover
/// completely.
///
/// Returns three values:
/// - The nodes that the caller must push back into the inbox. Each node is either a table of freed
///   blocks, or a batch of freed blocks that the function did not move into a table.
/// - A flag that is true if the function did not try to purge the pages of at least one returned
///   batch, for example because there was no memory for a table.
/// - The number of purged bytes.
///
/// `bytes` is the approximate size of all blocks.
pub(crate) fn purge<P: Parts>(
    shared: &SharedSource<P>,
    nodes: Chain<Batch>,
    bytes: usize,
) -> (Option<Segment<Batch>>, bool, usize) {
    let (mut tables, mut batches) = (Tables::<P>::NONE, Chain::EMPTY);
    for node in nodes {
        // SAFETY: we own the node, and give it up.
        if let Some(batch) = unsafe { tables.adopt(node) } {
            // SAFETY: we own the batch, and give it up.
            unsafe { batches.push(batch) };
        }
    }
    let purged = Cell::new(0);
    let purge = |start, len| {
        // SAFETY: our blocks fill the range, keep its arena mapped, and are not read again.
        match unsafe { shared.lock().source.purge(start, len) } {
            Ok(()) => {
                mark_inaccessible(start.addr().get(), len);
                purged.set(purged.get() + len);
            }
            Err(_) => shared.purges_are_refused.store(true, Relaxed),
        }
    };
    let (mut back, mut has_others) = (None, false);
    for batch in batches {
        // SAFETY: we own the batch.
        let span = unsafe { span::<P>(batch) };
        // If all blocks together are smaller than a page, they cannot fill a page.
        // SAFETY: we own the batch, and give it up if the tables take it.
        if bytes >= PAGE && unsafe { tables.take(batch, shared.lower()) } {
            continue;
        }
        match span {
            Some(span) if span > PAGE => {
                // SAFETY: a span is a batch of its own, and we own it.
                if unsafe { Batch::mark_purged(batch) } {
                    // SAFETY: the pool is longer than a page. Its first page holds the batch.
                    purge(unsafe { batch.cast::<u8>().add(PAGE) }, span - PAGE);
                }
            }
            _ => has_others = true,
        }
        // SAFETY: we own the batch, and give it up.
        unsafe { Segment::push(&mut back, batch) };
    }
    if let Some(mut table) = tables.small {
        table.purge(purge);
        // SAFETY: we own the table, and give it up.
        unsafe { Segment::push(&mut back, table.into_node()) };
    }
    if let Some(mut table) = tables.medium {
        table.purge(purge);
        // SAFETY: we own the table, and give it up.
        unsafe { Segment::push(&mut back, table.into_node()) };
    }
    (back, has_others, purged.get())
}

/// Returns true if a table has room for the pages of a pool of `class`.
fn fits_table<G: Geometry>(class: SizeClass<G>) -> bool {
    let most = if class.is_linked() { SMALL } else { MEDIUM };
    class.pool_bytes() <= most * PAGE
}

/// Tells memory checkers that the pages of `batch` will be used again, if they were purged.
///
/// # Safety
///
/// - `batch` must come from [`Batch::pack`], and the caller must own it exclusively.
pub(crate) unsafe fn note_reused<P: Parts>(batch: NonNull<Batch>) {
    // SAFETY: the contract is the same.
    if let (true, Some(span)) = unsafe { (Batch::is_purged(batch), span::<P>(batch)) } {
        mark_accessible(batch.addr().get() + PAGE, span - PAGE);
    }
}

/// Returns the size in bytes of the pool of `batch` if that pool contains only one block.
///
/// # Safety
///
/// - `batch` must come from [`Batch::pack`], and the caller must own it exclusively.
unsafe fn span<P: Parts>(batch: NonNull<Batch>) -> Option<usize> {
    // SAFETY: the heap of the block counts it as in use until its owner reclaims it.
    let class = unsafe { SizeClass::<P::Geometry>::at(batch.cast()) }?;
    class.is_span().then_some(class.pool_bytes())
}

/// The tables of an inbox: one for pools of linked blocks, one for larger pools of up to 32 pages.
struct Tables<P: Parts> {
    small: Option<WaitingPools<P::Geometry, SMALL>>,
    medium: Option<WaitingPools<P::Geometry, MEDIUM>>,
}

impl<P: Parts> Tables<P> {
    const NONE: Self = Self { small: None, medium: None };

    /// Converts `node` into a table if it is one. Otherwise returns the batch.
    ///
    /// # Safety
    ///
    /// - `node` must have been in an inbox, and the caller must own it exclusively.
    unsafe fn adopt(&mut self, node: NonNull<Batch>) -> Option<NonNull<Batch>> {
        // SAFETY: we own the node (contract).
        match unsafe { Batch::kind(node) } {
            // SAFETY: we own the node (contract), which is the head of a table of this type.
            Kind::TableOf(SMALL) => self.small = Some(unsafe { WaitingPools::from_node(node) }),
            // SAFETY: as above.
            Kind::TableOf(_) => self.medium = Some(unsafe { WaitingPools::from_node(node) }),
            Kind::Blocks(_) => return Some(node),
        }
        None
    }

    /// Moves the blocks of `batch` into the tables.
    ///
    /// Returns true if the blocks were moved. Returns false and moves no block in two cases:
    /// - A block of the batch lies in a pool with more pages than a table can describe.
    /// - There is no memory for a table.
    ///
    /// # Safety
    ///
    /// - `batch` must come from [`Batch::pack`], and the caller must own it exclusively.
    /// - If the function returns true, the tables own the batch and its blocks, and the caller must
    ///   not use them again.
    unsafe fn take(&mut self, batch: NonNull<Batch>, lower: &P::Lower) -> bool {
        // SAFETY: we took the block out of the inbox, and its heap counts it as in use.
        let class = |block| unsafe { SizeClass::<P::Geometry>::at(block) };
        let is_linked = |block| class(block).is_none_or(SizeClass::is_linked);
        let (mut small, mut medium, mut fits) = (0, 0, true);
        let count = |block| {
            fits &= class(block).is_some_and(fits_table);
            if is_linked(block) { small += 1 } else { medium += 1 }
        };
        // SAFETY: we own the batch and its blocks (contract).
        unsafe { Batch::unpack(batch, count) };
        let fits = fits
            && reserve(&mut self.small, small, lower)
            && reserve(&mut self.medium, medium, lower);
        if !fits {
            return false;
        }
        let add = |block| match (&mut self.small, &mut self.medium) {
            // SAFETY: we own the block, which is in use as far as its heap knows.
            (Some(table), _) if is_linked(block) => unsafe { table.add(block) },
            // SAFETY: as above.
            (_, Some(table)) => unsafe { table.add(block) },
            _ => debug_assert!(false, "room was reserved for every block"),
        };
        // SAFETY: we own the batch and its blocks (contract).
        unsafe { Batch::unpack(batch, add) };
        true
    }
}

/// Makes room for `pools` more pools, in a new table if necessary. Returns false if there is no
/// memory.
fn reserve<G: Geometry, A: MemAlloc, const PAGES: usize>(
    table: &mut Option<WaitingPools<G, PAGES>>,
    pools: usize,
    lower: &A,
) -> bool {
    if pools > 0 && table.is_none() {
        *table = WaitingPools::new(lower);
    }
    pools == 0 || table.as_mut().is_some_and(|table| table.reserve(pools, lower))
}
