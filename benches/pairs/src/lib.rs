//! Allocations and frees through the global allocator, for callgrind to count.
//!
//! ```sh
//! cargo build --release -p pairs
//! valgrind --tool=callgrind target/release/pairs-obmalloc turn 100000
//! valgrind --tool=callgrind target/release/pairs-obmalloc turn 200000
//! ```
//!
//! The difference between the two counts, over 100,000, is what one pair costs, with the loop
//! around it; the loop without the pair is the pattern `nothing`.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    hint::black_box,
    process::exit,
};

/// Blocks that are live at once in the patterns that have many.
const MANY: usize = 1000;

/// Runs the pattern that the command line names, as many pairs as it says.
pub fn main() {
    let mut arguments = std::env::args().skip(1);
    let (pattern, pairs) = (arguments.next(), arguments.next());
    let (Some(pattern), Some(Ok(pairs))) = (pattern, pairs.map(|pairs| pairs.parse())) else {
        eprintln!("usage: pairs (nothing | turn | first | last) PAIRS");
        exit(2)
    };
    let layout = black_box(Layout::new::<[u64; 8]>());
    match pattern.as_str() {
        "nothing" => nothing(layout, pairs),
        "turn" => in_turn(layout, pairs),
        "first" => many(layout, pairs, |blocks| free(blocks.iter().copied(), layout)),
        "last" => many(layout, pairs, |blocks| free(blocks.iter().rev().copied(), layout)),
        _ => exit(2),
    }
}

/// The loop alone.
#[inline(never)]
fn nothing(layout: Layout, pairs: usize) {
    for _ in 0..pairs {
        black_box(layout);
    }
}

/// One block is freed before the next is allocated.
#[inline(never)]
fn in_turn(layout: Layout, pairs: usize) {
    for _ in 0..pairs {
        let block = new(layout);
        // SAFETY: it was allocated just now, for this layout.
        unsafe { dealloc(block, layout) };
    }
}

/// Many blocks are allocated, and then all of them freed by `free_all`.
#[inline(never)]
fn many(layout: Layout, pairs: usize, free_all: impl Fn(&[*mut u8])) {
    let mut blocks = vec![std::ptr::null_mut(); MANY];
    for _ in 0..pairs / MANY {
        blocks.fill_with(|| new(layout));
        free_all(&blocks);
    }
}

/// Frees the blocks in the order in which they come.
fn free(blocks: impl Iterator<Item = *mut u8>, layout: Layout) {
    for block in blocks {
        // SAFETY: `many` allocated it in this round, for this layout.
        unsafe { dealloc(block, layout) };
    }
}

#[inline(always)]
fn new(layout: Layout) -> *mut u8 {
    // SAFETY: the layout is not of no bytes.
    let block = unsafe { alloc(black_box(layout)) };
    if block.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: the block has at least a byte. A program writes to what it allocates.
    unsafe { block.write(1) };
    // A pair that nobody looks at would not be there at all.
    black_box(block)
}
