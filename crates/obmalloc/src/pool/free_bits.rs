//! The free blocks of a pool, as the bits of a word in its header.
//!
//! Pools of linked blocks have a list instead (see [`FreeList`](super::block::FreeList)).
//! Decision 0020 explains why.

#![forbid(unsafe_code)]

use core::{cell::Cell, iter};

/// A set of blocks. Bit `n` stands for block `n` of the pool.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct FreeBits(Cell<u64>);

impl FreeBits {
    pub(crate) const fn new() -> Self {
        Self(Cell::new(0))
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.get() == 0
    }

    pub(crate) fn clear(&self) {
        self.0.set(0);
    }

    /// Adds block `nth`, which must be less than 64.
    #[inline]
    pub(crate) fn insert(&self, nth: usize) {
        debug_assert!(nth < u64::BITS as usize && self.0.get() >> nth & 1 == 0);
        self.0.set(self.0.get() | 1_u64.wrapping_shl(nth as u32));
    }

    /// Adds the blocks `first..first + count`. The set must be empty.
    ///
    /// `count` must not be 0, and `first + count` must be at most 64.
    pub(crate) fn fill(&self, first: usize, count: usize) {
        debug_assert!(self.is_empty() && (1..=u64::BITS as usize - first).contains(&count));
        self.0.set((u64::MAX >> (u64::BITS as usize - count)) << first);
    }

    /// Removes the block with the lowest number, and returns its number.
    #[inline]
    pub(crate) fn take_lowest(&self) -> Option<usize> {
        let bits = self.0.get();
        if bits == 0 {
            return None;
        }
        self.0.set(bits & (bits - 1));
        Some(bits.trailing_zeros() as usize)
    }

    /// Replaces all blocks by those of `other`.
    pub(crate) fn replace(&self, other: Self) {
        self.0.set(other.0.get());
    }

    /// Iterates over the numbers of the blocks, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let left = Self(Cell::new(self.0.get()));
        iter::from_fn(move || left.take_lowest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_block_is_taken_first() {
        let bits = FreeBits::new();
        [5, 63, 0, 17].into_iter().for_each(|nth| bits.insert(nth));
        assert!(bits.iter().eq([0, 5, 17, 63]));
        assert!(iter::from_fn(|| bits.take_lowest()).eq([0, 5, 17, 63]));
        assert!(bits.is_empty());
    }

    #[test]
    fn adjacent_blocks_are_added_at_once() {
        for (first, count) in [(0, 1), (0, 64), (63, 1), (5, 3)] {
            let bits = FreeBits::new();
            bits.fill(first, count);
            assert!(bits.iter().eq(first..first + count));
        }
    }

    #[test]
    fn replaced_and_cleared_blocks_are_gone() {
        let (bits, other) = (FreeBits::new(), FreeBits::new());
        bits.insert(3);
        other.insert(4);
        bits.replace(other);
        assert!(bits.iter().eq([4]));
        bits.clear();
        assert_eq!(bits.take_lowest(), None);
    }
}
