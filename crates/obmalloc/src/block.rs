//! Blocks, and the free list that is threaded through them.
//!
//! ```text
//!   head ──► ┌──────┬─ ─ ─ ─┐   ┌──────┬─ ─ ─ ─┐   ┌──────┬─ ─ ─ ─┐
//!            │ next ──────────► │ next ──────────► │ none │       │
//!            └──────┴─ ─ ─ ─┘   └──────┴─ ─ ─ ─┘   └──────┴─ ─ ─ ─┘
//! ```

use core::{cell::Cell, ptr::NonNull};

/// A block that is the holder's alone: at least `ALIGNMENT` bytes, aligned to that.
///
/// It is not `Copy`: who gives it away has lost it.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct BlockPtr(NonNull<u8>);

impl BlockPtr {
    /// The block that starts at `start`.
    ///
    /// # Safety
    ///
    /// A heap gave out a block at `start`, with this very pointer or one derived from it, and the
    /// caller is its only holder.
    #[inline]
    pub const unsafe fn from_start(start: NonNull<u8>) -> Self {
        Self(start)
    }

    /// The block's first byte. The caller holds the block now.
    #[inline]
    pub const fn into_start(self) -> NonNull<u8> {
        self.0
    }

    /// The block's first byte.
    #[inline]
    pub const fn start(&self) -> NonNull<u8> {
        self.0
    }
}

/// The first word of a free block.
type Link = Option<NonNull<u8>>;

/// Free blocks of one pool, last in, first out.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct FreeList {
    /// # Invariant
    ///
    /// Every block on the chain is the list's alone, and its first word is the chain's next link.
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

    /// Takes the block that was put last.
    #[inline]
    pub(crate) fn pop(&self) -> Option<BlockPtr> {
        let start = self.head.get()?;
        // SAFETY: `head`'s invariant: the first word of a listed block is a link.
        let next = unsafe { start.cast::<Link>().read() };
        // INVARIANT: `next` was the rest of the chain.
        self.head.set(next);
        Some(BlockPtr(start))
    }

    /// Puts `block` before all others.
    #[inline]
    pub(crate) fn push(&self, block: BlockPtr) {
        // SAFETY: the block is the caller's alone, and a word fits every block.
        unsafe { block.0.cast::<Link>().write(self.head.get()) };
        // INVARIANT: the block was given to the list, and its first word is the old chain.
        self.head.set(Some(block.0));
    }

    /// Fills the list, which is empty, with the blocks of `size` bytes that follow each other from
    /// `first` on, as long as they begin at most `span` bytes behind it. They will be taken in
    /// ascending order. Returns the bytes that they take together.
    ///
    /// # Safety
    ///
    /// All of them are the caller's alone to give, by the pointer of `first`.
    pub(crate) unsafe fn fill(&self, first: BlockPtr, size: usize, span: usize) -> usize {
        let (mut last, mut taken) = (first.0, size);
        while taken <= span {
            // SAFETY: the caller's promise: the next block begins here.
            let next = unsafe { last.add(size) };
            // SAFETY: as above, and a word fits every block.
            unsafe { last.cast::<Link>().write(Some(next)) };
            last = next;
            taken += size;
        }
        // SAFETY: as above.
        unsafe { last.cast::<Link>().write(None) };
        // INVARIANT: the blocks were given to the list, and each links to the next.
        self.head.set(Some(first.0));
        taken
    }

    /// The blocks on the list, in the order in which they will be taken.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NonNull<u8>> {
        core::iter::successors(self.head.get(), |start| {
            // SAFETY: `head`'s invariant, and the list is borrowed, so no block leaves it.
            unsafe { start.cast::<Link>().read() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_put_is_the_first_taken() {
        let mut memory = [[0_usize; 2]; 3];
        let list = FreeList::new();
        let starts = memory.each_mut().map(|block| NonNull::from(block).cast::<u8>());
        for start in starts {
            // SAFETY: the array's items are blocks of two words that nobody else uses.
            list.push(unsafe { BlockPtr::from_start(start) });
        }
        assert!(list.iter().eq(starts.into_iter().rev()));
        for start in starts.into_iter().rev() {
            assert_eq!(list.pop().map(BlockPtr::into_start), Some(start));
        }
        assert!(list.is_empty());
    }

    #[test]
    fn a_filled_list_gives_its_blocks_in_ascending_order() {
        let mut memory = [[0_usize; 2]; 4];
        let first = NonNull::from(&mut memory).cast::<u8>();
        for (span, count) in [(0, 1), (15, 1), (16, 2), (48, 4)] {
            let list = FreeList::new();
            // SAFETY: the array's items are blocks of two words that nobody else uses.
            let taken = unsafe { list.fill(BlockPtr::from_start(first), 16, span) };
            assert_eq!(taken, count * 16);
            // SAFETY: the array has as many items.
            assert!(list.iter().eq((0..count).map(|nth| unsafe { first.add(nth * 16) })));
        }
    }
}
