//! The tag of a heap, a word that can be found from each of its blocks.

#![forbid(unsafe_code)]

use core::ptr;

/// A word that the creator of a heap chooses, such as the address of the heap.
///
/// [`Heap::tag_of`](crate::Heap::tag_of) returns the tag for any block in use, so a program can
/// find the heap of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapTag(pub *const ());

impl HeapTag {
    /// The tag of a heap that needs none.
    pub const NONE: Self = Self(ptr::null());
}
