//! Blocks, and the free list that is threaded through them.
//!
//! ```text
//!   head ──► ┌──────┬─ ─ ─ ─┐   ┌──────┬─ ─ ─ ─┐   ┌──────┬─ ─ ─ ─┐
//!            │ next ──────────► │ next ──────────► │ none │       │
//!            └──────┴─ ─ ─ ─┘   └──────┴─ ─ ─ ─┘   └──────┴─ ─ ─ ─┘
//! ```

use core::{cell::Cell, ptr::NonNull};

/// A block that its holder owns exclusively. It has at least the bytes of its class and is aligned to
/// the geometry's alignment.
///
/// It is not `Copy`, because passing it on gives up ownership.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct BlockPtr(NonNull<u8>);

impl BlockPtr {
    /// Makes a block of the memory at `start`.
    ///
    /// # Safety
    ///
    /// - A heap must have returned a block that starts at `start`, and `start` must be the pointer
    ///   that it returned or be derived from it.
    /// - The caller must be the only holder of that block.
    #[inline]
    pub const unsafe fn from_start(start: NonNull<u8>) -> Self {
        Self(start)
    }

    /// Returns the block's first byte. The caller owns the memory from now on.
    #[inline]
    #[must_use = "the block leaks unless its memory is passed on"]
    pub const fn into_start(self) -> NonNull<u8> {
        self.0
    }

    /// Returns the block's first byte.
    #[inline]
    pub const fn start(&self) -> NonNull<u8> {
        self.0
    }
}

/// The first word of a free block.
type Link = Option<NonNull<u8>>;

/// The free blocks of one pool, last in, first out.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct FreeList {
    /// # Invariant
    ///
    /// The list exclusively owns every block on it. The first word of each is the link to the next.
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

    /// Forgets every block.
    pub(crate) fn clear(&self) {
        self.head.set(None);
    }

    /// Takes the block that was pushed last.
    #[inline]
    pub(crate) fn pop(&self) -> Option<BlockPtr> {
        let start = self.head.get()?;
        // SAFETY: by the invariant of `head`, the first word of a listed block is a link.
        let next = unsafe { start.cast::<Link>().read() };
        // INVARIANT: `next` heads the list without its first block.
        self.head.set(next);
        Some(BlockPtr(start))
    }

    /// Puts `block` at the front of the list.
    #[inline]
    pub(crate) fn push(&self, block: BlockPtr) {
        // SAFETY: the list owns the block from now on, and every block has room for a word.
        unsafe { block.0.cast::<Link>().write(self.head.get()) };
        // INVARIANT: the block's first word was set to the old head above.
        self.head.set(Some(block.0));
    }

    /// Fills an empty list with adjacent blocks of `size` bytes: `first`, and all that begin at most
    /// `span` bytes behind it. They will be taken in ascending order. Returns the bytes of all of
    /// them together.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own these blocks, and the pointer of `first` must be valid for all
    /// of them.
    pub(crate) unsafe fn fill(&self, first: BlockPtr, size: usize, span: usize) -> usize {
        let (mut last, mut taken) = (first.0, size);
        while taken <= span {
            // SAFETY: the next block begins here (contract of `fill`).
            let next = unsafe { last.add(size) };
            // SAFETY: the list owns the block from now on, and every block has room for a word.
            unsafe { last.cast::<Link>().write(Some(next)) };
            last = next;
            taken += size;
        }
        // SAFETY: as above.
        unsafe { last.cast::<Link>().write(None) };
        // INVARIANT: each block was linked to the next above.
        self.head.set(Some(first.0));
        taken
    }

    /// Iterates over the blocks in the order in which they will be taken.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NonNull<u8>> {
        core::iter::successors(self.head.get(), |start| {
            // SAFETY: by the invariant of `head`. The list is borrowed, so no block leaves it.
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
