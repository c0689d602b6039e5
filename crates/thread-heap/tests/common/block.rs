//! A block whose first word determines its contents, so that any thread can check them.

use std::{
    ops::RangeInclusive,
    ptr::NonNull,
    sync::atomic::{AtomicPtr, Ordering::AcqRel},
};

use obmalloc::{BlockPtr, SizeClass};
use thread_heap::ThreadGeometry;

/// A block with known contents, which may move between threads.
pub(crate) struct Block(
    /// # Invariant
    ///
    /// The start of a block that this value exclusively owns. [`Block::fill`] wrote its contents.
    NonNull<u8>,
);

// SAFETY: the block belongs to its holder, which may be any thread.
unsafe impl Send for Block {}

const HEAD: usize = size_of::<u64>();

const SIZES: RangeInclusive<usize> = 16..=4 << 20;

/// Returns the offsets of the bytes that are written and checked, apart from the first word.
///
/// In a block above 8 KiB, only every 13th byte is written and checked.
fn places(size: usize) -> impl Iterator<Item = usize> {
    (HEAD..size).step_by(if size > 8 << 10 { 13 } else { 1 })
}

impl Block {
    /// Fills a block with the size and the seed, followed by bytes that count up from the seed.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn fill(block: BlockPtr, class: SizeClass<ThreadGeometry>, seed: u64) -> Self {
        // SAFETY: the block is new, and has the size of its class.
        unsafe { Self::fill_bytes(block, class.block_size(), seed) }
    }

    /// Fills the first `size` bytes of a block like [`fill`](Self::fill).
    ///
    /// # Safety
    ///
    /// - The block must have at least `size` bytes, and at least 16.
    pub(crate) unsafe fn fill_bytes(block: BlockPtr, size: usize, seed: u64) -> Self {
        let (start, seed) = (block.into_start(), seed as u8);
        // SAFETY: we own the block, which is aligned to a word and has `size` bytes.
        unsafe { start.cast::<u64>().write((size as u64) << 8 | u64::from(seed)) };
        for at in places(size) {
            // SAFETY: as above.
            unsafe { start.add(at).write(seed.wrapping_add(at as u8)) };
        }
        // INVARIANT: the contents were written just now.
        Self(start)
    }

    /// Checks the contents.
    ///
    /// # Panics
    ///
    /// Panics if a byte was overwritten.
    pub(crate) fn check(self) -> BlockPtr {
        // SAFETY: we own the block, and its contents were written (invariant).
        let head = unsafe { self.0.cast::<u64>().read() };
        let (size, seed) = ((head >> 8) as usize, head as u8);
        assert!(SIZES.contains(&size), "the size of {:p} was overwritten: {head:#x}", self.0);
        for at in places(size) {
            // SAFETY: as above.
            let byte = unsafe { self.0.add(at).read() };
            let expected = seed.wrapping_add(at as u8);
            assert_eq!(byte, expected, "byte {at} of {size} at {:p} was overwritten", self.0);
        }
        // SAFETY: we own the block (invariant), and give it up.
        unsafe { BlockPtr::from_start(self.0) }
    }
}

#[allow(dead_code, reason = "not every test needs it")]
#[derive(Default)]
pub(crate) struct Slot(
    /// # Invariant
    ///
    /// Null, or a block that the slot owns.
    AtomicPtr<u8>,
);

#[allow(dead_code, reason = "not every test needs it")]
impl Slot {
    pub(crate) fn swap(&self, block: Option<Block>) -> Option<Block> {
        let new = block.map_or(std::ptr::null_mut(), |block| block.0.as_ptr());
        // INVARIANT: the new block was given up, and the caller owns the old one.
        NonNull::new(self.0.swap(new, AcqRel)).map(Block)
    }
}
