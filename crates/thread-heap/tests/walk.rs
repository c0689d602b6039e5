//! A walk over all heaps of a process while no other thread uses them.

use std::{collections::BTreeMap, ptr::NonNull, thread};

use thread_heap::{PerThread, ThreadMalloc, raw_mem::MemAlloc};

fn addresses(count: usize) -> Vec<usize> {
    let block = |nth| ThreadMalloc.malloc(1 + nth * 37 % 20_000).unwrap().expose_provenance().get();
    (0..count).map(block).collect()
}

#[test]
fn blocks_of_living_and_ended_threads_are_visited_and_freed_ones_are_not() {
    let mut live = addresses(2000);
    let of_ended = thread::spawn(|| addresses(2000)).join().unwrap();
    let (freed, kept) = of_ended.split_at(1000);
    for address in freed.iter().copied().chain(live.drain(1000..)) {
        let block = NonNull::new(std::ptr::with_exposed_provenance_mut(address));
        // SAFETY: the block is live, and is not used again.
        unsafe { ThreadMalloc.free(block) };
    }
    let expected: BTreeMap<usize, ()> = live.iter().chain(kept).map(|at| (*at, ())).collect();
    let mut visited = [0_usize; 4096];
    let mut count = 0;
    // SAFETY: the other threads have ended, and the closure does not allocate.
    unsafe {
        PerThread.for_each_block(|block| {
            visited[count] = block.start.addr().get();
            count += 1;
        });
    }
    let visited: BTreeMap<usize, ()> = visited[..count].iter().map(|at| (*at, ())).collect();
    assert_eq!((count, visited), (2000, expected));
}
