//! The index of an arena's record, which each pool stores in its header.

#![forbid(unsafe_code)]

use core::num::NonZero;

/// An index into the array of arena records. The array never shrinks, so an index stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArenaIndex(
    /// The index plus one, so `Option<ArenaIndex>` needs no more space.
    NonZero<u32>,
);

impl ArenaIndex {
    /// The index of a pool that is not part of an arena.
    pub(crate) const NONE: Self = Self(NonZero::<u32>::MAX);

    pub(crate) fn new(index: usize) -> Self {
        Self(NonZero::<u32>::MIN.saturating_add(index as u32))
    }

    pub(crate) const fn get(self) -> usize {
        self.0.get() as usize - 1
    }
}
