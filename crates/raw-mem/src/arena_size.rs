//! The type of arena sizes.

#![forbid(unsafe_code)]

use core::fmt;

/// The size and alignment of an arena in bytes, a power of two of at least 64.
///
/// Clearing the low bits of any address inside an arena gives the start of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArenaSize(usize);

impl ArenaSize {
    /// Returns `None` unless `bytes` is a power of two from 64 to a quarter of the address space.
    #[must_use]
    pub const fn new(bytes: usize) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 64 && bytes <= 1 << (usize::BITS - 2) {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// Returns the size in bytes.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl fmt::Display for ArenaSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_size_is_a_power_of_two() {
        assert!(ArenaSize::new(1 << 20).is_some());
        assert!(ArenaSize::new(3 << 20).is_none());
        assert!(ArenaSize::new(32).is_none());
        assert!(ArenaSize::new(0).is_none());
        assert!(ArenaSize::new(64).is_some());
        assert!(ArenaSize::new(1 << (usize::BITS - 2)).is_some());
        assert!(ArenaSize::new(1 << (usize::BITS - 1)).is_none());
    }
}
