//! A heap that belongs to a lock instead of a thread.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use obmalloc::{BlockPtr, Blocks, SizeClass};
use thread_heap::{OwnedHeap, PerThread, ThreadGeometry};

struct Sent(Vec<BlockPtr>);

// SAFETY: a block may be freed by any thread.
unsafe impl Send for Sent {}

/// Serialises the tests, because a test may adopt a heap that another test has dropped.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn class() -> SizeClass<ThreadGeometry> {
    SizeClass::of(200).unwrap()
}

fn in_use(heap: &mut OwnedHeap) -> usize {
    heap.stats().classes().iter().map(|class| class.in_use).sum()
}

#[test]
fn threads_that_hold_the_lock_free_each_others_blocks_at_once() {
    let _alone = alone();
    let heap = Mutex::new(OwnedHeap::open().unwrap());
    let blocks: Vec<BlockPtr> = thread::scope(|scope| {
        let maker = || {
            let mut heap = heap.lock().unwrap();
            Sent((0..1000).map(|_| heap.alloc(class()).unwrap()).collect())
        };
        let makers = [(); 3].map(|()| scope.spawn(maker));
        makers.into_iter().flat_map(|maker| maker.join().unwrap().0).collect()
    });
    let mut heap = heap.into_inner().unwrap();
    assert_eq!(in_use(&mut heap), 3000);
    for block in blocks {
        // SAFETY: the block came from this heap, and is not used again.
        unsafe { heap.free(block) };
    }
    assert_eq!(in_use(&mut heap), 0);
}

#[test]
fn blocks_of_threads_and_of_owned_heaps_are_freed_by_either() {
    let _alone = alone();
    let mut heap = OwnedHeap::open().unwrap();
    let of_heap = heap.alloc(class()).unwrap();
    let of_thread = PerThread.alloc(class()).unwrap();
    assert!(PerThread.holds(of_heap.start().addr().get()));
    // SAFETY: both blocks came from heaps of the process, and are not used again.
    unsafe {
        heap.free(of_thread);
        PerThread.free(of_heap);
    }
    PerThread.flush();
    heap.flush();
    assert_eq!(in_use(&mut heap), 0);
}

#[test]
fn a_thread_gives_up_its_heap_with_every_block_in_it() {
    let _alone = alone();
    thread::spawn(|| {
        let block = PerThread.alloc(class()).unwrap();
        let mut heap = OwnedHeap::of_this_thread().unwrap();
        assert_eq!(in_use(&mut heap), 1);
        // The thread opens another heap.
        let other = PerThread.alloc(class()).unwrap();
        assert_eq!(in_use(&mut heap), 1);
        // SAFETY: the blocks came from heaps of the process, and are not used again.
        unsafe {
            heap.free(block);
            PerThread.free(other);
        }
        assert_eq!(in_use(&mut heap), 0);
        heap
    })
    .join()
    .map(|mut heap| {
        let block = heap.alloc(class()).unwrap();
        // SAFETY: the block came from this heap, and is not used again.
        unsafe { heap.free(block) };
    })
    .unwrap();
}

#[test]
fn a_dropped_heap_is_adopted_with_its_blocks() {
    let _alone = alone();
    let mut heap = OwnedHeap::open().unwrap();
    let block = heap.alloc(class()).unwrap();
    // SAFETY: the block is in use and has 200 bytes.
    unsafe { block.start().write_bytes(7, 200) };
    drop(heap);
    let mut heap = OwnedHeap::open().unwrap();
    // SAFETY: the block is still in use.
    assert_eq!(unsafe { block.start().cast::<[u8; 200]>().read() }, [7; 200]);
    // SAFETY: the block came from a heap of the process, and is not used again.
    unsafe { heap.free(block) };
}

#[test]
fn a_heap_that_is_lost_is_never_adopted() {
    let _alone = alone();
    let mut heap = OwnedHeap::open().unwrap();
    let block = heap.alloc(class()).unwrap();
    let lost = format!("{heap:?}");
    heap.lose();
    for heap in (0..4).map(|_| OwnedHeap::open().unwrap()).collect::<Vec<_>>() {
        assert_ne!(format!("{heap:?}"), lost);
    }
    // SAFETY: the block came from a heap of the process, and is not used again.
    unsafe { PerThread.free(block) };
}

/// Regression test: spans that began after the start of their pool did not fit, or were packed into
/// batches with other blocks.
#[test]
fn blocks_of_every_class_are_served_and_freed_elsewhere() {
    let _alone = alone();
    let mut heap = OwnedHeap::open().unwrap();
    for round in 0..3 {
        let blocks: Vec<_> = SizeClass::<ThreadGeometry>::all()
            .flat_map(|class| [class; 3])
            .map(|class| {
                let block = heap.alloc(class).unwrap_or_else(|| panic!("no block of {class:?}"));
                // SAFETY: the block is in use, and has this many bytes.
                unsafe { block.start().write_bytes(7, class.block_size()) };
                block
            })
            .collect();
        let freed_here = round == 1;
        if freed_here {
            // SAFETY: the blocks came from this heap, and are not used again.
            blocks.into_iter().for_each(|block| unsafe { heap.free(block) });
        } else {
            let sent = Sent(blocks);
            let free = move || {
                let Sent(blocks) = { sent };
                // SAFETY: the blocks came from a heap of the process, and are not used again.
                blocks.into_iter().for_each(|block| unsafe { PerThread.free(block) });
                PerThread.flush();
            };
            thread::spawn(free).join().unwrap();
        }
        heap.flush();
        assert_eq!(in_use(&mut heap), 0, "round {round}");
        assert_eq!(heap.stats().arenas.current, 0, "round {round}");
    }
}
