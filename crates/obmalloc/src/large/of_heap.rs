//! The large blocks that belong to a heap.

#![forbid(unsafe_code)]

use super::{LargeBlocks, retained::RetainedLarge};

/// The large blocks of a heap.
#[derive(Debug)]
pub(crate) struct Large {
    pub(crate) in_use: LargeBlocks,
    pub(crate) retained: RetainedLarge,
    /// The number of slots that the source allows the heap to retain. A slot has the size of an
    /// arena.
    pub(crate) granted: usize,
    /// The number of slots that the heap has requested from the source since it last released all
    /// of them.
    pub(crate) requested: usize,
    /// True if a retained block was used again since the last sweep.
    pub(crate) was_reused: bool,
}

impl Large {
    pub(crate) const NONE: Self = Self {
        in_use: LargeBlocks::NONE,
        retained: RetainedLarge::NONE,
        granted: 0,
        requested: 0,
        was_reused: false,
    };
}
