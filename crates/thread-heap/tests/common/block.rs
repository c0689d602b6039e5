//! A block that knows what must stand in it, so that any thread can check it.
//!
//! ```text
//!   ┌───────────────┬──────────────────────────────┐
//!   │ size and seed │ seed · seed + 1 · seed + 2 … │
//!   └───────────────┴──────────────────────────────┘
//! ```

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicPtr, Ordering::AcqRel},
};

use obmalloc::{BlockPtr, SizeClass};
use thread_heap::ThreadGeometry;

/// A block in use, with its contents, on its way between threads.
pub(crate) struct Block(
    /// # Invariant
    ///
    /// The start of a block that is ours alone, with contents written by [`Block::fill`].
    NonNull<u8>,
);

// SAFETY: the block is the holder's alone, whichever thread that is.
unsafe impl Send for Block {}

/// Bytes of what stands before the pattern.
const HEAD: usize = size_of::<u64>();

impl Block {
    /// Fills a block of `class` with a pattern that follows from `seed`.
    pub(crate) fn fill(block: BlockPtr, class: SizeClass<ThreadGeometry>, seed: u64) -> Self {
        let (start, size) = (block.into_start(), class.block_size());
        let seed = seed as u8;
        // SAFETY: the block is ours, aligned to a word, and has `size` bytes.
        unsafe { start.cast::<u64>().write((size as u64) << 8 | u64::from(seed)) };
        for at in HEAD..size {
            // SAFETY: as above.
            unsafe { start.add(at).write(seed.wrapping_add(at as u8)) };
        }
        // INVARIANT: it was filled just now.
        Self(start)
    }

    /// Checks the contents. The block is as it was allocated.
    ///
    /// # Panics
    ///
    /// When a byte was overwritten.
    pub(crate) fn check(self) -> BlockPtr {
        // SAFETY: the invariant.
        let head = unsafe { self.0.cast::<u64>().read() };
        let (size, seed) = ((head >> 8) as usize, head as u8);
        assert!((16..=512).contains(&size), "the size of {:p} was overwritten: {head:#x}", self.0);
        for at in HEAD..size {
            // SAFETY: the invariant: these bytes were written.
            let byte = unsafe { self.0.add(at).read() };
            let expected = seed.wrapping_add(at as u8);
            assert_eq!(byte, expected, "byte {at} of {size} at {:p} was overwritten", self.0);
        }
        // SAFETY: the invariant; and it is given away here.
        unsafe { BlockPtr::from_start(self.0) }
    }
}

/// A place for one block, that any thread may exchange.
#[allow(dead_code, reason = "not every test needs it")]
#[derive(Default)]
pub(crate) struct Slot(
    /// # Invariant
    ///
    /// Null, or the block that was put here last.
    AtomicPtr<u8>,
);

#[allow(dead_code, reason = "not every test needs it")]
impl Slot {
    /// Puts a block here, or none, and takes what was here.
    pub(crate) fn swap(&self, block: Option<Block>) -> Option<Block> {
        let new = block.map_or(std::ptr::null_mut(), |block| block.0.as_ptr());
        // INVARIANT: the block was given, and the one that was here leaves.
        NonNull::new(self.0.swap(new, AcqRel)).map(Block)
    }
}
