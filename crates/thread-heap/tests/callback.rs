//! The callback before a refusal runs while a request is using the heap of the thread.

#![cfg(not(miri))]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use obmalloc::{Blocks, SizeClass};
use raw_mem::Limits;
use thread_heap::{OwnedHeap, PerThread};

static CALLS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_callback_cannot_take_the_heap_that_the_request_is_using() {
    let class = SizeClass::of(100_000).expect("it has a class");
    let mut blocks = vec![PerThread.alloc(class).expect("there is memory")];
    PerThread.before_refusal(|_| {
        let mut heap = OwnedHeap::of_this_thread().expect("there is metadata");
        let block = SizeClass::of(100).and_then(|class| heap.alloc(class));
        assert!(block.is_none(), "the limit also holds for the new heap");
        drop(heap);
        CALLS.fetch_add(1, Relaxed) < 3
    });
    PerThread.set_limits(Limits::hard(4 << 20));
    while let Some(block) = PerThread.alloc(class) {
        blocks.push(block);
    }
    assert!(CALLS.load(Relaxed) > 0 && blocks.len() > 10);
    PerThread.set_limits(Limits::NONE);
    blocks.push(PerThread.alloc(class).expect("there is no limit any more"));
    let in_use = PerThread.stats().expect("the thread has a heap").bytes.in_use;
    assert_eq!(in_use, blocks.len() * class.block_size(), "the thread has kept its heap");
    for block in blocks {
        // SAFETY: the block came from these heaps, and is not used again.
        unsafe { PerThread.free(block) };
    }
}
