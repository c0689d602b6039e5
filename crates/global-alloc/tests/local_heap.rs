//! Collections that live in a heap of their own, by either version of allocator-api2.

use std::{alloc::Layout, ptr::NonNull};

use allocator_api2_02 as v02;
use allocator_api2_04 as v04;
use global_alloc::LocalHeap;

fn in_use(heap: &LocalHeap) -> usize {
    heap.stats().bytes.in_use
}

/// Uses a vector and a box of the crate `$api` in a heap.
macro_rules! collections_of {
    ($api:ident, $heap:expr) => {{
        let heap: &LocalHeap = $heap;
        let mut numbers = $api::vec::Vec::new_in(heap);
        // Over the border between pools and what is large, and back.
        numbers.extend(0..1000_u64);
        numbers.truncate(20);
        numbers.shrink_to_fit();
        assert_eq!(numbers.iter().sum::<u64>(), 190);
        let boxed = $api::boxed::Box::new_in([7_u64; 4], heap);
        assert_eq!((*boxed, in_use(heap)), ([7; 4], 160 + 32));
    }};
}

#[test]
fn vectors_and_boxes_live_in_a_heap_of_their_own_and_leave_nothing() {
    let heap = LocalHeap::new();
    collections_of!(v02, &heap);
    assert_eq!(in_use(&heap), 0);
    collections_of!(v04, &heap);
    assert_eq!(in_use(&heap), 0);
}

#[test]
fn a_hash_map_lives_in_a_heap_of_its_own() {
    let heap = LocalHeap::new();
    let mut squares = hashbrown::HashMap::new_in(&heap);
    for number in 0..10_000_u64 {
        squares.insert(number, v02::boxed::Box::new_in(number * number, &heap));
    }
    assert!((0..10_000).all(|number| *squares[&number] == number * number));
    squares.retain(|number, _| number % 100 == 0);
    assert_eq!((squares.len(), in_use(&heap)), (100, 1600));
}

#[test]
fn what_was_forgotten_goes_with_the_heap_and_the_heap_serves_again() {
    let mut heap = LocalHeap::new();
    for _ in 0..3 {
        let mut small = v04::vec::Vec::new_in(&heap);
        (0..10_000_u64).for_each(|number| small.push(v04::boxed::Box::new_in(number, &heap)));
        std::mem::forget(small);
        assert_eq!(in_use(&heap), 160_000);
        heap.reset();
        assert_eq!((in_use(&heap), heap.stats().arenas.current), (0, 0));
    }
}

#[test]
fn a_heap_moves_to_another_thread_when_nobody_borrows_it() {
    let heap = LocalHeap::new();
    collections_of!(v04, &heap);
    let large = heap.allocate(Layout::new::<[u8; 5000]>()).expect("there is memory");
    // SAFETY: the memory has that many bytes.
    unsafe { large.write_bytes(1, 5000) };
    let thread = std::thread::spawn(move || collections_of!(v04, &heap));
    thread.join().expect("it works there as well");
}

#[test]
fn large_memory_leaves_the_list_from_any_place() {
    let heap = LocalHeap::new();
    let layouts = [(600, 8), (5000, 64), (1000, 4096), (70_000, 16), (900, 128)]
        .map(|(size, align)| Layout::from_size_align(size, align).expect("it is small"));
    for first in 0..layouts.len() {
        let all = layouts.map(|layout| {
            let start = heap.allocate_zeroed(layout).expect("there is memory");
            assert_eq!(start.addr().get() % layout.align(), 0);
            start
        });
        for place in (0..layouts.len()).map(|step| (first + 2 * step) % layouts.len()) {
            let (old, new) =
                (layouts[place], Layout::from_size_align(2000, layouts[place].align()));
            let new = new.expect("it is small");
            // SAFETY: the memory is in use for the layout, all zero, and is replaced; the new
            // memory is freed once.
            unsafe {
                let moved = heap.reallocate(all[place], old, new).expect("there is memory");
                let kept = std::slice::from_raw_parts(moved.as_ptr(), old.size().min(2000));
                assert!(kept.iter().all(|byte| *byte == 0));
                heap.deallocate(moved, new);
            }
        }
    }
}

#[test]
fn no_bytes_are_an_aligned_pointer_and_cost_nothing() {
    let heap = LocalHeap::new();
    let none = Layout::from_size_align(0, 64).expect("it is a layout");
    let some = Layout::from_size_align(100, 64).expect("it is a layout");
    let start = heap.allocate(none).expect("it needs no memory");
    assert_eq!((start.addr().get() % 64, in_use(&heap)), (0, 0));
    // SAFETY: each pointer is the heap's for the layout that is given with it.
    let start: NonNull<u8> = unsafe {
        let grown = heap.reallocate(start, none, some).expect("there is memory");
        assert_eq!(in_use(&heap), 128);
        heap.reallocate(grown, some, none).expect("it needs no memory")
    };
    assert_eq!((start.addr().get() % 64, in_use(&heap)), (0, 0));
}

/// mutants 4: the bytes that memory grew by were not zeroed.
macro_rules! grows_zeroed {
    ($api:ident) => {{
        use $api::alloc::Allocator;
        let heap = LocalHeap::new();
        let [small, big] = [16, 256].map(|size| Layout::from_size_align(size, 8).expect("small"));
        let [kept, dirty] = [(); 2].map(|()| heap.allocate(big).expect("there is memory"));
        let start = heap.allocate(small).expect("there is memory");
        // SAFETY: the memory is the heap's, has the sizes of the layouts, and is freed once, with
        // the layout that it has then.
        unsafe {
            dirty.write_bytes(0xff, 256);
            heap.deallocate(dirty, big);
            start.write_bytes(7, 16);
            let grown = (&heap).grow_zeroed(start, small, big).expect("there is memory");
            assert_eq!(grown.cast(), dirty, "the dirty memory was not used again");
            assert_eq!(grown.as_ref()[..16], [7; 16]);
            assert_eq!(grown.as_ref()[16..], [0; 240]);
            heap.deallocate(grown.cast(), big);
            heap.deallocate(kept, big);
        }
    }};
}

#[test]
fn memory_that_grows_zeroed_is_zero_beyond_its_old_size() {
    grows_zeroed!(v02);
    grows_zeroed!(v04);
}

macro_rules! shrinks {
    ($api:ident) => {{
        use $api::alloc::Allocator;
        let heap = LocalHeap::new();
        let [small, big] = [16, 256].map(|size| Layout::from_size_align(size, 8).expect("small"));
        let start = heap.allocate_zeroed(big).expect("there is memory");
        // SAFETY: the memory is the heap's, has the sizes of the layouts, and is freed once, with
        // the layout that it has then.
        unsafe {
            start.write_bytes(7, 16);
            let shrunk = (&heap).shrink(start, big, small).expect("there is memory");
            assert_eq!((shrunk.as_ref(), in_use(&heap)), (&[7; 16][..], 16));
            heap.deallocate(shrunk.cast(), small);
        }
        assert_eq!(in_use(&heap), 0);
    }};
}

#[test]
fn memory_that_shrinks_keeps_its_contents_and_takes_less() {
    shrinks!(v02);
    shrinks!(v04);
}
