//! Large blocks that are free but retained by a heap are counted as retained, not as in use.

use std::{
    alloc::{Layout, alloc, dealloc},
    hint::black_box,
};

use global_alloc::{Figures, Kind, ObMalloc};

#[global_allocator]
static GLOBAL: ObMalloc = ObMalloc::new();

const SIZE: usize = 3 << 20;

/// Returns the figures while a block of `SIZE` bytes is in use, and those after it is freed.
fn figures_of_a_block() -> [Figures; 2] {
    let layout = Layout::from_size_align(SIZE, 16).unwrap();
    // SAFETY: the layout is not empty.
    let block = black_box(unsafe { alloc(layout) });
    assert!(!block.is_null());
    let while_used = GLOBAL.stats();
    // SAFETY: the block is live, and is not used again.
    unsafe { dealloc(block, layout) };
    [while_used, GLOBAL.stats()]
}

#[test]
fn a_large_block_that_a_heap_retains_is_not_in_use() {
    let figures: Vec<_> = (0..4).map(|_| figures_of_a_block()).collect();
    for [used, freed] in &figures {
        let [used_large, freed_large] = [used, freed].map(|figures| figures.of_kind(Kind::Large));
        assert_eq!(used_large.blocks, freed_large.blocks + 1);
        assert!(used_large.allocated >= freed_large.allocated + SIZE);
        assert!(used.allocated() >= freed.allocated() + SIZE);
        let parts = freed.active() + freed.retained() + freed.purged();
        assert_eq!(parts, freed.mapped(), "{freed}");
    }
    let [used, freed] = figures.last().unwrap();
    assert!(freed.retained_by_heaps >= used.retained_by_heaps + SIZE, "the heap retains it");
    assert_eq!(used.mapped(), freed.mapped());
    GLOBAL.flush();
    let flushed = GLOBAL.stats();
    assert_eq!(flushed.retained_by_heaps, 0);
    assert!(flushed.mapped() + SIZE <= freed.mapped());
}
