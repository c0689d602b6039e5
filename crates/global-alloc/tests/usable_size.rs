//! `ObMalloc` knows the usable size of its blocks even if it is used as a `MemAlloc`.

#![cfg(not(loom))]

use global_alloc::{ObMalloc, raw_mem::MemAlloc};

/// Regression test: `ObMalloc` used the trait's default method, which knows no sizes. Hooks such as
/// `Limited` then need a table of all blocks.
#[test]
fn the_usable_size_of_every_kind_of_block_is_known() {
    for size in [0, 1, 100, 5000, 100_000, 10_000_000] {
        let block = ObMalloc.malloc(size).expect("there is memory");
        // SAFETY: the block is live.
        let usable = unsafe { MemAlloc::usable_size(&ObMalloc, block) };
        assert!(usable.is_some_and(|usable| usable >= size), "{size}: {usable:?}");
        // SAFETY: the block is live, and is not used again.
        unsafe { MemAlloc::free(&ObMalloc, Some(block)) };
    }
}
