//! The tag of a heap: a word that can be found from any block of the heap.

#![forbid(unsafe_code)]

use core::ptr;

/// A word that the creator of a heap chooses. The heap stores the word in each of its pools or
/// arenas, but does not interpret it. [`Heap::tag_of`](crate::Heap::tag_of) returns the tag for the
/// address of any block in use. A program with several heaps can therefore find the heap of a
/// block, for example by using the address of a heap as its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapTag(pub *const ());

impl HeapTag {
    /// The tag of a heap whose creator does not need a tag.
    pub const NONE: Self = Self(ptr::null());
}
