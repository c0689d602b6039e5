//! The place of the first block in a pool.

#![forbid(unsafe_code)]

use crate::geometry::{
    Geometry, HeaderRule,
    shape::{POOL_OVERHEAD, Shape},
};

/// Where the blocks of a pool begin, if the geometry stores its headers in the arena.
///
/// In all other geometries, the blocks begin behind the header of their pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockStart {
    /// At the start of the pool, so a block is aligned to each power of two that divides its size.
    #[default]
    Aligned,
    /// At the distance at which they begin in CPython, whose pools have a header of 48 bytes.
    ///
    /// A Python object begins 16 bytes into its block if the garbage collector tracks the object.
    /// In blocks of 64 bytes, such objects are then aligned to cache lines.
    AsInCPython,
}

impl BlockStart {
    /// Returns the number of unused bytes before the first block.
    pub(crate) const fn unused_bytes<G: Geometry>(self) -> usize {
        match (G::RULES.headers, self) {
            (HeaderRule::InArena, Self::AsInCPython) => {
                POOL_OVERHEAD.next_multiple_of(G::SIZES.alignment)
            }
            _ => 0,
        }
    }

    /// Returns the offset of the first block in a pool. `is_first` means the arena's first pool.
    pub(crate) const fn offset<G: Geometry>(self, is_first: bool) -> usize {
        let before = if is_first { Shape::<G>::BEFORE_FIRST_POOL } else { Shape::<G>::BEFORE_POOL };
        before + self.unused_bytes::<G>()
    }
}
