//! What thread heaps are made of.

use raw_mem::{ArenaSource, MemAlloc};

use obmalloc::{Geometry, Pools16K, RestEachClass};

/// The geometry of [`PerThread`](crate::PerThread): CPython's of today, but that a pool emptied and
/// used again in turn stays where it is, in every class. Nobody compares these heaps with
/// CPython's, pool for pool; and an interpreter or a program frees its last block of a class often.
pub type ThreadGeometry = RestEachClass<Pools16K>;

/// A source of arenas, the layer below, and a geometry, in one name: a tuple of the three.
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
