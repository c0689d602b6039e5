//! All kinds of layouts, through the functions of the global allocator.

use std::{
    alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc},
    hint::black_box,
};

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

fn alignments() -> impl Iterator<Item = usize> {
    (0..=12).map(|shift| 1 << shift)
}

/// Sizes around every limit of the classes and the pools.
const SIZES: &[usize] = &[
    1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128, 129, 255, 256, 257, 304,
    432, 433, 480, 496, 497, 511, 512, 513, 600, 1000, 4095, 4096, 4097, 20_000, 200_000,
];

/// Memory in use whose bytes all have the same value.
struct Filled {
    start: *mut u8,
    layout: Layout,
    byte: u8,
}

impl Filled {
    fn new(layout: Layout, byte: u8) -> Self {
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        let filled = Self { start, layout, byte };
        filled.is_aligned();
        // SAFETY: the memory is new and has that many bytes.
        unsafe { start.write_bytes(byte, layout.size()) };
        filled
    }

    fn is_aligned(&self) {
        assert!(!self.start.is_null(), "{:?}", self.layout);
        assert_eq!(self.start.addr() % self.layout.align(), 0, "{:?}", self.layout);
    }

    fn has_contents(&self, bytes: usize) {
        // SAFETY: the memory is in use, and its bytes are initialised.
        let contents = unsafe { std::slice::from_raw_parts(self.start, bytes) };
        assert!(contents.iter().all(|byte| *byte == self.byte), "{:?}", self.layout);
    }

    fn resize(&mut self, size: usize) {
        let old = self.layout;
        // SAFETY: the memory is live for the layout and is not used again.
        self.start = unsafe { realloc(self.start, old, size) };
        self.layout = Layout::from_size_align(size, old.align()).expect("a valid layout");
        self.is_aligned();
        self.has_contents(old.size().min(size));
        // SAFETY: the memory has that many bytes.
        unsafe { self.start.write_bytes(self.byte, size) };
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.has_contents(self.layout.size());
        // SAFETY: the memory is live for the layout and is not used again.
        unsafe { dealloc(self.start, self.layout) };
    }
}

fn layouts() -> impl Iterator<Item = Layout> {
    let all = alignments().flat_map(|align| SIZES.iter().map(move |size| (*size, align)));
    all.map(|(size, align)| Layout::from_size_align(size, align).expect("a valid layout"))
}

#[test]
fn memory_has_its_alignment_up_to_4096_and_overlaps_no_other() {
    for _ in 0..3 {
        let all: Vec<_> = layouts()
            .flat_map(|layout| [layout; 3])
            .enumerate()
            .map(|(nth, layout)| Filled::new(layout, nth as u8))
            .collect();
        // Every other block is freed first, so that the remaining blocks have free neighbours.
        let (even, odd): (Vec<_>, Vec<_>) =
            all.into_iter().enumerate().partition(|(nth, _)| nth % 2 == 0);
        drop(even);
        drop(odd);
    }
}

#[test]
fn zeroed_memory_is_zero_even_if_it_was_used_before() {
    for layout in layouts() {
        drop(Filled::new(layout, 0xff));
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        let zeroed = Filled { start, layout, byte: 0 };
        zeroed.is_aligned();
    }
}

#[test]
fn a_resize_from_any_size_to_any_other_keeps_the_contents() {
    for align in alignments() {
        for old in SIZES {
            let layout = Layout::from_size_align(*old, align).expect("a valid layout");
            for new in SIZES {
                Filled::new(layout, *new as u8).resize(*new);
            }
        }
    }
}

#[test]
fn a_resize_within_a_class_does_not_move_memory() {
    for (old, new, align) in [(33, 48, 8), (48, 33, 16), (1, 48, 64), (48, 2, 64)] {
        let mut filled = Filled::new(Layout::from_size_align(old, align).unwrap(), 1);
        let before = filled.start;
        filled.resize(new);
        assert_eq!(filled.start, before, "{old} to {new}");
    }
}

#[test]
fn a_request_for_too_much_returns_null_and_changes_nothing() {
    let most = isize::MAX as usize;
    let all = Layout::from_size_align(most, 1).expect("a valid layout");
    for request in [alloc, alloc_zeroed] {
        // The black box keeps the compiler from removing the request.
        // SAFETY: the layout is not empty.
        assert!(black_box(unsafe { request(all) }).is_null());
    }
    for size in [100, 1000] {
        let filled = Filled::new(Layout::from_size_align(size, 8).unwrap(), 7);
        // SAFETY: the memory is live for the layout. It stays live because the request fails.
        assert!(black_box(unsafe { realloc(filled.start, filled.layout, most - 7) }).is_null());
    }
}

/// Regression test: a block that shrank to a small size stayed in a pool of several units. It was
/// then freed like a small block, but a small block always begins in the first unit of its pool.
#[test]
fn blocks_that_shrink_below_the_smallest_medium_class_are_freed_to_their_own_pools() {
    for (from, to) in [(576, 500), (640, 512), (576, 433)] {
        let mut blocks: Vec<_> = (0..300).map(|nth| Filled::new(plain(from), nth as u8)).collect();
        blocks.iter_mut().for_each(|block| block.resize(to));
        blocks.iter().for_each(|block| block.has_contents(to));
        blocks.clear();
        // All of the memory can be used again.
        (0..300).for_each(|nth| Filled::new(plain(from), nth as u8).has_contents(from));
    }
}

fn plain(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a valid layout")
}
