//! The type parameters of a family of heaps.

#![forbid(unsafe_code)]

use raw_mem::{ArenaSource, MemAlloc};

use obmalloc::{Geometry, Native};

/// The sizes of the arenas, pools and blocks of [`PerThread`](crate::PerThread).
pub type ThreadGeometry = Native;

/// An arena source, a metadata allocator and a geometry, combined in one type parameter.
///
/// The arena source and the metadata allocator must not use a heap, because the heap that calls
/// them is inconsistent meanwhile.
#[doc(hidden)]
pub trait Parts: Sized + 'static {
    /// The arena source, which all heaps of a family share behind a lock.
    type Source: ArenaSource + Send;
    /// The metadata allocator, of which each heap has a clone.
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
