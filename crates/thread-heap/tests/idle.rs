//! Owners that do not run while other threads free their blocks: what these blocks hold goes.
//!
//! Issue 14 and the report "defects" (Doubtful: "`flush` gives all of it back") describe the case.

#![cfg(not(any(loom, miri)))]

#[path = "common/block.rs"]
mod block;

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use obmalloc::{BlockPtr, SizeClass};
use raw_mem::{ArenaSize, ArenaSource, Malloc, MapError, MmapArenas, PurgeError};
use testkit::failing::{FailingAlloc, Faults, Plan};
use thread_heap::{Heaps, ThreadGeometry, ThreadHeap};

use crate::block::Block;

/// A source that counts the bytes that it is told to give back while they are mapped.
struct Watched {
    source: MmapArenas,
    purged: Arc<AtomicUsize>,
    refuses: bool,
}

// SAFETY: the arenas are those of the source below.
unsafe impl ArenaSource for Watched {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        self.source.map(size)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        // SAFETY: the caller's promise.
        unsafe { self.source.unmap(arena, size) }
    }

    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        self.purged.fetch_add(len, Relaxed);
        if self.refuses {
            return Err(PurgeError::Unsupported);
        }
        // SAFETY: the arena came from the source below (contract of `purge`).
        unsafe { self.source.purge(start, len) }
    }
}

type Parts = (Watched, FailingAlloc<Malloc>, ThreadGeometry);
type TestHeap = &'static ThreadHeap<Parts>;

/// Heaps, and what is known about them.
struct Stage {
    heaps: &'static Heaps<Parts>,
    purged: Arc<AtomicUsize>,
    lower_faults: Faults,
}

impl Stage {
    fn new(refuses: bool) -> Self {
        let (purged, lower_faults) = (Arc::<AtomicUsize>::default(), Faults::default());
        let source = Watched { source: MmapArenas::new(), purged: Arc::clone(&purged), refuses };
        let lower = FailingAlloc::new(Malloc, lower_faults.clone());
        Self { heaps: Box::leak(Box::new(Heaps::new(source, lower))), purged, lower_faults }
    }

    fn open(&self) -> TestHeap {
        self.heaps.open().expect("there is memory")
    }

    fn purged(&self) -> usize {
        self.purged.load(Relaxed)
    }
}

fn class(size: usize) -> SizeClass<ThreadGeometry> {
    SizeClass::of(size).expect("it is small")
}

/// Blocks of the heap that the calling thread has opened.
fn fill(heap: TestHeap, sizes: impl Iterator<Item = usize>) -> Vec<Block> {
    let block = |(nth, size)| {
        // SAFETY: this thread opened the heap.
        let block = unsafe { heap.alloc(class(size)) }.expect("there is memory");
        Block::fill(block, class(size), nth as u64)
    };
    sizes.enumerate().map(block).collect()
}

/// Frees blocks through `heap`, which the calling thread has opened.
fn free(heap: TestHeap, blocks: impl IntoIterator<Item = Block>) {
    for block in blocks {
        // SAFETY: all blocks of a test are of one stage; this thread opened the heap.
        unsafe { heap.free_any(block.check()) };
    }
}

fn flush(heap: TestHeap) {
    // SAFETY: this thread opened the heap.
    unsafe { heap.flush() };
}

fn in_use(heap: TestHeap) -> usize {
    // SAFETY: this thread opened the heap.
    unsafe { heap.check_invariants() };
    // SAFETY: as above.
    unsafe { heap.stats() }.bytes.in_use
}

/// Sizes of many classes, each for as many blocks as some pages hold.
fn mixed_sizes(blocks: usize) -> impl Iterator<Item = usize> {
    (0..blocks).map(|nth| 16 + nth / 300 * 48 % 496)
}

#[test]
fn a_flush_by_another_thread_purges_what_waits_for_an_idle_owner() {
    let stage = Stage::new(false);
    let (idle, mine) = (stage.open(), stage.open());
    free(mine, fill(idle, (0..100_000).map(|_| 64)));
    assert_eq!(stage.purged(), 0);
    flush(mine);
    let bytes = 100_000 * 64;
    // A page of headers for each arena stays.
    assert!(stage.purged() > bytes - bytes / 128 && stage.purged() <= bytes);
    flush(mine);
    assert!(stage.purged() <= bytes, "a page was purged twice");
    assert_eq!(in_use(idle), bytes);
    flush(idle);
    assert_eq!(in_use(idle), 0);
}

#[test]
fn a_block_in_use_between_waiting_blocks_keeps_its_contents() {
    for kept_of in [2, 7, 100, 5000] {
        let stage = Stage::new(false);
        let (idle, mine) = (stage.open(), stage.open());
        let mut kept = Vec::new();
        for (nth, block) in fill(idle, mixed_sizes(60_000)).into_iter().enumerate() {
            if nth % kept_of == 0 {
                kept.push(block);
            } else {
                free(mine, [block]);
            }
            if nth % 9000 == 0 {
                flush(mine);
            }
        }
        flush(mine);
        assert!(stage.purged() > 0 || kept_of < 100);
        // The owner takes everything home, and uses it again beside the blocks that were kept.
        let again = fill(idle, mixed_sizes(60_000));
        free(idle, kept);
        free(mine, again);
        flush(mine);
        flush(idle);
        assert_eq!(in_use(idle), 0);
    }
}

#[test]
fn an_idle_owner_that_ends_frees_what_was_purged() {
    let stage = Stage::new(false);
    let (idle, mine) = (stage.open(), stage.open());
    let mut blocks = fill(idle, mixed_sizes(20_000));
    let last = blocks.pop();
    free(mine, blocks);
    flush(mine);
    let purged = stage.purged();
    assert!(purged > 1 << 20);
    // SAFETY: this thread opened the heap.
    unsafe { stage.heaps.close(idle) };
    // Nobody owns the heap, so this frees the block at once.
    free(mine, last);
    flush(mine);
    let adopted = stage.open();
    assert!(std::ptr::eq(adopted, idle));
    assert_eq!(in_use(adopted), 0);
    assert_eq!(stage.purged(), purged);
}

#[test]
fn no_more_than_a_limit_waits_for_idle_owners_although_nobody_trims() {
    const OWNERS: usize = 40;
    const EACH: usize = 1 << 20;
    let stage = Stage::new(false);
    let mine = stage.open();
    let idle: Vec<_> = (0..OWNERS).map(|_| stage.open()).collect();
    let blocks: Vec<_> = idle.iter().map(|heap| fill(heap, (0..EACH / 128).map(|_| 128))).collect();
    blocks.into_iter().for_each(|blocks| free(mine, blocks));
    // 16 MiB in all, 256 KiB for each owner, and a page of headers for each arena.
    let bound = (16 << 20) + OWNERS * ((256 << 10) + 2 * 4096);
    let waiting = OWNERS * EACH - stage.purged();
    assert!(waiting <= bound, "{waiting} bytes are more than {bound}");
    assert!(stage.purged() <= OWNERS * EACH);
}

#[test]
fn owners_that_run_are_left_alone() {
    let stage = Stage::new(false);
    let (busy, mine) = (stage.open(), stage.open());
    for _ in 0..200 {
        // The owner takes its inbox home each time.
        let blocks = fill(busy, (0..4000).map(|_| 128));
        free(mine, blocks);
    }
    assert_eq!(stage.purged(), 0);
}

#[test]
fn without_memory_for_a_table_every_block_stays_where_it_is() {
    let stage = Stage::new(false);
    let (idle, mine) = (stage.open(), stage.open());
    let blocks = fill(idle, mixed_sizes(30_000));
    free(mine, blocks);
    stage.lower_faults.restart(Plan::From(1));
    flush(mine);
    assert_eq!(stage.purged(), 0);
    // There is memory for the first table, and none for a larger one.
    stage.lower_faults.restart(Plan::From(2));
    flush(mine);
    let partly = stage.purged();
    assert!(partly > 0);
    stage.lower_faults.restart(Plan::Never);
    flush(mine);
    assert!(stage.purged() > 2 * partly);
    flush(idle);
    assert_eq!(in_use(idle), 0);
}

#[test]
fn a_system_that_takes_no_advice_leaves_every_block_usable() {
    let stage = Stage::new(true);
    let (idle, mine) = (stage.open(), stage.open());
    free(mine, fill(idle, mixed_sizes(30_000)));
    flush(mine);
    assert!(stage.purged() > 0);
    free(idle, fill(idle, mixed_sizes(30_000)));
    flush(idle);
    assert_eq!(in_use(idle), 0);
}

#[test]
fn inboxes_are_taken_over_while_owners_and_senders_are_busy() {
    let stage = Stage::new(false);
    let (owner, sender) = (stage.open(), stage.open());
    let (blocks_to, blocks_from) = std::sync::mpsc::sync_channel(2);
    let heaps = stage.heaps;
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        // From here on each heap is used by one thread, until the threads have ended.
        scope.spawn(move || {
            for round in 0..300 {
                let blocks = fill(owner, mixed_sizes(round % 7 * 1000));
                blocks_to.send(blocks).expect("the sender is there");
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let heap = heaps.open().expect("there is memory");
                while done.load(Relaxed) == 0 {
                    // SAFETY: this thread opened the heap.
                    unsafe { heap.flush() };
                }
                // SAFETY: as above.
                unsafe { heaps.close(heap) };
            });
        }
        let done = &done;
        scope.spawn(move || {
            blocks_from.into_iter().for_each(|blocks| free(sender, blocks));
            done.store(1, Relaxed);
        });
    });
    flush(sender);
    flush(owner);
    assert_eq!(in_use(owner), 0);
}

#[test]
fn a_thread_without_a_heap_frees_and_the_limit_holds() {
    let stage = Stage::new(false);
    let idle = stage.open();
    for block in fill(idle, (0..400_000).map(|_| 64)) {
        // SAFETY: the block is of these heaps. It is freed as by a thread that has no heap.
        unsafe { stage.heaps.free_remote(BlockPtr::from_start(block.check().into_start())) };
    }
    assert!(stage.purged() > 8 << 20);
    assert!(in_use(idle) == 400_000 * 64);
    flush(idle);
    assert_eq!(in_use(idle), 0);
}
