//! Heaps of several threads with a geometry that the program defines.

#![cfg(not(loom))]

use obmalloc::{Geometry, HeaderRule, RetainRule, Rules, SizeClass, Sizes};
use raw_mem::{Malloc, MmapArenas};
use thread_heap::Heaps;

/// A geometry whose pools of several blocks have up to 128 pages.
#[derive(Clone, Copy, Debug, Default)]
struct LargePools;

impl Geometry for LargePools {
    const NAME: &'static str = "pools of many pages";
    const SIZES: Sizes = Sizes {
        linked_threshold: 1 << 10,
        arena_threshold: 256 << 10,
        pool_size: 64 << 10,
        arena_size: 4 << 20,
        ..Sizes::CPYTHON
    };
    const RULES: Rules =
        Rules { headers: HeaderRule::InArena, retain: RetainRule::EachClass, ..Rules::CPYTHON };
}

/// Regression test: the thread that took over an inbox panicked.
#[test]
fn blocks_of_pools_with_many_pages_may_wait_in_an_inbox() {
    static HEAPS: Heaps<(MmapArenas, Malloc, LargePools)> = Heaps::new(MmapArenas::new(), Malloc);
    let (mut idle, mut mine) = (HEAPS.open().unwrap(), HEAPS.open().unwrap());
    for class in SizeClass::all() {
        let count = (2 << 20) / class.block_size();
        let blocks: Vec<_> = (0..count).map(|_| idle.alloc(class).unwrap()).collect();
        for block in blocks {
            // SAFETY: the block came from a heap of the same family, and is not used again.
            unsafe { mine.free(block) };
        }
        // This flush sends the remaining blocks, and takes over the inbox.
        mine.flush();
        idle.flush();
        idle.check_invariants();
        assert_eq!(idle.stats().bytes.in_use, 0, "{class:?}");
    }
}
