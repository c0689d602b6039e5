//! A walk over the blocks in use of a heap.

use core::ptr::NonNull;

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    arena::Arena,
    geometry::Geometry,
    heap::{Heap, figures::Kind},
    pool::{PoolPtr, State},
};

/// The largest number of blocks in a pool whose blocks can be visited.
///
/// A pool of 16 KiB has this many blocks if each block has 8 bytes.
const MAX_BLOCKS: usize = 2048;

/// A block in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveBlock {
    /// The first byte of the block.
    pub start: NonNull<u8>,
    /// The size of the block in bytes, rounded up to its size class.
    pub size: usize,
    /// The kind of memory that contains the block.
    pub kind: Kind,
}

/// The state of a block in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockState {
    InUse,
    Free,
    /// The part of the pool in which this block would lie is not divided into blocks at present.
    /// The block is therefore neither in use nor on the free list. There are two possible reasons:
    /// - The heap has not yet divided this part for the size class that uses the pool.
    /// - The heap has found a page without blocks in use, and has taken the blocks on this page off
    ///   the free list (see `arena::uncarved`).
    Uncarved,
}

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Calls `visit` with each block in use, in no particular order. O(blocks).
    ///
    /// Blocks that other threads have freed count as in use until the heap reclaims them.
    ///
    /// This function requires a geometry in which a unit has room for at most 2,048 blocks of the
    /// smallest class. In the second example, a unit has room for 4,096 such blocks, so the call
    /// does not compile:
    ///
    /// ```
    /// # use obmalloc::{Geometry, Heap, Sizes};
    /// # use raw_mem::{Malloc, MmapArenas};
    /// #[derive(Clone, Copy, Debug, Default)]
    /// struct Pools32K;
    /// impl Geometry for Pools32K {
    ///     const NAME: &'static str = "32 KiB pools";
    ///     const SIZES: Sizes = Sizes { pool_size: 32 << 10, ..Sizes::CPYTHON };
    /// }
    /// let heap = Heap::<_, _, Pools32K>::with_geometry(MmapArenas::new(), Malloc);
    /// heap.for_each_block(|_| ());
    /// ```
    ///
    /// ```compile_fail,E0080
    /// # use obmalloc::{Geometry, Heap, Sizes};
    /// # use raw_mem::{Malloc, MmapArenas};
    /// #[derive(Clone, Copy, Debug, Default)]
    /// struct Pools64K;
    /// impl Geometry for Pools64K {
    ///     const NAME: &'static str = "64 KiB pools";
    ///     const SIZES: Sizes = Sizes { pool_size: 64 << 10, ..Sizes::CPYTHON };
    /// }
    /// let heap = Heap::<_, _, Pools64K>::with_geometry(MmapArenas::new(), Malloc);
    /// heap.for_each_block(|_| ());
    /// ```
    pub fn for_each_block(&self, mut visit: impl FnMut(LiveBlock)) {
        for (_, arena) in self.arenas.arenas() {
            for pool in arena.pools::<G>() {
                arena.for_each_block::<G>(pool, |start, size, kind, state| {
                    if state == BlockState::InUse {
                        visit(LiveBlock { start, size, kind });
                    }
                });
            }
        }
        for (start, size) in self.large_blocks() {
            visit(LiveBlock { start, size, kind: Kind::Large });
        }
    }
}

/// A bit set of the blocks in a pool.
struct Blocks([u64; MAX_BLOCKS / 64]);

impl Blocks {
    const NONE: Self = Self([0; MAX_BLOCKS / 64]);

    fn insert(&mut self, nth: usize) {
        self.0[nth / 64] |= 1 << (nth % 64);
    }

    fn contains(&self, nth: usize) -> bool {
        self.0[nth / 64] >> (nth % 64) & 1 != 0
    }
}

impl Arena {
    /// Calls `visit` with the start, size, kind and state of each block of `pool`.
    ///
    /// The pool must lie in this arena. Does nothing for a free pool.
    pub(crate) fn for_each_block<G: Geometry>(
        &self,
        pool: PoolPtr,
        mut visit: impl FnMut(NonNull<u8>, usize, Kind, BlockState),
    ) {
        let header = pool.header();
        let Some(class) = header.class::<G>().filter(|_| header.state() != State::Free) else {
            return;
        };
        const {
            assert!(
                G::SIZES.pool_size / G::SIZES.alignment <= MAX_BLOCKS,
                "blocks can be visited only if `pool_size / alignment` is at most 2048"
            );
        }
        let (size, first) = (class.block_size(), header.first_offset::<G>());
        let start = pool.start::<G>();
        let (mut free, mut uncarved) = (Blocks::NONE, Blocks::NONE);
        // We read the whole free list before the first visit, because `visit` might allocate from
        // the list.
        for block in pool.free_blocks::<G>() {
            free.insert((block.addr().get() - start.addr().get() - first) / size);
        }
        for offset in self.uncarved_blocks::<G>(pool) {
            uncarved.insert((offset - first) / size);
        }
        let capacity = header.capacity(class);
        let carved = capacity - header.uncarved::<G>();
        for nth in 0..capacity {
            let state = if free.contains(nth) {
                BlockState::Free
            } else if nth >= carved || uncarved.contains(nth) {
                BlockState::Uncarved
            } else {
                BlockState::InUse
            };
            // SAFETY: the pool is valid as a whole (invariant of `PoolPtr`).
            let block = unsafe { start.add(first + nth * size) };
            visit(block, size, Kind::of(class), state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, vec::Vec};

    use raw_mem::{Malloc, MmapArenas};

    use super::*;
    use crate::geometry::{eras::Native, size_class::SizeClass};

    #[test]
    fn every_block_in_use_is_visited_once_and_no_other() {
        let mut heap = Heap::<_, _, Native>::with_geometry(MmapArenas::new(), Malloc);
        let mut expected = BTreeMap::new();
        let (mut blocks, mut state) = (Vec::new(), 1_usize);
        for _ in 0..6000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let size = 1 + (state >> 40) % [16, 100, 512, 5000, 100_000][(state >> 33) % 5];
            let class = SizeClass::of(size).unwrap();
            let block = heap.alloc(class).unwrap();
            expected.insert(block.start(), class.block_size());
            blocks.push(block);
            if (state >> 35) % 3 == 0 {
                let block = blocks.swap_remove((state >> 20) % blocks.len());
                expected.remove(&block.start());
                // SAFETY: the block came from this heap, and is not used again.
                unsafe { heap.free(block) };
            }
        }
        let large = heap.alloc_large(1 << 20, 16).unwrap().block;
        // SAFETY: the block is in use.
        expected.insert(large.start(), unsafe { large.size::<Native>() });
        let mut visited = BTreeMap::new();
        heap.for_each_block(|block| assert!(visited.insert(block.start, block.size).is_none()));
        assert_eq!(visited, expected);
    }
}
