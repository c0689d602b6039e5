//! The index of an arena's record. The header of each pool stores the index of the arena that the
//! pool is part of.

#![forbid(unsafe_code)]

use core::num::NonZero;

/// The index of an arena's record in the array of all records. This array never shrinks, so an
/// index stays valid as long as the array exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArenaIndex(
    /// The index plus one. It is never 0, so `Option<ArenaIndex>` is no larger than `ArenaIndex`.
    NonZero<u32>,
);

impl ArenaIndex {
    /// An index that no record has, for pools that are part of no arena.
    pub(crate) const NONE: Self = Self(NonZero::<u32>::MAX);

    pub(crate) fn new(index: usize) -> Self {
        Self(NonZero::<u32>::MIN.saturating_add(index as u32))
    }

    pub(crate) const fn get(self) -> usize {
        self.0.get() as usize - 1
    }
}
