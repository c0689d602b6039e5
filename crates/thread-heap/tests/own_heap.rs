//! The figures of the calling thread's heap. The test is alone in its program, so no other thread has
//! a heap.

#![cfg(not(loom))]

use obmalloc::{Blocks, SizeClass};
use thread_heap::PerThread;

/// mutants 6: the figures counted the thread's own heap as another thread's.
#[test]
fn the_figures_of_all_heaps_include_that_of_the_calling_thread() {
    let class = SizeClass::of(100).expect("it is small");
    let block = PerThread.alloc(class).expect("there is memory");
    let stats = PerThread.stats_of_all();
    assert_eq!((stats.walked, stats.elsewhere), (1, 0));
    assert_eq!(stats.total.bytes.in_use, class.block_size());
    // SAFETY: the block came from these heaps, and is not used again.
    unsafe { PerThread.free(block) };
    assert_eq!(PerThread.stats_of_all().total.bytes.in_use, 0);
}
