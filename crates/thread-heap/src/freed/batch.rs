//! Batches of freed blocks, in which one block holds the addresses of the others.
//!
//! ```text
//!   a batch, which is one of the blocks   ├ link ┼ count ┼ address ┼ address ┼ ─ ─ ┤
//!                                                            │         │
//!   the others, untouched                 ├ ─ ─ ─ ─ ┤◄───────┘         └───────►├ ─ ─ ─ ─ ┤
//! ```
//!
//! A sender writes to only one block of a batch, so the other blocks can stay in the owner's cache.
//!
//! The smallest blocks have no room for addresses, so each of them forms a batch of one block.

use std::ptr::{self, NonNull};

use sync::link::{Link, Segment};

/// The first two words of a batch, followed by the addresses of the other blocks.
///
/// A [table](super::waiting_pools) begins with the same words, so an inbox can hold either.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Batch {
    next: *mut Self,
    /// The number of addresses that follow, or one of the marks below.
    count: usize,
}

/// The largest number of addresses in a batch. Greater counts are marks.
const MOST_ADDRESSES: usize = usize::MAX / 2;

/// The `count` of a batch of one block whose pages were purged, except for the first page.
const PURGED: usize = MOST_ADDRESSES + 1;

/// The `count` of the head of a table is this value plus the number of pages of an entry.
const TABLE: usize = PURGED + 1;

/// The size of the smallest block that can be sent, in bytes.
pub(crate) const LEAST_BLOCK: usize = size_of::<Batch>();

// SAFETY: `next` reads the link from the field to which `set_next` writes it.
unsafe impl Link for Batch {
    #[inline]
    unsafe fn next(node: NonNull<Self>) -> *mut Self {
        // SAFETY: the caller owns the node, and its link is set (contract of `next`).
        unsafe { (&raw const (*node.as_ptr()).next).read() }
    }

    #[inline]
    unsafe fn set_next(node: NonNull<Self>, next: *mut Self) {
        // SAFETY: the caller owns the node (contract of `set_next`), which has room for a link.
        unsafe { (&raw mut (*node.as_ptr()).next).write(next) }
    }
}

/// The kind of a node in an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A batch of this many blocks.
    Blocks(usize),
    /// A table whose entries describe this many pages.
    TableOf(usize),
}

impl Batch {
    /// Returns the first words of a table whose entries describe `pages` pages.
    pub(crate) const fn table_head(pages: usize) -> Self {
        Self { next: ptr::null_mut(), count: TABLE + pages }
    }

    /// Returns the number of blocks in a batch, or the number of pages of a table's entries.
    ///
    /// # Safety
    ///
    /// - `node` must come from [`pack`](Self::pack), or be the head of a table.
    /// - The caller must exclusively own `node`.
    #[inline]
    pub(crate) unsafe fn kind(node: NonNull<Self>) -> Kind {
        // SAFETY: the caller owns the node, and its count is written (contract).
        let count = unsafe { (&raw const (*node.as_ptr()).count).read() };
        match count {
            PURGED => Kind::Blocks(1),
            TABLE.. => Kind::TableOf(count - TABLE),
            _ => Kind::Blocks(count + 1),
        }
    }

    /// Marks a batch of one block as purged. Returns false if it was marked before.
    ///
    /// # Safety
    ///
    /// - `batch` must come from [`pack`](Self::pack), without other blocks.
    /// - The caller must exclusively own `batch`.
    pub(crate) unsafe fn mark_purged(batch: NonNull<Self>) -> bool {
        // SAFETY: the caller owns the batch, and its count is written (contract).
        let count = unsafe { &mut (*batch.as_ptr()).count };
        std::mem::replace(count, PURGED) != PURGED
    }

    /// Returns true if the batch was [marked as purged](Self::mark_purged).
    ///
    /// # Safety
    ///
    /// - `batch` must come from [`pack`](Self::pack), and the caller must own it exclusively.
    pub(crate) unsafe fn is_purged(batch: NonNull<Self>) -> bool {
        // SAFETY: the caller owns the batch, and its count is written (contract).
        unsafe { (&raw const (*batch.as_ptr()).count).read() == PURGED }
    }

    /// Writes the count and the addresses of `others` into `block`, which becomes the batch.
    ///
    /// # Safety
    ///
    /// - The caller must exclusively own `block` and all blocks in `others`.
    /// - After this call, the caller must use these blocks only through the returned batch.
    /// - `block` must have room for a [`Batch`], followed by the addresses of all blocks in
    ///   `others`.
    unsafe fn pack(block: NonNull<u8>, others: &[NonNull<u8>]) -> NonNull<Self> {
        let batch = block.cast::<Self>();
        // SAFETY: the caller owns the block, which has room for the count (contract).
        unsafe { (&raw mut (*batch.as_ptr()).count).write(others.len()) };
        // SAFETY: the block has room for the addresses after the first words (contract).
        let addresses = unsafe { batch.add(1).cast::<NonNull<u8>>() };
        let from = NonNull::from(others).cast::<NonNull<u8>>();
        // SAFETY: the block has room (contract), and the borrowed slice lies in no given-up block.
        unsafe { addresses.copy_from_nonoverlapping(from, others.len()) };
        batch
    }

    /// Calls `visit` with every block of a batch. `visit` may overwrite the block.
    ///
    /// # Safety
    ///
    /// - `batch` must have been returned by [`pack`](Self::pack).
    /// - The caller must exclusively own `batch` and all of its blocks.
    #[inline]
    pub(crate) unsafe fn unpack(batch: NonNull<Self>, mut visit: impl FnMut(NonNull<u8>)) {
        // SAFETY: the caller owns the batch, and its count is written (contract).
        let count = unsafe { (&raw const (*batch.as_ptr()).count).read() };
        let count = if count == PURGED { 0 } else { count };
        // SAFETY: `count` addresses follow the first words of a packed batch.
        let addresses = unsafe { batch.add(1).cast::<NonNull<u8>>() };
        for nth in 0..count {
            // SAFETY: `count` addresses follow, and are intact because their block is visited last.
            visit(unsafe { addresses.add(nth).read() });
        }
        visit(batch.cast());
    }
}

#[derive(Debug)]
pub(crate) struct Batches {
    pub(crate) nodes: Segment<Batch>,
    /// The approximate size of the blocks in bytes. Exact sizes are slow to read from the pools.
    pub(crate) bytes: usize,
}

impl Batches {
    /// Creates a batch of one block of `size` bytes.
    ///
    /// # Safety
    ///
    /// - The caller must own `block` exclusively, and must not use it afterwards.
    /// - `block` must have at least [`LEAST_BLOCK`] bytes.
    pub(crate) unsafe fn of(block: NonNull<u8>, size: usize) -> Self {
        // SAFETY: the caller gives up the block, which has room for a batch (contract of `of`).
        let batch = unsafe { Batch::pack(block, &[]) };
        // SAFETY: the batch was packed just now, so we own it.
        Self { nodes: unsafe { Segment::of(batch) }, bytes: size }
    }

    /// Packs `blocks` into as few batches as possible, or returns `None` if there are no blocks.
    ///
    /// # Safety
    ///
    /// - The caller must exclusively own all of `blocks`, and must not use them after this call.
    /// - For each block, `size` must return the size of the block in bytes.
    /// - Each block must be at least [`LEAST_BLOCK`] bytes long.
    pub(crate) unsafe fn pack(
        blocks: &[NonNull<u8>],
        size: impl Fn(NonNull<u8>) -> usize,
    ) -> Option<Self> {
        let (mut nodes, mut bytes) = (None, 0);
        let mut rest = blocks;
        while let Some((&block, others)) = rest.split_last() {
            let size = size(block);
            let room = (size - LEAST_BLOCK) / size_of::<NonNull<u8>>();
            let (left, packed) = others.split_at(others.len().saturating_sub(room));
            // SAFETY: we own the blocks (contract), and `block` has room for those in `packed`.
            let batch = unsafe { Batch::pack(block, packed) };
            // SAFETY: the batch was packed just now, so we own it.
            unsafe { Segment::push(&mut nodes, batch) };
            bytes += size * (packed.len() + 1);
            rest = left;
        }
        Some(Self { nodes: nodes?, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches_of(sizes: &[usize]) -> usize {
        let mut memory = vec![[0_usize; 64]; sizes.len()];
        let blocks: Vec<_> =
            memory.iter_mut().map(|block| NonNull::from(block).cast::<u8>()).collect();
        let size = |block| sizes[blocks.iter().position(|other| *other == block).unwrap()];
        // SAFETY: the test owns the blocks, which are at least as large as `size` says.
        let packed = unsafe { Batches::pack(&blocks, size) }.expect("there are blocks");
        if sizes.iter().all(|size| *size == sizes[0]) {
            assert_eq!(packed.bytes, sizes.iter().sum::<usize>());
        }
        let (mut batches, mut unpacked) = (0, Vec::new());
        for batch in packed.nodes.into_chain() {
            batches += 1;
            let before = unpacked.len();
            // SAFETY: it was packed above, and the test owns it.
            let kind = unsafe { Batch::kind(batch) };
            // SAFETY: as above.
            unsafe { Batch::unpack(batch, |block| unpacked.push(block)) };
            assert_eq!(kind, Kind::Blocks(unpacked.len() - before));
        }
        unpacked.sort();
        assert_eq!(unpacked, blocks);
        batches
    }

    #[test]
    fn every_block_is_unpacked_once_from_few_batches() {
        assert_eq!(batches_of(&[512; 32]), 1);
        assert_eq!(batches_of(&[272; 32]), 1);
        assert_eq!(batches_of(&[64; 32]), 5);
        assert_eq!(batches_of(&[16; 32]), 32);
        assert_eq!(batches_of(&[16, 512, 32, 48, 16]), 2);
        assert_eq!(batches_of(&[512]), 1);
        assert_eq!(batches_of(&[16]), 1);
    }

    #[test]
    fn one_block_is_a_batch() {
        let mut memory = [0_usize; 2];
        let block = NonNull::from(&mut memory).cast::<u8>();
        // SAFETY: the test owns the block.
        let mut batches = unsafe { Batches::of(block, 16) }.nodes.into_chain();
        let batch = batches.next().expect("there is a block");
        // SAFETY: it was packed above, and the test owns it.
        assert_eq!(unsafe { Batch::kind(batch) }, Kind::Blocks(1));
        let mut unpacked = Vec::new();
        // SAFETY: as above.
        unsafe { Batch::unpack(batch, |block| unpacked.push(block)) };
        assert_eq!((unpacked, batches.next()), (vec![block], None));
    }

    #[test]
    fn without_blocks_there_is_no_batch() {
        // SAFETY: there are no blocks.
        assert!(unsafe { Batches::pack(&[], |_| 16) }.is_none());
    }
}
