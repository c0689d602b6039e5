//! Blocks, and the free list of a pool. Each free block stores the link to the next free block in
//! its first word.
//!
//! ```text
//!   head ──► ┌──────┬─ ─ ─ ─┐   ┌──────┬─ ─ ─ ─┐   ┌──────┬─ ─ ─ ─┐
//!            │ next ──────────► │ next ──────────► │ none │       │
//!            └──────┴─ ─ ─ ─┘   └──────┴─ ─ ─ ─┘   └──────┴─ ─ ─ ─┘
//! ```

use core::{cell::Cell, ptr::NonNull};

/// A pointer to a block of a heap. Code that has a `BlockPtr` exclusively owns the block. The block
/// has at least the size of its class and is aligned to the geometry's alignment.
///
/// The type is not `Copy`. Code that passes a `BlockPtr` to a function therefore gives up the
/// ownership of the block.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct BlockPtr(NonNull<u8>);

impl BlockPtr {
    /// Makes a `BlockPtr` of the block at `start`.
    ///
    /// # Safety
    ///
    /// - A heap must have returned a block that begins at `start`. `start` must be the pointer that
    ///   the heap returned, or be derived from it.
    /// - The caller must exclusively own the block, so no other `BlockPtr` of the block may exist.
    #[inline]
    pub const unsafe fn from_start(start: NonNull<u8>) -> Self {
        Self(start)
    }

    /// Returns a pointer to the block's first byte, and consumes the `BlockPtr`. The caller owns
    /// the memory from now on, and must free it later.
    #[inline]
    #[must_use = "the block leaks unless its memory is passed on"]
    pub const fn into_start(self) -> NonNull<u8> {
        self.0
    }

    /// Returns a pointer to the block's first byte. The `BlockPtr` keeps the ownership of the
    /// block.
    #[inline]
    pub const fn start(&self) -> NonNull<u8> {
        self.0
    }
}

/// The first word of a free block, which points to the next free block of the pool, or is `None`.
type Link = Option<NonNull<u8>>;

/// The free list of one pool. The block that was pushed last is popped first.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct FreeList {
    /// # Invariant
    ///
    /// The list exclusively owns every block on it. The first word of each block links to the next
    /// block.
    head: Cell<Link>,
}

impl FreeList {
    pub(crate) const fn new() -> Self {
        Self { head: Cell::new(None) }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// Removes every block from the list without changing the blocks.
    pub(crate) fn clear(&self) {
        self.head.set(None);
    }

    /// Removes the block that was pushed last and returns it. Returns `None` if the list is empty.
    #[inline]
    pub(crate) fn pop(&self) -> Option<BlockPtr> {
        let start = self.head.get()?;
        // SAFETY: the block is on the list, so its first word is a link (invariant of `head`).
        let next = unsafe { start.cast::<Link>().read() };
        // INVARIANT: the list now begins at `next`, and no longer contains the block that is
        // returned.
        self.head.set(next);
        Some(BlockPtr(start))
    }

    /// Puts `block` at the front of the list.
    #[inline]
    pub(crate) fn push(&self, block: BlockPtr) {
        // SAFETY: the list owns the block from now on, and every block has room for a link in its
        // first word.
        unsafe { block.0.cast::<Link>().write(self.head.get()) };
        // INVARIANT: the block's first word was set to the old head above.
        self.head.set(Some(block.0));
    }

    /// Fills an empty list with adjacent blocks of `size` bytes. The first block is `first`, and
    /// each further block begins where the previous one ends, as long as it begins at most `span`
    /// bytes behind the start of `first`. The blocks will be popped in ascending order of address.
    /// Returns the total size of the blocks in bytes.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own all of these blocks, and gives up that ownership. The
    /// pointer in `first` must be valid for all of them.
    pub(crate) unsafe fn fill(&self, first: BlockPtr, size: usize, span: usize) -> usize {
        let (mut last, mut taken) = (first.0, size);
        while taken <= span {
            // SAFETY: another block begins `size` bytes behind the start of `last`, and the pointer
            // is valid for this block as well (contract of `fill`).
            let next = unsafe { last.add(size) };
            // SAFETY: the list owns the block from now on, and every block has room for a link in
            // its first word.
            unsafe { last.cast::<Link>().write(Some(next)) };
            last = next;
            taken += size;
        }
        // SAFETY: as above, for the last block.
        unsafe { last.cast::<Link>().write(None) };
        // INVARIANT: the caller has given these blocks to the list (contract of `fill`). The code
        // above has written a link to the next block into the first word of each block.
        self.head.set(Some(first.0));
        taken
    }

    /// Iterates over the blocks in the order in which they will be popped.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NonNull<u8>> {
        core::iter::successors(self.head.get(), |start| {
            // SAFETY: the block is on the list, so its first word is a link (invariant of `head`).
            // The callers do not pop blocks during the iteration.
            unsafe { start.cast::<Link>().read() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_pushed_last_is_popped_first() {
        let mut memory = [[0_usize; 2]; 3];
        let list = FreeList::new();
        let starts = memory.each_mut().map(|block| NonNull::from(block).cast::<u8>());
        for start in starts {
            // SAFETY: the items of the array are blocks of two words, and nothing else uses them.
            list.push(unsafe { BlockPtr::from_start(start) });
        }
        assert!(list.iter().eq(starts.into_iter().rev()));
        for start in starts.into_iter().rev() {
            assert_eq!(list.pop().map(BlockPtr::into_start), Some(start));
        }
        assert!(list.is_empty());
    }

    #[test]
    fn a_filled_list_returns_its_blocks_in_ascending_order() {
        let mut memory = [[0_usize; 2]; 4];
        let first = NonNull::from(&mut memory).cast::<u8>();
        for (span, count) in [(0, 1), (15, 1), (16, 2), (48, 4)] {
            let list = FreeList::new();
            // SAFETY: the items of the array are blocks of two words, and nothing else uses them.
            let taken = unsafe { list.fill(BlockPtr::from_start(first), 16, span) };
            assert_eq!(taken, count * 16);
            // SAFETY: `nth` is less than the length of the array.
            assert!(list.iter().eq((0..count).map(|nth| unsafe { first.add(nth * 16) })));
        }
    }
}
