//! Counts the allocations of tests that run in parallel.

use std::{alloc::System, hint::black_box, thread};

use allocator_api::counted::{Allocations, Counted, count, count_with};

#[global_allocator]
static GLOBAL: Counted<System> = Counted::new(System);

#[test]
fn allocations_and_what_is_left_are_counted_exactly() {
    let (boxes, counts) = count_with(|| (0..96).map(Box::new).collect::<Vec<Box<u64>>>());
    assert_eq!((counts.blocks_left(), counts.bytes_left()), (97, 96 * 16));
    let counts = counts.assert_made(97);
    assert_eq!(counts, Allocations { made: 97, bytes_made: 96 * 16, ..Allocations::default() });
    let counts = count(|| drop(boxes));
    assert_eq!((counts.made, counts.freed, counts.bytes_freed), (0, 97, 96 * 16));
}

#[test]
fn a_resized_block_is_neither_made_nor_left() {
    let work = || {
        let mut bytes: Vec<u8> = Vec::with_capacity(10);
        bytes.reserve_exact(100);
        drop(black_box(bytes));
    };
    let counts = count(work).assert_made(1).assert_leaves_none();
    assert_eq!((counts.resized, counts.bytes_made), (1, 110));
}

#[test]
fn other_threads_are_not_counted() {
    let other = thread::spawn(|| (0..10_000).map(|i| vec![i; 3]).collect::<Vec<_>>().len());
    count(|| (0..1000_u64).map(black_box).sum::<u64>()).assert_made(0).assert_leaves_none();
    assert_eq!(other.join().unwrap(), 10_000);
}

#[test]
#[should_panic(expected = "1 blocks and 16 bytes are left")]
fn a_leak_is_found() {
    count(|| std::mem::forget(black_box(Box::new(0_u128)))).assert_leaves_none();
}

#[test]
#[should_panic(expected = "2 allocations instead of 1")]
fn an_additional_allocation_is_found() {
    count(|| (black_box(Box::new(1)), black_box(Box::new(2)))).assert_made(1);
}
