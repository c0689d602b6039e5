//! Figures of the calling thread's heap, in a process without other heaps.

#![cfg(not(loom))]

use obmalloc::{Blocks, SizeClass};
use thread_heap::PerThread;

/// Regression test: the calling thread's heap was counted as another thread's (mutant 6).
#[test]
fn the_figures_of_all_heaps_include_that_of_the_calling_thread() {
    let class = SizeClass::of(100).expect("it is small");
    let block = PerThread.alloc(class).expect("there is memory");
    let stats = PerThread.stats_of_all();
    assert_eq!((stats.walked, stats.elsewhere), (1, 0));
    assert_eq!(stats.total.bytes.in_use, class.block_size());
    let figures = PerThread.figures();
    let bytes = [figures.active(), figures.retained(), figures.purged(), figures.mapped()];
    assert_eq!(bytes, [16 << 10, 0, 63 * (16 << 10), 1 << 20]);
    // SAFETY: the block came from these heaps, and is not used again.
    unsafe { PerThread.free(block) };
    assert_eq!(PerThread.stats_of_all().total.bytes.in_use, 0);
}
