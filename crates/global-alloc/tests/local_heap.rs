//! Collections in a `LocalHeap` or in `ObMalloc`, with both versions of allocator-api2.

use std::{
    alloc::Layout,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use allocator_api2_02 as v02;
use allocator_api2_04 as v04;
use global_alloc::{LocalHeap, ObMalloc};

fn in_use(heap: &LocalHeap) -> usize {
    heap.stats().bytes.in_use
}

/// Returns the number of blocks in use with the size class of `size` bytes.
fn blocks(heap: &LocalHeap, size: usize) -> usize {
    let stats = heap.stats();
    let class = stats.classes().iter().find(|class| class.block_size >= size);
    class.expect("a class").in_use
}

/// Uses a vector and a box of the crate `$api` in `$heap`.
macro_rules! collections_of {
    ($api:ident, $heap:expr) => {{
        let heap: &LocalHeap = $heap;
        let mut numbers = $api::vec::Vec::new_in(heap);
        // The vector grows from the smallest class to a large block, and then shrinks.
        numbers.extend(0..100_000_u64);
        numbers.truncate(20);
        numbers.shrink_to_fit();
        assert_eq!(numbers.iter().sum::<u64>(), 190);
        let boxed = $api::boxed::Box::new_in([7_u64; 4], heap);
        assert_eq!((*boxed, blocks(heap, 160), blocks(heap, 32)), ([7; 4], 1, 1));
    }};
}

#[test]
fn vectors_and_boxes_leave_nothing_in_a_local_heap() {
    let heap = LocalHeap::new();
    collections_of!(v02, &heap);
    assert_eq!(in_use(&heap), 0);
    collections_of!(v04, &heap);
    assert_eq!(in_use(&heap), 0);
}

#[test]
fn a_hash_map_can_live_in_a_local_heap() {
    let heap = LocalHeap::new();
    let mut squares = hashbrown::HashMap::new_in(&heap);
    for number in 0..10_000_u64 {
        squares.insert(number, v02::boxed::Box::new_in(number * number, &heap));
    }
    assert!((0..10_000).all(|number| *squares[&number] == number * number));
    squares.retain(|number, _| number % 100 == 0);
    assert_eq!((squares.len(), blocks(&heap, 8)), (100, 100));
}

#[test]
fn a_reset_frees_forgotten_collections_and_the_heap_can_be_used_again() {
    let mut heap = LocalHeap::new();
    for _ in 0..3 {
        let mut small = v04::vec::Vec::new_in(&heap);
        (0..10_000_u64).for_each(|number| small.push(v04::boxed::Box::new_in(number, &heap)));
        std::mem::forget(small);
        assert_eq!(blocks(&heap, 8), 10_000);
        heap.reset();
        assert_eq!((in_use(&heap), heap.stats().arenas.current), (0, 0));
    }
}

#[test]
fn a_heap_that_nobody_borrows_can_move_to_another_thread() {
    let heap = LocalHeap::new();
    collections_of!(v04, &heap);
    let large = heap.alloc(Layout::new::<[u8; 5000]>()).expect("out of memory");
    // SAFETY: the memory has that many bytes.
    unsafe { large.write_bytes(1, 5000) };
    let thread = std::thread::spawn(move || collections_of!(v04, &heap));
    thread.join().expect("the heap works on the other thread");
}

#[test]
fn large_memory_can_leave_the_list_at_any_place() {
    let heap = LocalHeap::new();
    let layouts = [(600_000, 8), (5000, 64), (1000, 1 << 20), (700_000, 16), (900_000, 4096)]
        .map(|(size, align)| Layout::from_size_align(size, align).expect("a valid layout"));
    for first in 0..layouts.len() {
        let all = layouts.map(|layout| {
            let start = heap.alloc_zeroed(layout).expect("out of memory");
            assert_eq!(start.addr().get() % layout.align(), 0);
            start
        });
        for place in (0..layouts.len()).map(|step| (first + 2 * step) % layouts.len()) {
            let (old, new) =
                (layouts[place], Layout::from_size_align(2000, layouts[place].align()));
            let new = new.expect("a valid layout");
            // SAFETY: the memory is live and zeroed, and is freed once with its layout.
            unsafe {
                let moved = heap.realloc(all[place], old, new).expect("out of memory");
                let kept = std::slice::from_raw_parts(moved.as_ptr(), old.size().min(2000));
                assert!(kept.iter().all(|byte| *byte == 0));
                heap.dealloc(moved, new);
            }
        }
    }
}

#[test]
fn an_empty_layout_gets_an_aligned_pointer_without_memory() {
    let heap = LocalHeap::new();
    let none = Layout::from_size_align(0, 64).expect("a valid layout");
    let some = Layout::from_size_align(100, 64).expect("a valid layout");
    let start = heap.alloc(none).expect("an empty layout needs no memory");
    assert_eq!((start.addr().get() % 64, in_use(&heap)), (0, 0));
    // SAFETY: each pointer is live memory of the heap for the layout beside it.
    let start: NonNull<u8> = unsafe {
        let grown = heap.realloc(start, none, some).expect("out of memory");
        assert_eq!(in_use(&heap), 128);
        heap.realloc(grown, some, none).expect("an empty layout needs no memory")
    };
    assert_eq!((start.addr().get() % 64, in_use(&heap)), (0, 0));
}

/// Regression test (mutant 4).
macro_rules! grows_zeroed {
    ($api:ident) => {{
        use $api::alloc::Allocator;
        let heap = LocalHeap::new();
        let [small, big] =
            [16, 256].map(|size| Layout::from_size_align(size, 8).expect("a valid layout"));
        let [kept, dirty] = [(); 2].map(|()| heap.alloc(big).expect("out of memory"));
        let start = heap.alloc(small).expect("out of memory");
        // SAFETY: the memory is live, and is resized and freed with the layout that it has.
        unsafe {
            dirty.write_bytes(0xff, 256);
            heap.dealloc(dirty, big);
            start.write_bytes(7, 16);
            let grown = (&heap).grow_zeroed(start, small, big).expect("out of memory");
            assert_eq!(grown.cast(), dirty, "the dirty memory was not reused");
            assert_eq!(grown.as_ref()[..16], [7; 16]);
            assert_eq!(grown.as_ref()[16..], [0; 240]);
            heap.dealloc(grown.cast(), big);
            heap.dealloc(kept, big);
        }
    }};
}

#[test]
fn memory_that_grows_zeroed_is_zero_after_its_old_contents() {
    grows_zeroed!(v02);
    grows_zeroed!(v04);
}

macro_rules! shrinks {
    ($api:ident) => {{
        use $api::alloc::Allocator;
        let heap = LocalHeap::new();
        let [small, big] =
            [16, 256].map(|size| Layout::from_size_align(size, 8).expect("a valid layout"));
        let start = heap.alloc_zeroed(big).expect("out of memory");
        // SAFETY: the memory is live, and is resized and freed with the layout that it has.
        unsafe {
            start.write_bytes(7, 16);
            let shrunk = (&heap).shrink(start, big, small).expect("out of memory");
            assert_eq!((shrunk.as_ref(), in_use(&heap)), (&[7; 16][..], 16));
            heap.dealloc(shrunk.cast(), small);
        }
        assert_eq!(in_use(&heap), 0);
    }};
}

#[test]
fn memory_that_shrinks_keeps_its_contents_and_uses_less_memory() {
    shrinks!(v02);
    shrinks!(v04);
}

/// Uses collections of the crate `$api` in the heaps of the process's threads.
macro_rules! obmalloc_serves {
    ($api:ident) => {{
        use $api::alloc::Allocator;
        let mut numbers = $api::vec::Vec::new_in(ObMalloc);
        numbers.extend(0..1000_u64);
        let boxes: Vec<_> = (0..100_u64).map(|n| $api::boxed::Box::new_in(n, ObMalloc)).collect();
        // SAFETY: the box has memory of `ObMalloc`.
        let usable = unsafe { ObMalloc.usable_size(std::ptr::from_ref(&*boxes[99]).cast()) };
        assert_eq!(usable, 16);
        // Another thread may free the memory.
        let sums = std::thread::spawn(move || {
            numbers.truncate(20);
            numbers.shrink_to_fit();
            (numbers.iter().sum::<u64>(), boxes.iter().map(|number| **number).sum::<u64>())
        });
        assert_eq!(sums.join().expect("the other thread frees the memory"), (190, 4950));
        let empty = Layout::from_size_align(0, 64).expect("a valid layout");
        let large = Layout::from_size_align(5000, 64).expect("a valid layout");
        let start = ObMalloc.allocate_zeroed(empty).expect("an empty layout needs no memory");
        // SAFETY: each pointer is live memory of `ObMalloc` for the layout beside it.
        unsafe {
            let grown = ObMalloc.grow_zeroed(start.cast(), empty, large).expect("out of memory");
            assert!(grown.cast::<u8>().addr().get().is_multiple_of(64));
            assert_eq!(grown.as_ref(), [0; 5000]);
            let start = ObMalloc.shrink(grown.cast(), large, empty).expect("no memory is needed");
            ObMalloc.deallocate(start.cast(), empty);
        }
    }};
}

#[test]
fn collections_can_use_obmalloc_without_a_global_allocator() {
    obmalloc_serves!(v02);
    obmalloc_serves!(v04);
}

#[test]
fn a_hash_map_can_use_obmalloc() {
    let mut squares = hashbrown::HashMap::new_in(ObMalloc);
    squares.extend((0..1000_u64).map(|number| (number, number * number)));
    assert_eq!(squares[&30], 900);
}

#[test]
fn large_memory_is_counted() {
    let heap = LocalHeap::new();
    let layout = Layout::array::<u8>(3 << 20).unwrap();
    let block = heap.alloc(layout).unwrap();
    let large = heap.stats().large;
    assert_eq!(large.blocks, 1);
    assert!((3 << 20..4 << 20).contains(&large.bytes), "{large:?}");
    assert!(!format!("{heap:?}").contains("bytes_in_use: 0"), "{heap:?}");
    // SAFETY: the memory came from this heap for this layout, and is not used again.
    unsafe { heap.dealloc(block, layout) };
    assert_eq!((heap.stats().large.blocks, heap.stats().large.bytes), (0, 0));
}

#[test]
fn every_block_in_use_is_visited() {
    let mut heap = LocalHeap::new();
    let sizes = [16, 500, 8000, 100_000, 1 << 20];
    for size in sizes {
        heap.alloc(Layout::array::<u8>(size).unwrap()).unwrap();
    }
    let mut visited = Vec::new();
    heap.for_each_block(|block| visited.push(block.size));
    visited.sort_unstable();
    assert_eq!(visited.len(), sizes.len());
    assert!(visited.iter().zip(sizes).all(|(usable, size)| *usable >= size), "{visited:?}");
}

#[test]
fn a_collection_gets_its_error_at_the_limit_and_the_callback_runs_before() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut heap = LocalHeap::with_limit(4 << 20);
    heap.before_refusal(move |reached| {
        assert_eq!(reached.limit, 4 << 20);
        assert!(reached.used + reached.requested > reached.limit, "{reached:?}");
        counted.fetch_add(1, Relaxed);
        false
    });
    let mut numbers = v04::vec::Vec::<u64, _>::new_in(&heap);
    let mut pushed = 0;
    while numbers.try_reserve(1).is_ok() {
        numbers.push(pushed);
        pushed += 1;
    }
    // A block that grows is first requested with extra room, so a push can cause several refusals.
    let before = calls.load(Relaxed);
    assert!((1..=3).contains(&before), "{before}");
    assert!(pushed > (1 << 20) / 8 && numbers.iter().copied().eq(0..pushed));
    // After a free, there is room again.
    drop(numbers);
    let mut numbers = v02::vec::Vec::<u64, _>::new_in(&heap);
    assert!(numbers.try_reserve(1000).is_ok() && numbers.try_reserve(10 << 20).is_err());
    assert!(calls.load(Relaxed) > before);
}

#[test]
fn a_local_heap_accepts_every_decay_time() {
    let layout = Layout::array::<u8>(20_000).unwrap();
    for decay in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::MAX / 10] {
        let mut heap = LocalHeap::new();
        heap.set_decay(Some(decay));
        // The heap looks at the clock in some of these requests, because a span takes a slow path.
        for _ in 0..100 {
            for block in [(); 2].map(|()| heap.alloc(layout).unwrap()) {
                // SAFETY: the heap allocated the block with this layout, and it is not used again.
                unsafe { heap.dealloc(block, layout) };
            }
        }
    }
}

#[test]
fn a_block_that_shrinks_stays_in_place_if_there_is_no_memory_for_a_smaller_one() {
    let heap = LocalHeap::with_limit(1 << 20);
    let mut vectors = [(); 2].map(|()| {
        let mut bytes = v04::vec::Vec::with_capacity_in(480 << 10, &heap);
        bytes.resize(100 << 10, 7_u8);
        bytes
    });
    // The limit allows only one arena. Three of its units are free, but a block of 100 KiB needs
    // seven.
    for bytes in &mut vectors {
        let start = bytes.as_ptr();
        bytes.shrink_to_fit();
        assert_eq!((bytes.as_ptr(), bytes.capacity()), (start, 100 << 10));
        assert!(bytes.iter().all(|byte| *byte == 7));
        bytes.push(8);
    }
    drop(vectors);
    assert_eq!(in_use(&heap), 0);
}
