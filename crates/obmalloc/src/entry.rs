//! The interface around a heap: guards that control access to the heap, a test of whether a pointer
//! is a block of the heap, and an allocator for requests of any size on top of the heap.

pub(crate) mod access;
pub(crate) mod blocks;
pub(crate) mod claim;
pub(crate) mod pymalloc;
