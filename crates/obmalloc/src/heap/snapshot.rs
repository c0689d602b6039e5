//! A snapshot of a heap as a value. Tools draw pictures and write reports from it.

#![cfg_attr(not(test), forbid(unsafe_code))]

use alloc::{string::String, vec::Vec};

use raw_mem::{ArenaSource, MemAlloc};
use serde::Serialize;

use crate::{
    arena::Arena,
    geometry::{Geometry, shape::Shape, size_class::SizeClass},
    heap::{Heap, figures::Kind, walk::BlockState},
    pool::{PoolPtr, State},
};

/// A heap at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The name of the heap's geometry.
    pub geometry: &'static str,
    /// The size of an arena, in bytes.
    pub arena_size: usize,
    /// The size of a unit, in bytes.
    pub unit_size: usize,
    /// The arenas, in the order of their records in the heap.
    pub arenas: Vec<ArenaSnapshot>,
    /// The large blocks that belong to the heap.
    pub large: Vec<LargeSnapshot>,
}

/// An arena, whose units are divided into runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ArenaSnapshot {
    /// The address of the arena.
    pub address: usize,
    /// The pools and the free units in ascending order. Together they cover the arena.
    pub runs: Vec<RunSnapshot>,
}

/// The state of adjacent units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RunState {
    /// A pool in the list of its class.
    Used,
    /// A pool in which nearly every block is in use.
    Full,
    /// A pool that its class retains. It may have no block in use.
    Retained,
    /// Free units that may be backed by memory.
    Free,
    /// Free units that are not backed by memory.
    Purged,
}

/// A pool, or one free unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RunSnapshot {
    /// The number of the first unit in its arena.
    pub first: usize,
    /// The number of units.
    pub units: usize,
    /// The state of the units.
    pub state: RunState,
    /// The kind of the pool: `small`, `medium` or `span`. `None` for a free unit.
    pub kind: Option<&'static str>,
    /// The size of a block in bytes, or 0 for a free unit.
    pub block_size: usize,
    /// The number of blocks in use.
    pub in_use: usize,
    /// One character for each block: `#` in use, `-` free, `.` not carved yet.
    pub blocks: String,
}

/// A block with its own mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LargeSnapshot {
    /// The address of the block.
    pub address: usize,
    /// The size of the block, in bytes.
    pub bytes: usize,
}

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Returns the arenas, pools and blocks of the heap as a value. O(blocks).
    ///
    /// The value is allocated by the global allocator, which must not be this heap.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            geometry: G::NAME,
            arena_size: G::SIZES.arena_size,
            unit_size: G::SIZES.pool_size,
            arenas: self.arenas.arenas().filter_map(|(_, arena)| arena.snapshot::<G>()).collect(),
            large: self
                .large_blocks()
                .map(|(start, bytes)| LargeSnapshot { address: start.addr().get(), bytes })
                .collect(),
        }
    }
}

impl Arena {
    fn snapshot<G: Geometry>(&self) -> Option<ArenaSnapshot> {
        let address = self.base()?.addr().get();
        let mut runs = Vec::new();
        let free = |first| RunSnapshot {
            first,
            units: 1,
            state: if self.is_clean::<G>(first) { RunState::Purged } else { RunState::Free },
            kind: None,
            block_size: 0,
            in_use: 0,
            blocks: String::new(),
        };
        let mut next = 0;
        for pool in self.pools::<G>().filter(|pool| pool.header().state() != State::Free) {
            let first = pool.unit::<G>();
            runs.extend((next..first).map(free));
            next = first + pool.header().units_in_use::<G>();
            runs.push(self.snapshot_of::<G>(pool));
        }
        runs.extend((next..Shape::<G>::POOLS).map(free));
        Some(ArenaSnapshot { address, runs })
    }

    fn snapshot_of<G: Geometry>(&self, pool: PoolPtr) -> RunSnapshot {
        let header = pool.header();
        let class = header.class::<G>();
        let mut blocks = String::new();
        self.for_each_block::<G>(pool, |_, _, _, state| {
            blocks.push(match state {
                BlockState::InUse => '#',
                BlockState::Free => '-',
                BlockState::Uncarved => '.',
            });
        });
        RunSnapshot {
            first: pool.unit::<G>(),
            units: header.units_in_use::<G>(),
            state: match header.state() {
                State::Used => RunState::Used,
                State::Full | State::Exhausted => RunState::Full,
                State::Retained => RunState::Retained,
                State::Free | State::Uncarved => RunState::Free,
            },
            kind: class.map(|class| Kind::of(class).name()),
            block_size: class.map(SizeClass::block_size).unwrap_or_default(),
            in_use: header.in_use::<G>(),
            blocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::{Malloc, MmapArenas};

    use super::*;
    use crate::geometry::eras::{Native, Pools16K};

    fn covers<G: Geometry>(snapshot: &Snapshot) {
        for arena in &snapshot.arenas {
            let mut next = 0;
            for run in &arena.runs {
                assert_eq!(run.first, next);
                next += run.units;
                assert_eq!(run.blocks.matches('#').count(), run.in_use);
                assert_eq!(run.block_size > 0, run.kind.is_some(), "{run:?}");
            }
            assert_eq!(next, Shape::<G>::POOLS);
        }
    }

    #[test]
    fn a_snapshot_shows_pools_free_units_and_large_blocks() {
        let mut heap = Heap::<_, _, Native>::with_geometry(MmapArenas::new(), Malloc);
        let small = heap.alloc(SizeClass::of(512).unwrap()).unwrap();
        let span = heap.alloc(SizeClass::of(100 << 10).unwrap()).unwrap();
        heap.alloc_large(1 << 20, 16).unwrap();
        let snapshot = heap.snapshot();
        covers::<Native>(&snapshot);
        let runs = &snapshot.arenas[0].runs;
        assert_eq!((runs[0].kind, runs[0].block_size, runs[0].in_use), (Some("small"), 512, 1));
        // The first page has room for one block behind the headers, so no other block is carved.
        assert!(runs[0].blocks.starts_with("#.") && runs[0].blocks.ends_with('.'), "{runs:?}");
        assert_eq!(runs[1].state, RunState::Purged);
        let last = runs.last().unwrap();
        assert_eq!((last.kind, last.blocks.as_str()), (Some("span"), "#"));
        assert!(snapshot.large[0].bytes >= 1 << 20);
        // SAFETY: the blocks came from this heap, and are not used again.
        unsafe {
            heap.free(span);
            heap.free(small);
        }
        covers::<Native>(&heap.snapshot());
        let json = serde_json::to_value(&snapshot).unwrap();
        assert_eq!(json["arenas"][0]["runs"][0]["state"], "used");
    }

    #[test]
    fn a_snapshot_of_cpythons_geometry_covers_its_arenas() {
        let mut heap = Heap::<_, _, Pools16K>::with_geometry(MmapArenas::new(), Malloc);
        for size in [16, 16, 100, 512] {
            let _ = heap.alloc(SizeClass::of(size).unwrap()).unwrap();
        }
        let snapshot = heap.snapshot();
        covers::<Pools16K>(&snapshot);
        assert_eq!(snapshot.arenas[0].runs.iter().map(|run| run.in_use).sum::<usize>(), 4);
    }
}
