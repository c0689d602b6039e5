//! Operations on the heap of the calling thread and on all heaps of the process.

#![cfg(not(loom))]

use std::{
    ptr::NonNull,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use obmalloc::{Blocks, SizeClass, Stats};
use thread_heap::{OwnedHeap, PerThread, ThreadGeometry};

/// Serialises the tests, because a thread may adopt the heap of another thread.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_a_thread(body: fn()) {
    let _alone = alone();
    thread::spawn(body).join().unwrap();
}

fn class() -> SizeClass<ThreadGeometry> {
    SizeClass::of(200).unwrap()
}

fn in_use(stats: &Stats) -> usize {
    stats.classes().iter().map(|class| class.in_use).sum()
}

#[test]
fn a_thread_has_figures_once_it_has_made_a_request() {
    in_a_thread(|| {
        let block = PerThread.alloc(class()).unwrap();
        assert_eq!(in_use(&PerThread.stats().unwrap()), 1);
        // SAFETY: the block came from these heaps, and is not used again.
        unsafe { PerThread.free(block) };
        assert_eq!(in_use(&PerThread.stats().unwrap()), 0);
    });
}

#[test]
fn a_pointer_is_ours_if_it_lies_in_an_arena() {
    in_a_thread(|| {
        let ours = PerThread.alloc(class()).unwrap().into_start();
        let foreign = NonNull::from(&mut 0_u64).cast();
        // SAFETY: one pointer is a block in use, and the other lies in no arena.
        unsafe {
            assert_eq!(PerThread.size_if_ours(ours), Some(208));
            assert_eq!(PerThread.size_if_ours(foreign), None);
            assert_eq!(PerThread.free_if_ours(foreign), Some(foreign));
            assert_eq!(PerThread.free_if_ours(ours), None);
        }
        assert_eq!(in_use(&PerThread.stats().unwrap()), 0);
    });
}

#[test]
fn a_trim_unmaps_the_empty_arena() {
    in_a_thread(|| {
        let block = PerThread.alloc(class()).unwrap();
        // SAFETY: the block came from these heaps, and is not used again.
        unsafe { PerThread.free(block) };
        assert_eq!(PerThread.stats().unwrap().arenas.current, 1);
        PerThread.trim();
        assert_eq!(PerThread.stats().unwrap().arenas.current, 0);
    });
}

#[test]
fn the_figures_of_all_heaps_include_an_owned_heap_and_that_of_the_thread() {
    in_a_thread(|| {
        let mut heap = OwnedHeap::open().unwrap();
        let owned = [(); 3].map(|()| heap.alloc(class()).unwrap());
        let others = [(); 2].map(|()| PerThread.alloc(class()).unwrap());
        let all = heap.stats_of_all();
        assert_eq!(in_use(&all.total), 5);
        assert!(all.walked >= 2);
        // SAFETY: the blocks came from these heaps, and are not used again.
        unsafe {
            owned.into_iter().for_each(|block| heap.free(block));
            others.into_iter().for_each(|block| PerThread.free(block));
        }
    });
}

#[test]
fn a_block_that_an_owned_heap_freed_is_on_its_free_list() {
    in_a_thread(|| {
        let mut heap = OwnedHeap::open().unwrap();
        let [first, second] = [(); 2].map(|()| heap.alloc(class()).unwrap());
        let start = first.start();
        // SAFETY: the block came from these heaps, and is not used again.
        unsafe { heap.free(first) };
        let again = heap.alloc_listed(class()).unwrap();
        assert_eq!(again.start(), start);
        // SAFETY: as above.
        unsafe { [again, second].into_iter().for_each(|block| heap.free(block)) };
    });
}

#[test]
fn a_thread_without_a_heap_gives_up_a_new_one() {
    in_a_thread(|| {
        let mut heap = OwnedHeap::of_this_thread().unwrap();
        let block = heap.alloc(class()).unwrap();
        // The thread opens another heap.
        assert_eq!(in_use(&PerThread.stats().unwrap()), 0);
        // SAFETY: the block came from these heaps, and is not used again.
        unsafe { heap.free(block) };
    });
}
