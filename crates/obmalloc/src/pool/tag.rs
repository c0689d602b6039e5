//! The tag of a heap.

#![forbid(unsafe_code)]

use core::ptr;

/// A value that the creator of a heap chooses, such as the heap's address.
///
/// The function [`Heap::tag_of`](crate::Heap::tag_of) returns the tag of the heap that owns a
/// block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapTag(pub *const ());

impl HeapTag {
    /// The tag of a heap that does not need one.
    pub const NONE: Self = Self(ptr::null());

    /// The tag of a [`LargeBlock`](crate::LargeBlock), which no heap has.
    pub const LARGE: Self = Self(ptr::without_provenance(1));
}
