//! Memory that is freed, resized or reset goes back (mutants 1, 2 and 3).
//!
//! Each test allocates many times what a process may grow by, and frees it all.

#![cfg(all(target_os = "linux", not(miri)))]

use std::{
    alloc::{Layout, alloc, dealloc, realloc},
    hint::black_box,
    sync::Mutex,
};

use global_alloc::LocalHeap;

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

const TIMES: usize = 300;
const MIB: usize = 1 << 20;

/// The most that a process may grow by.
const GROWTH: usize = 50 * MIB;

/// One test at a time measures the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes of memory that the process has. Only what was written counts, so all tests write.
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
    Layout::from_size_align(size, align).expect("it is a layout")
}

fn allocate_and_free(layout: Layout) {
    // SAFETY: the size is not 0. The memory is freed once, with the layout it was allocated with.
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
    // SAFETY: the layout has a size. The memory is resized and freed with the layout that it has.
    unsafe {
        let start = alloc(layout);
        assert!(!start.is_null());
        start.write_bytes(1, layout.size());
        let resized = black_box(realloc(start, layout, new_size));
        assert!(!resized.is_null());
        let new = Layout::from_size_align(new_size, layout.align()).expect("it is a layout");
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

/// Allocates and writes memory of `heap`, and leaves it in use.
fn fill(heap: &LocalHeap, layout: Layout) {
    let start = heap.allocate(layout).expect("there is memory");
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
        let start = heap.allocate_zeroed(layout(MIB, 8)).expect("there is memory");
        // SAFETY: the memory is the heap's. It is written, resized and freed with the layout that
        // it has.
        unsafe {
            start.write_bytes(1, MIB);
            let moved = heap.reallocate(start, layout(MIB, 8), layout(2 * MIB, 8));
            heap.deallocate(moved.expect("there is memory"), layout(2 * MIB, 8));
        }
    });
}
