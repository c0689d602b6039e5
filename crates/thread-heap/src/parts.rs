//! What thread heaps are made of.

use raw_mem::{ArenaSource, MemAlloc};

use obmalloc::{Geometry, Native};

/// The geometry of [`PerThread`](crate::PerThread).
pub type ThreadGeometry = Native;

/// A source of arenas, the layer below, and a geometry, in one name: a tuple of the three.
///
/// Neither the source nor the layer below may call back into the heap that is calling it: see
/// [`ThreadHeap`](crate::ThreadHeap).
pub trait Parts: Sized + 'static {
    /// Gives arenas; shared by all heaps, behind a lock.
    type Source: ArenaSource + Send;
    /// Gives memory for records; each heap has its own handle.
    type Lower: MemAlloc + Clone + Send + Sync;
    /// The sizes of everything.
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
