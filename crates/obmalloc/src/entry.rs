//! Guards around a heap, a test for its blocks, and an allocator for requests of any size.

pub(crate) mod access;
pub(crate) mod blocks;
pub(crate) mod claim;
pub(crate) mod pymalloc;
