//! The types from which a family of heaps is assembled.

#![forbid(unsafe_code)]

use raw_mem::{ArenaSource, MemAlloc};

use obmalloc::{Geometry, Native};

/// The geometry of the heaps of [`PerThread`](crate::PerThread): the sizes of their arenas, pools
/// and blocks.
pub type ThreadGeometry = Native;

/// A trait for tuples of an arena source, a metadata allocator and a geometry. It lets a single
/// type parameter stand for all three types.
///
/// A heap calls the source and the allocator while the heap itself is being changed. Neither of
/// them may therefore call back into a heap.
#[doc(hidden)]
pub trait Parts: Sized + 'static {
    /// The type of the arena source. All heaps of a family share one value of this type, behind a
    /// lock.
    type Source: ArenaSource + Send;
    /// The type of the metadata allocator. Each heap has its own clone of the allocator.
    type Lower: MemAlloc + Clone + Send + Sync;
    /// The type that determines the sizes of arenas, pools and blocks.
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
