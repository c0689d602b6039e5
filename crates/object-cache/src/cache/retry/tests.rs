use core::cell::Cell;

use raw_mem::Malloc;

use super::*;
use crate::{
    Cached, FreeList,
    cpython::TupleLists,
    list::{CacheStats, Cleared},
};

std::thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(0) };
    static FLOATS: FreeList<f64, Heap> = const { FreeList::new(10, HEAP) };
    static TUPLES: TupleLists<(), u64, Heap, 3> = TupleLists::new(10, HEAP);
}

struct Capped;

struct Caches;

type Heap = RetryAfterClear<Capped, Caches>;

const HEAP: Heap = RetryAfterClear::new(Capped, Caches);

impl Cache for Caches {
    fn clear(&self) -> Cleared {
        let mut cleared = FLOATS.with(FreeList::clear);
        cleared += TUPLES.with(TupleLists::clear);
        cleared
    }

    fn each_list(&self, _: &mut dyn FnMut(Option<usize>, CacheStats)) {}
}

fn count(block: Option<NonNull<u8>>) -> Option<NonNull<u8>> {
    LEFT.set(LEFT.get() - usize::from(block.is_some()));
    block
}

// SAFETY: all memory comes from malloc.
unsafe impl MemAlloc for Capped {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if LEFT.get() == 0 { None } else { count(Malloc.malloc(size)) }
    }

    fn calloc(&self, items: usize, size: usize) -> Option<NonNull<u8>> {
        if LEFT.get() == 0 { None } else { count(Malloc.calloc(items, size)) }
    }

    /// Fails even if the block could grow in place.
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the block is malloc's (contract of `realloc`).
        if LEFT.get() == 0 { None } else { unsafe { Malloc.realloc(ptr, size) } }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        LEFT.set(LEFT.get() + usize::from(ptr.is_some()));
        // SAFETY: the block is malloc's (contract of `free`).
        unsafe { Malloc.free(ptr) }
    }
}

/// Leaves two free floats in their cache, and no block in the heap.
fn retain_two_floats() {
    LEFT.set(2);
    FLOATS.with(|floats| {
        drop([0; 2].map(|_| Cached::new_in(1.0, floats).unwrap()));
        assert_eq!((LEFT.get(), floats.stats().free), (0, 2));
    });
}

#[test]
fn storage_retained_for_one_type_serves_another_when_memory_is_exhausted() {
    retain_two_floats();
    let lists = FreeList::new(10, HEAP);
    let list = Cached::new_in([1; 5], &lists).unwrap();
    assert_eq!((list[4], LEFT.get()), (1, 1));
}

#[test]
fn one_free_object_is_reason_enough_to_try_again() {
    LEFT.set(1);
    let lists = FreeList::new(10, HEAP);
    FLOATS.with(|floats| {
        let one = Cached::new_in(1.0, floats).unwrap();
        assert!(Cached::new_in([1; 5], &lists).is_none());
        drop(one);
        assert!(Cached::new_in([1; 5], &lists).is_some());
    });
}

#[test]
fn a_miss_may_clear_the_cache_that_missed() {
    LEFT.set(2);
    TUPLES.with(|tuples| {
        let pair = [1, 2].map(|len| tuples.take(len).unwrap());
        // SAFETY: the objects came from the cache with these lengths and hold no values.
        [1, 2].iter().zip(pair).for_each(|(&len, object)| unsafe { tuples.put(object, len) });
        let object = tuples.take(3).unwrap();
        // SAFETY: the object came from the cache with this length and holds no values.
        unsafe { tuples.put(object, 3) };
    });
}

#[test]
fn every_kind_of_request_is_tried_again() {
    retain_two_floats();
    let block = HEAP.calloc(1, 8);
    assert!(block.is_some());
    // SAFETY: the block is live, and its pointer is replaced by the new one.
    let block = unsafe { HEAP.realloc(block, 100) };
    assert!(block.is_some());
    // SAFETY: the block is live and not used again.
    unsafe { HEAP.free(block) };

    retain_two_floats();
    // SAFETY: `None` is allowed.
    let block = unsafe { HEAP.realloc(None, 8) };
    assert!(block.is_some());
    // SAFETY: the block is live and not used again.
    unsafe { HEAP.free(block) };
}

#[test]
fn a_request_fails_if_the_caches_are_empty() {
    assert_eq!(HEAP.malloc(8), None);
}

#[test]
fn a_request_that_no_memory_could_serve_clears_nothing() {
    retain_two_floats();
    assert_eq!((HEAP.malloc(usize::MAX), HEAP.calloc(usize::MAX, 2)), (None, None));
    assert_eq!(LEFT.get(), 0);
}
