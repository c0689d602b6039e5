//! The tag of a heap: a word that can be found from any block of the heap.

#![forbid(unsafe_code)]

use core::ptr;

/// A word that the creator of a heap chooses and that is stored in every pool or arena of the heap.
/// [`Heap::tag_of`](crate::Heap::tag_of) finds the tag from the address of any block in use, so the
/// creator can look up what the block belongs to. The heap itself does not interpret the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapTag(pub *const ());

impl HeapTag {
    /// The tag of a heap whose creator does not need a tag.
    pub const NONE: Self = Self(ptr::null());
}
