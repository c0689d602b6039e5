//! Memory with a large alignment is moved by a copy when it is resized.

use std::{
    alloc::{Layout, alloc, dealloc, realloc},
    hint::black_box,
};

use global_alloc::ObMalloc;

#[global_allocator]
static GLOBAL: ObMalloc = ObMalloc::new();

const MIB: usize = 1 << 20;

/// Regression test: such a request made the thread's heap return all of its unused memory.
#[test]
fn resizing_aligned_memory_leaves_the_heap_what_it_retains() {
    let plain = Layout::from_size_align(5 * MIB, 16).unwrap();
    let [old, new] = [3, 4].map(|mib| Layout::from_size_align(mib * MIB, 2 * MIB).unwrap());
    // SAFETY: no layout is empty. Each block is freed once, with its last layout.
    unsafe {
        // The heap retains blocks only if the program uses such blocks repeatedly.
        for _ in 0..4 {
            let blocks = [(); 20].map(|()| black_box(alloc(plain)));
            assert!(blocks.iter().all(|block| !block.is_null()));
            blocks.into_iter().for_each(|block| dealloc(block, plain));
        }
        assert!(GLOBAL.stats().retained_by_heaps >= 20 * plain.size());
        let start = alloc(old);
        assert!(!start.is_null());
        start.write_bytes(7, old.size());
        let moved = realloc(start, old, new.size());
        assert!(!moved.is_null() && moved.addr().is_multiple_of(old.align()));
        assert_eq!((moved.read(), moved.add(old.size() - 1).read()), (7, 7));
        // The new blocks count as in use, so the heap may retain a little less than before.
        assert!(GLOBAL.stats().retained_by_heaps >= 10 * plain.size());
        dealloc(moved, new);
    }
}
