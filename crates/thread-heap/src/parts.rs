//! The types that heaps are made of.

#![forbid(unsafe_code)]

use raw_mem::{ArenaSource, MemAlloc};

use obmalloc::{Geometry, Native};

/// The geometry of [`PerThread`](crate::PerThread).
pub type ThreadGeometry = Native;

/// A name for a tuple of a source of arenas, an allocator for metadata, and a geometry.
///
/// Neither the source nor the allocator may call back into a heap that is calling it.
#[doc(hidden)]
pub trait Parts: Sized + 'static {
    /// Maps arenas. All heaps share it behind a lock.
    type Source: ArenaSource + Send;
    /// Allocates metadata. Each heap has its own handle.
    type Lower: MemAlloc + Clone + Send + Sync;
    /// The sizes of arenas, pools and blocks.
    type Geometry: Geometry;
}

impl<S, A, G> Parts for (S, A, G)
where
    S: ArenaSource + Send + 'static,
    A: MemAlloc + Clone + Send + Sync + 'static,
    G: Geometry,
{
    type Source = S;
    type Lower = A;
    type Geometry = G;
}
