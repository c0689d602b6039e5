//! The word by which a block leads to its heap's host.

#![forbid(unsafe_code)]

use core::ptr;

/// A word of the host's that is stored with every pool or arena of a heap. From any block of the
/// heap, the host finds what the block belongs to. The heap does not interpret it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapTag(pub *const ());

impl HeapTag {
    /// The tag of a heap whose host needs none.
    pub const NONE: Self = Self(ptr::null());
}
