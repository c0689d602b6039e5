//! Memory that is freed, resized or reset is returned to the system.
//!
//! Regression tests (mutants 1, 2 and 3).

#![cfg(all(target_os = "linux", not(miri)))]

use std::{
    alloc::{Layout, alloc, dealloc, realloc},
    hint::black_box,
    sync::Mutex,
    time::Duration,
};

use global_alloc::LocalHeap;

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

const TIMES: usize = 300;
const MIB: usize = 1 << 20;

const GROWTH: usize = 50 * MIB;

/// Locked by the test that is running, because the tests measure the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// Returns the resident memory of the process in bytes, which includes only pages that were
/// written.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number of pages") * 4096
}

fn grows_little(mut step: impl FnMut()) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    step();
    let before = resident();
    (0..TIMES).for_each(|_| step());
    let after = resident();
    assert!(after < before + GROWTH, "the process grew from {before} to {after} bytes");
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a valid layout")
}

fn allocate_and_free(layout: Layout) {
    // SAFETY: the layout is not empty. The memory is freed once, with its layout.
    unsafe {
        let start = black_box(alloc(layout));
        assert!(!start.is_null());
        start.write_bytes(1, layout.size());
        dealloc(start, layout);
    }
}

#[test]
fn large_memory_goes_back_when_it_is_freed() {
    grows_little(|| allocate_and_free(layout(MIB, 8)));
}

#[test]
fn large_aligned_memory_goes_back_when_it_is_freed() {
    grows_little(|| allocate_and_free(layout(MIB, 4096)));
}

fn allocate_resize_and_free(layout: Layout, new_size: usize) {
    // SAFETY: the layout is not empty. The memory is resized and freed with the layout that it has.
    unsafe {
        let start = alloc(layout);
        assert!(!start.is_null());
        start.write_bytes(1, layout.size());
        let resized = black_box(realloc(start, layout, new_size));
        assert!(!resized.is_null());
        let new = Layout::from_size_align(new_size, layout.align()).expect("a valid layout");
        dealloc(resized, new);
    }
}

#[test]
fn large_memory_goes_back_when_it_moves() {
    grows_little(|| allocate_resize_and_free(layout(MIB, 8), 2 * MIB));
}

#[test]
fn large_aligned_memory_goes_back_when_it_moves() {
    grows_little(|| allocate_resize_and_free(layout(MIB, 4096), 2 * MIB));
}

#[test]
fn large_memory_goes_back_when_it_becomes_small() {
    grows_little(|| allocate_resize_and_free(layout(MIB, 8), 100));
}

/// Allocates memory of `heap`, fills it, and does not free it.
fn fill(heap: &LocalHeap, layout: Layout) {
    let start = heap.alloc(layout).expect("out of memory");
    // SAFETY: the memory has that many bytes.
    unsafe { start.write_bytes(1, layout.size()) };
}

#[test]
fn large_memory_goes_back_when_a_local_heap_is_reset() {
    let mut heap = LocalHeap::new();
    grows_little(|| {
        fill(&heap, layout(MIB, 8));
        heap.reset();
    });
}

#[test]
fn small_memory_goes_back_when_a_local_heap_is_reset() {
    let mut heap = LocalHeap::new();
    grows_little(|| {
        (0..2048).for_each(|_| fill(&heap, layout(512, 8)));
        heap.reset();
    });
}

#[test]
fn all_memory_goes_back_when_a_local_heap_is_dropped() {
    grows_little(|| {
        let heap = LocalHeap::new();
        fill(&heap, layout(MIB, 8));
        (0..2048).for_each(|_| fill(&heap, layout(512, 8)));
    });
}

#[test]
fn large_memory_of_a_local_heap_goes_back_when_it_is_freed_or_moves() {
    let heap = LocalHeap::new();
    grows_little(|| {
        let start = heap.alloc_zeroed(layout(MIB, 8)).expect("out of memory");
        // SAFETY: the memory is live, and is resized and freed with the layout that it has.
        unsafe {
            start.write_bytes(1, MIB);
            let moved = heap.realloc(start, layout(MIB, 8), layout(2 * MIB, 8));
            heap.dealloc(moved.expect("out of memory"), layout(2 * MIB, 8));
        }
    });
}

/// The memory in which AddressSanitizer stores that 20 MiB are inaccessible. It needs a byte for each
/// eight bytes.
const MARKS: usize = if cfg!(asan) { 20 * MIB / 8 } else { 0 };

/// Returns a heap that allocated 20 MiB of blocks, and in which only every thousandth block is in
/// use.
fn thinned(decay: Option<Duration>) -> LocalHeap {
    let mut heap = LocalHeap::new();
    heap.set_decay(decay);
    let blocks: Vec<_> = (0..20 * MIB / 64).map(|_| heap.alloc(layout(64, 8))).collect();
    for (nth, block) in blocks.into_iter().map(Option::unwrap).enumerate() {
        // SAFETY: the block has this many bytes.
        unsafe { block.write_bytes(1, 64) };
        if nth % 1000 != 0 {
            // SAFETY: the heap allocated the block with this layout, and it is not used again.
            unsafe { heap.dealloc(block, layout(64, 8)) };
        }
    }
    // This thread's heap of `GLOBAL` may retain the memory of the vector, so we flush that heap.
    GLOBAL.flush();
    heap
}

#[test]
fn a_local_heap_gives_back_by_itself_only_if_it_has_a_decay_time() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // The first heap leaves behind memory that all later heaps reuse. We therefore create and drop
    // the first heap before we measure.
    drop(thinned(None));
    let start = resident();
    let heap = thinned(None);
    assert!(resident() > start + 15 * MIB, "nothing has gone back");
    let trimmed = heap.trim();
    let left = resident().saturating_sub(start);
    assert!(trimmed > 15 * MIB && left < 5 * MIB + MARKS, "{trimmed} bytes, {left} stay");
    drop(heap);
    let start = resident();
    let _heap = thinned(Some(Duration::ZERO));
    assert!(resident() < start + 10 * MIB, "{start}, then {}", resident());
}
