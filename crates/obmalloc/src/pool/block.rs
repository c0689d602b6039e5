//! Blocks, and the free list of a pool.

use core::{cell::Cell, ptr::NonNull};

/// The byte that fills freed blocks in builds with debug assertions. CPython's dead byte.
const DEAD: u8 = 0xDD;

/// The size of the link in a free block, in bytes.
const WORD: usize = size_of::<usize>();

/// A pointer that exclusively owns a block of a heap.
///
/// The block has the size of its size class and the alignment of the heap's geometry.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct BlockPtr(NonNull<u8>);

impl BlockPtr {
    /// Creates the owner of the block at `start`.
    ///
    /// # Safety
    ///
    /// - `start` must point to the first byte of a live block.
    /// - `start` must be derived from the pointer that the heap returned for this block.
    /// - The caller must own the block, and no other `BlockPtr` to it may exist.
    #[inline]
    pub const unsafe fn from_start(start: NonNull<u8>) -> Self {
        Self(start)
    }

    /// Returns a pointer to the block. The caller now owns the block, and must free it later.
    #[inline]
    #[must_use = "the block leaks unless its memory is passed on"]
    pub const fn into_start(self) -> NonNull<u8> {
        self.0
    }

    /// Sets the first `len` bytes of the block to zero. The block must have at least `len` bytes.
    #[inline]
    pub(crate) fn fill_with_zeros(&self, len: usize) {
        // SAFETY: this pointer owns the block, which has `len` bytes (the caller).
        unsafe { self.0.write_bytes(0, len) };
    }

    /// Overwrites the first `len` bytes of a block that is being freed, except for its first word.
    pub(crate) fn poison(&self, len: usize) {
        if len > WORD {
            // SAFETY: this pointer owns the block, which has `len` bytes (the caller).
            unsafe { self.0.add(WORD).write_bytes(DEAD, len - WORD) };
        }
    }

    /// Overwrites the second word, so that [`is_poisoned`](Self::is_poisoned) returns false. The
    /// block must have at least two words.
    pub(crate) fn unpoison(&self) {
        // SAFETY: this pointer owns the block, which has two words (the caller).
        unsafe { self.0.add(WORD).write(!DEAD) };
    }

    /// Returns true if the second word looks like that of a freed block. The block must have at
    /// least two words.
    pub(crate) fn is_poisoned(&self) -> bool {
        // SAFETY: this pointer owns the block, which has two words (the caller). The program may
        // not have initialised them, but a volatile read returns what is in memory.
        let second = unsafe { self.0.cast::<[u8; WORD]>().add(1).read_volatile() };
        second == [DEAD; WORD]
    }

    /// Returns a pointer to the first byte of the block.
    #[inline]
    pub const fn start(&self) -> NonNull<u8> {
        self.0
    }
}

/// The first word of a free block, which points to the next free block of the pool.
type Link = Option<NonNull<u8>>;

#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct FreeList {
    /// # Invariant
    ///
    /// - The list exclusively owns its blocks.
    /// - In a pool of linked blocks, the first word of each block links to the next block.
    /// - In any other pool, the list has at most one block, which need not contain a link. The
    ///   functions that read links must not be used there: [`pop`](Self::pop), [`iter`](Self::iter)
    ///   and [`retain`](Self::retain).
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

    /// Returns the first block. Does not read the block's memory.
    pub(crate) fn first(&self) -> Link {
        self.head.get()
    }

    pub(crate) fn clear(&self) {
        self.head.set(None);
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<BlockPtr> {
        let start = self.head.get()?;
        // SAFETY: a block on the list begins with a link (invariant of `head`).
        let next = unsafe { start.cast::<Link>().read() };
        // INVARIANT: the list now begins after the returned block.
        self.head.set(next);
        Some(BlockPtr(start))
    }

    /// Removes the only block, which need not contain a link. Does not read the block's memory.
    #[inline]
    pub(crate) fn take_only(&self) -> Option<BlockPtr> {
        let start = self.head.get()?;
        // An empty list may be that of `PoolPtr::NONE`, which all threads share. We must not write
        // to it.
        self.head.set(None);
        Some(BlockPtr(start))
    }

    /// Makes `block` the only block, and returns the previous one, if any. Does not touch their
    /// memory.
    #[inline]
    pub(crate) fn replace_only(&self, block: BlockPtr) -> Option<BlockPtr> {
        self.head.replace(Some(block.0)).map(BlockPtr)
    }

    #[inline]
    pub(crate) fn push(&self, block: BlockPtr) {
        // SAFETY: the list owns the block from now on, and every block has room for a link.
        unsafe { block.0.cast::<Link>().write(self.head.get()) };
        // INVARIANT: the block links to the old head.
        self.head.set(Some(block.0));
    }

    /// Fills an empty list with adjacent blocks of `size` bytes, and returns their total size.
    ///
    /// The last block begins at most `span` bytes after `first`. The blocks are popped in ascending
    /// order.
    ///
    /// # Safety
    ///
    /// The caller must own these blocks, and gives up that ownership. `first` must be valid for all
    /// of them.
    pub(crate) unsafe fn fill(&self, first: BlockPtr, size: usize, span: usize) -> usize {
        let (mut last, mut taken) = (first.0, size);
        while taken <= span {
            // SAFETY: `first` is valid for all blocks (contract of `fill`), which are adjacent.
            let next = unsafe { last.add(size) };
            // SAFETY: the list owns the block from now on, and every block has room for a link.
            unsafe { last.cast::<Link>().write(Some(next)) };
            last = next;
            taken += size;
        }
        // SAFETY: the list also owns the last block, which has room for a link.
        unsafe { last.cast::<Link>().write(None) };
        // INVARIANT: the list owns these blocks (contract of `fill`), and each links to the next.
        self.head.set(Some(first.0));
        taken
    }

    /// Keeps only the blocks for which `stays` returns true, in the same order.
    ///
    /// The caller becomes the owner of the other blocks.
    pub(crate) fn retain(&self, stays: impl Fn(NonNull<u8>) -> bool) {
        let kept = Self::new();
        while let Some(block) = self.pop() {
            if stays(block.start()) {
                kept.push(block);
            }
        }
        // The blocks are now in reverse order.
        while let Some(block) = kept.pop() {
            self.push(block);
        }
    }

    /// Iterates over the blocks in the order in which they will be popped.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NonNull<u8>> {
        core::iter::successors(self.head.get(), |start| {
            // SAFETY: each block has a link (invariant of `head`), and no caller pops during the
            // iteration.
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
            // SAFETY: the items are blocks of two words, and nothing else uses them.
            list.push(unsafe { BlockPtr::from_start(start) });
        }
        assert!(list.iter().eq(starts.into_iter().rev()));
        for start in starts.into_iter().rev() {
            assert_eq!(list.pop().map(BlockPtr::into_start), Some(start));
        }
        assert!(list.is_empty());
    }

    #[test]
    fn the_blocks_that_stay_keep_their_order() {
        let mut memory = [[0_usize; 2]; 5];
        let starts = memory.each_mut().map(|block| NonNull::from(block).cast::<u8>());
        let list = FreeList::new();
        for start in starts {
            // SAFETY: the items are blocks of two words, and nothing else uses them.
            list.push(unsafe { BlockPtr::from_start(start) });
        }
        list.retain(|start| start != starts[1] && start != starts[4]);
        assert!(list.iter().eq([starts[3], starts[2], starts[0]]));
        list.retain(|_| false);
        assert!(list.is_empty());
    }

    #[test]
    fn a_filled_list_returns_its_blocks_in_ascending_order() {
        let mut memory = [[0_usize; 2]; 4];
        let first = NonNull::from(&mut memory).cast::<u8>();
        for (span, count) in [(0, 1), (15, 1), (16, 2), (48, 4)] {
            let list = FreeList::new();
            // SAFETY: the items are blocks of two words, and nothing else uses them.
            let taken = unsafe { list.fill(BlockPtr::from_start(first), 16, span) };
            assert_eq!(taken, count * 16);
            // SAFETY: `nth` is less than the length of the array.
            assert!(list.iter().eq((0..count).map(|nth| unsafe { first.add(nth * 16) })));
        }
    }
}
