//! The types from which a family of heaps is assembled.

#![forbid(unsafe_code)]

use raw_mem::{ArenaSource, MemAlloc};

use obmalloc::{Geometry, Native};

/// The geometry of the heaps of [`PerThread`](crate::PerThread): the sizes of their arenas, pools
/// and blocks.
pub type ThreadGeometry = Native;

/// A trait for tuples of a source of arenas, an allocator for metadata, and a geometry. With it,
/// one type parameter stands for all three types.
///
/// A heap calls the source and the allocator while it is being changed. Neither of them may
/// therefore call back into a heap.
#[doc(hidden)]
pub trait Parts: Sized + 'static {
    /// The type that maps arenas. All heaps share one value of this type, behind a lock.
    type Source: ArenaSource + Send;
    /// The type that allocates metadata. Each heap has its own clone of the allocator.
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
