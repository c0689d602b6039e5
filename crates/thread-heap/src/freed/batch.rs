//! Batches of freed blocks. Most blocks of a batch travel by address alone.
//!
//! ```text
//!   a batch, which is one of the blocks   ├ link ┼ count ┼ address ┼ address ┼ ─ ─ ┤
//!                                                            │         │
//!   the others, untouched                 ├ ─ ─ ─ ─ ┤◄───────┘         └───────►├ ─ ─ ─ ─ ┤
//! ```
//!
//! The owner usually wrote to a block last and will usually write to it next. If the freeing thread
//! wrote a link into each block, the cache line of each block would move to its processor and back.
//! We therefore write to few blocks, and each of these holds the addresses of as many others as it
//! has room for. The smallest blocks have no room, so each travels as a batch of its own. That costs
//! little, because several of them share a cache line.
//!
//! A thread that [takes over](super::inbox::Inbox::take_over) an inbox replaces its batches by one
//! [table](super::waiting_pools). The table travels as a node of the same type, with a count that
//! no batch has.

use std::ptr::{self, NonNull};

use sync::link::{Link, Segment};

/// The first words of a batch. The addresses of its other blocks follow.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Batch {
    next: *mut Self,
    /// How many addresses follow, or [`TABLE`].
    count: usize,
}

/// The count of a node that is the head of a table.
const TABLE: usize = usize::MAX;

/// The fewest bytes of a block that can be sent.
pub(crate) const LEAST_BLOCK: usize = size_of::<Batch>();

// SAFETY: the link is read from where it is written.
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

impl Batch {
    /// Returns the head of a table. Its link is not set yet.
    pub(crate) const fn table_head() -> Self {
        Self { next: ptr::null_mut(), count: TABLE }
    }

    /// Returns how many blocks the batch `node` has, or `None` if it is the head of a table.
    ///
    /// # Safety
    ///
    /// - `node` must be a packed batch or the head of a table.
    /// - The caller must exclusively own it.
    #[inline]
    pub(crate) unsafe fn blocks(node: NonNull<Self>) -> Option<usize> {
        // SAFETY: the caller owns the node, and its count is written (contract).
        let count = unsafe { (&raw const (*node.as_ptr()).count).read() };
        if count == TABLE { None } else { Some(count + 1) }
    }

    /// Makes a batch of `block` and `others`.
    ///
    /// # Safety
    ///
    /// - The caller must exclusively own all blocks, and gives up that ownership.
    /// - `block` must have [`LEAST_BLOCK`] bytes, and another word for each of `others`.
    unsafe fn pack(block: NonNull<u8>, others: &[NonNull<u8>]) -> NonNull<Self> {
        let batch = block.cast::<Self>();
        // SAFETY: the caller owns the block, which has room for the count (contract).
        unsafe { (&raw mut (*batch.as_ptr()).count).write(others.len()) };
        // SAFETY: the block has room for the addresses behind the first words (contract).
        let addresses = unsafe { batch.add(1).cast::<NonNull<u8>>() };
        let from = NonNull::from(others).cast::<NonNull<u8>>();
        // SAFETY: as above. The slice is borrowed, so it does not lie in a block that is given up.
        unsafe { addresses.copy_from_nonoverlapping(from, others.len()) };
        batch
    }

    /// Calls `visit` with every block of `batch`, and with the one that holds the addresses last.
    ///
    /// # Safety
    ///
    /// - `batch` must be packed.
    /// - The caller must exclusively own it and its blocks.
    #[inline]
    pub(crate) unsafe fn unpack(batch: NonNull<Self>, mut visit: impl FnMut(NonNull<u8>)) {
        // SAFETY: the caller owns the batch, and its count is written (contract).
        let count = unsafe { (&raw const (*batch.as_ptr()).count).read() };
        // SAFETY: `count` addresses follow the first words of a packed batch.
        let addresses = unsafe { batch.add(1).cast::<NonNull<u8>>() };
        for nth in 0..count {
            // SAFETY: as above. The block was not visited yet, so nobody has written to it.
            visit(unsafe { addresses.add(nth).read() });
        }
        visit(batch.cast());
    }
}

/// Batches that are sent together.
#[derive(Debug)]
pub(crate) struct Batches {
    pub(crate) nodes: Segment<Batch>,
    /// About how many bytes the blocks have. All blocks of a batch count as large as the one that
    /// holds the addresses. The exact size of each would take an access to its pool's header, whose
    /// cache line the owner writes to.
    pub(crate) bytes: usize,
}

impl Batches {
    /// Makes a batch of one block of `size` bytes.
    ///
    /// # Safety
    ///
    /// - The caller must exclusively own the block, and gives up that ownership.
    /// - The block must have at least [`LEAST_BLOCK`] bytes.
    pub(crate) unsafe fn of(block: NonNull<u8>, size: usize) -> Self {
        // SAFETY: the caller gives up the block, which has room for a batch (contract of `of`).
        let batch = unsafe { Batch::pack(block, &[]) };
        // SAFETY: the batch was packed just now, so we own it.
        Self { nodes: unsafe { Segment::of(batch) }, bytes: size }
    }

    /// Packs `blocks` into as few batches as possible. `size` returns how many bytes a block has.
    /// Returns `None` if there are no blocks.
    ///
    /// # Safety
    ///
    /// - The caller must exclusively own the blocks, and gives up that ownership.
    /// - Each block must have as many bytes as `size` returns, and at least [`LEAST_BLOCK`].
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
            // SAFETY: the caller gives up the blocks (contract). `block` has room for `room` more
            // words, and no more blocks are packed.
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

    /// Packs blocks of these sizes, unpacks them, and returns the number of batches.
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
            let blocks = unsafe { Batch::blocks(batch) };
            // SAFETY: as above.
            unsafe { Batch::unpack(batch, |block| unpacked.push(block)) };
            assert_eq!(blocks, Some(unpacked.len() - before));
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
        assert_eq!(unsafe { Batch::blocks(batch) }, Some(1));
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
