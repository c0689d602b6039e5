//! The statistics of a heap. A walk over all pools computes them, so the fast paths need not count
//! anything.

#![forbid(unsafe_code)]

use core::ops::AddAssign;

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    arena::{Arena, map::ArenaMap},
    geometry::{Geometry, MAX_CLASSES, shape::Shape, size_class::SizeClass},
    heap::Heap,
    pool::{PoolPtr, State},
};

/// The statistics of one size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// The size of a block, in bytes.
    pub block_size: usize,
    /// The number of pools with a block in use.
    pub pools: usize,
    /// The number of blocks in use.
    pub in_use: usize,
    /// The number of free blocks in pools with a block in use, including the `uncarved` ones.
    pub available: usize,
    /// How many of the `available` blocks are on no free list, because their memory is not divided
    /// into blocks at present.
    pub uncarved: usize,
}

/// The numbers of arenas, and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArenaStats {
    /// The number of arenas that were ever mapped.
    pub allocated: usize,
    /// The number of arenas that were ever unmapped.
    pub reclaimed: usize,
    /// The largest number of arenas that were mapped at the same time.
    pub highwater: usize,
    /// The number of arenas that are mapped now.
    pub current: usize,
    /// The size of an arena, in bytes.
    pub size: usize,
}

/// A breakdown of the bytes of all mapped arenas. The fields add up to the size of these arenas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ByteStats {
    /// The bytes of all blocks in use.
    pub in_use: usize,
    /// The bytes of the free blocks in pools that have a block in use.
    pub available: usize,
    /// The bytes of all units without a block in use.
    pub unused_pools: usize,
    /// The bytes before the first block, in pools with a block in use. They hold headers.
    pub pool_headers: usize,
    /// The bytes after the last block, in pools with a block in use.
    pub quantization: usize,
}

impl ByteStats {
    /// Returns the total size of all mapped arenas, in bytes.
    pub const fn total(&self) -> usize {
        self.in_use + self.available + self.unused_pools + self.pool_headers + self.quantization
    }
}

/// The blocks of a heap that have their own mappings outside its arenas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LargeStats {
    /// The number of blocks in use.
    pub blocks: usize,
    /// The total size of these blocks, in bytes.
    pub bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapStats {
    pub(crate) root_bytes: usize,
    pub(crate) leaf_bytes: usize,
    pub(crate) leaves: usize,
}

/// The statistics of a heap at one moment.
///
/// `Display` formats the statistics like CPython's `sys._debugmallocstats()`,
/// and [`write_json`](Self::write_json) writes them as JSON. Neither allocates memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The name of the heap's geometry.
    pub geometry: &'static str,
    /// The largest small request, in bytes. Some geometries also serve larger requests from arenas.
    pub small_threshold: usize,
    /// The size of a unit, in bytes. A pool of small blocks is one unit.
    pub pool_size: usize,
    /// The numbers of arenas.
    pub arenas: ArenaStats,
    /// How the bytes of the arenas are used.
    pub bytes: ByteStats,
    /// The number of units without a block in use.
    pub unused_pools: usize,
    /// The number of requests that have failed because no arena could be mapped.
    pub refused: usize,
    /// The large blocks that belong to the heap.
    pub large: LargeStats,
    pub(crate) map: Option<MapStats>,
    classes: [ClassStats; MAX_CLASSES],
    class_count: usize,
}

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Walks the heap and returns its statistics. O(pools).
    pub fn stats(&self) -> Stats {
        let counts = self.arenas.counts();
        let mut stats = Stats::empty::<G>();
        stats.arenas.allocated = counts.allocated;
        stats.arenas.highwater = counts.highwater;
        stats.arenas.current = counts.current;
        stats.arenas.reclaimed = counts.allocated - counts.current;
        stats.refused = self.refused();
        stats.large = self.large_stats();
        for (_, arena) in self.arenas.arenas() {
            stats.unused_pools += arena.free_units();
            arena.pools::<G>().for_each(|pool| stats.count_pool::<G>(arena, pool));
        }
        stats.bytes.unused_pools = stats.unused_pools * G::SIZES.pool_size;
        stats
    }
}

impl Stats {
    /// Returns the statistics of a heap without arenas.
    pub fn empty<G: Geometry>() -> Self {
        let mut classes = [ClassStats::default(); MAX_CLASSES];
        for class in SizeClass::<G>::all() {
            classes[class.index()].block_size = class.block_size();
        }
        Self {
            geometry: G::NAME,
            small_threshold: G::SIZES.small_threshold,
            pool_size: G::SIZES.pool_size,
            arenas: ArenaStats { size: G::SIZES.arena_size, ..ArenaStats::default() },
            bytes: ByteStats::default(),
            unused_pools: 0,
            refused: 0,
            large: LargeStats::default(),
            map: None,
            classes,
            class_count: Shape::<G>::CLASSES,
        }
    }

    fn count_pool<G: Geometry>(&mut self, arena: &Arena, pool: PoolPtr) {
        let header = pool.header();
        let Some(class) = header.class::<G>().filter(|_| header.state() != State::Free) else {
            return;
        };
        let (size, in_use) = (class.block_size(), header.in_use::<G>());
        if in_use == 0 {
            // The pool is retained, but none of its blocks is in use, so it counts as unused.
            self.unused_pools += class.units();
            return;
        }
        let (first, capacity) = (header.first_offset::<G>(), header.capacity(class));
        let available = capacity - in_use;
        let stats = &mut self.classes[class.index()];
        stats.pools += 1;
        stats.in_use += in_use;
        stats.available += available;
        stats.uncarved += header.uncarved::<G>() + arena.uncarved_blocks::<G>(pool).count();
        self.bytes.in_use += in_use * size;
        self.bytes.available += available * size;
        self.bytes.pool_headers += first;
        self.bytes.quantization += class.pool_bytes() - first - capacity * size;
    }

    /// Adds the sizes of the nodes of `map`, which must be the map of the heap's arenas.
    pub fn with_map<G: Geometry>(mut self, map: &ArenaMap<G>) -> Self {
        let (root_bytes, leaf_bytes) = map.node_sizes();
        self.map = Some(MapStats { root_bytes, leaf_bytes, leaves: map.leaves() });
        self
    }

    /// Returns the statistics of each size class, indexed by the number of the class.
    pub fn classes(&self) -> &[ClassStats] {
        &self.classes[..self.class_count]
    }
}

/// Adds the statistics of another heap with the same geometry.
///
/// The sum of the two `highwater` values is an upper bound, because the two peaks may have occurred
/// at different times.
impl AddAssign<&Self> for Stats {
    fn add_assign(&mut self, other: &Self) {
        let (arenas, bytes) = (&mut self.arenas, &mut self.bytes);
        arenas.allocated += other.arenas.allocated;
        arenas.reclaimed += other.arenas.reclaimed;
        arenas.highwater += other.arenas.highwater;
        arenas.current += other.arenas.current;
        bytes.in_use += other.bytes.in_use;
        bytes.available += other.bytes.available;
        bytes.unused_pools += other.bytes.unused_pools;
        bytes.pool_headers += other.bytes.pool_headers;
        bytes.quantization += other.bytes.quantization;
        self.unused_pools += other.unused_pools;
        self.refused += other.refused;
        self.large.blocks += other.large.blocks;
        self.large.bytes += other.large.bytes;
        self.map = self.map.or(other.map);
        for (class, other) in self.classes.iter_mut().zip(other.classes()) {
            class.pools += other.pools;
            class.in_use += other.in_use;
            class.available += other.available;
            class.uncarved += other.uncarved;
        }
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::{Malloc, MmapArenas};

    use super::*;
    use crate::geometry::eras::Pools16K;

    fn heap_with_three_blocks() -> Heap<MmapArenas, Malloc, Pools16K> {
        let mut heap = Heap::new(MmapArenas::new(), Malloc);
        for size in [40, 48, 512] {
            heap.alloc(SizeClass::of(size).unwrap()).unwrap();
        }
        heap
    }

    #[test]
    fn the_bytes_add_up_to_the_arenas() {
        let stats = heap_with_three_blocks().stats();
        assert_eq!(stats.bytes.total(), stats.arenas.current * stats.arenas.size);
        assert_eq!(stats.bytes.in_use, 48 + 48 + 512);
        assert_eq!((stats.classes()[2].in_use, stats.classes()[2].available), (2, 338));
        assert_eq!(stats.unused_pools, 62);
    }

    #[test]
    fn the_figures_of_two_heaps_are_added() {
        let one = heap_with_three_blocks().stats();
        let mut both = Stats::empty::<Pools16K>();
        both += &one;
        assert_eq!(both, one);
        both += &one;
        assert_eq!(both.classes()[2].in_use, 4);
        assert_eq!((both.arenas.current, both.bytes.total()), (2, 2 << 20));
    }
}
