//! The interface around a heap: guards that control access to it, the test of whether a pointer
//! belongs to it, and an allocator of any size on top of it.

pub(crate) mod access;
pub(crate) mod blocks;
pub(crate) mod claim;
pub(crate) mod pymalloc;
