//! The ways into a heap: guards, the test of whether a pointer is ours, and the allocator of any
//! size.

pub(crate) mod access;
pub(crate) mod blocks;
pub(crate) mod claim;
pub(crate) mod pymalloc;
