//! Counts of large blocks.

#![forbid(unsafe_code)]

use sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The number and the size of large blocks. The counts are used only for reports, so `Relaxed`
/// accesses are sufficient.
pub(crate) struct LargeCounts {
    blocks: AtomicUsize,
    bytes: AtomicUsize,
}

impl LargeCounts {
    sync::const_unless_model! {
        pub(crate) fn new() -> Self {
            Self { blocks: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
        }
    }

    /// Adds `blocks` and `bytes`. To subtract, pass values that make the sums wrap around.
    ///
    /// The caller must have locked the source. Calls then never overlap, and need no atomic
    /// addition.
    pub(crate) fn add(&self, blocks: usize, bytes: usize) {
        self.blocks.store(self.blocks.load(Relaxed).wrapping_add(blocks), Relaxed);
        self.bytes.store(self.bytes.load(Relaxed).wrapping_add(bytes), Relaxed);
    }

    /// Replaces both counts. Only one thread may do this at a time, because otherwise an update
    /// could be lost.
    pub(crate) fn set(&self, (blocks, bytes): (usize, usize)) {
        self.blocks.store(blocks, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }

    /// Returns the number of blocks and their size in bytes.
    pub(crate) fn get(&self) -> (usize, usize) {
        (self.blocks.load(Relaxed), self.bytes.load(Relaxed))
    }
}
