//! The type that describes a mapping for one large block.

#![forbid(unsafe_code)]

use core::ptr::NonNull;

/// A mapping for one block that is too large for an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeMapping {
    /// The start of the mapping, which is a multiple of an arena's size.
    pub start: NonNull<u8>,
    /// The usable size in bytes, which is at least the requested size.
    ///
    /// Every later call for this mapping must pass this size.
    pub bytes: usize,
    /// True if the memory is known to be zero.
    ///
    /// After a call that has resized the mapping, this refers only to the bytes that were added.
    pub is_zeroed: bool,
}
