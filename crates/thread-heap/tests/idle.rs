//! Purging the memory of blocks that other threads freed while their owner is idle (issue 14).
//!
//! Regression tests (defects, "Doubtful").

#![cfg(not(any(loom, miri)))]

#[path = "common/block.rs"]
mod block;

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
};

use obmalloc::SizeClass;
use raw_mem::{ArenaSize, ArenaSource, Malloc, MapError, MmapArenas, PurgeError};
use testkit::failing::{FailingAlloc, Faults, Plan};
use thread_heap::{Heaps, Owner, ThreadGeometry};

use crate::block::Block;

/// A source that counts the bytes of all purge requests.
struct Watched {
    source: MmapArenas,
    purged: Arc<AtomicUsize>,
    refuses: bool,
}

// SAFETY: the arenas come from `source`.
unsafe impl ArenaSource for Watched {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        self.source.map(size)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        // SAFETY: the arena came from `source`, and is no longer used (contract of `unmap`).
        unsafe { self.source.unmap(arena, size) }
    }

    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        self.purged.fetch_add(len, Relaxed);
        if self.refuses {
            return Err(PurgeError::Unsupported);
        }
        // SAFETY: the range lies in an arena of `source` (contract of `purge`).
        unsafe { self.source.purge(start, len) }
    }
}

type Parts = (Watched, FailingAlloc<Malloc>, ThreadGeometry);
type TestHeap = Owner<Parts>;

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

fn fill(heap: &mut TestHeap, sizes: impl Iterator<Item = usize>) -> Vec<Block> {
    let block = |(nth, size)| {
        let block = heap.alloc(class(size)).expect("there is memory");
        Block::fill(block, class(size), nth as u64)
    };
    sizes.enumerate().map(block).collect()
}

fn free(heap: &mut TestHeap, blocks: impl IntoIterator<Item = Block>) {
    for block in blocks {
        // SAFETY: all blocks of a test come from one family.
        unsafe { heap.free(block.check()) };
    }
}

fn in_use(heap: &TestHeap) -> usize {
    heap.check_invariants();
    heap.stats().bytes.in_use
}

/// Returns sizes of many classes, each often enough to fill a few pages.
fn mixed_sizes(blocks: usize) -> impl Iterator<Item = usize> {
    (0..blocks).map(|nth| 16 + nth / 300 * 48 % 496)
}

#[test]
fn a_flush_by_another_thread_purges_what_waits_for_an_idle_owner() {
    let stage = Stage::new(false);
    let (mut idle, mut mine) = (stage.open(), stage.open());
    free(&mut mine, fill(&mut idle, (0..100_000).map(|_| 64)));
    assert_eq!(stage.purged(), 0);
    mine.flush();
    let bytes = 100_000 * 64;
    // One page of each arena holds headers.
    assert!(stage.purged() > bytes - bytes / 128 && stage.purged() <= bytes);
    mine.flush();
    assert!(stage.purged() <= bytes, "a page was purged twice");
    assert_eq!(in_use(&idle), bytes);
    idle.flush();
    assert_eq!(in_use(&idle), 0);
}

#[test]
fn a_block_in_use_between_waiting_blocks_keeps_its_contents() {
    for one_of in [2, 7, 100, 5000] {
        let stage = Stage::new(false);
        let (mut idle, mut mine) = (stage.open(), stage.open());
        let mut in_use_still = Vec::new();
        for (nth, block) in fill(&mut idle, mixed_sizes(60_000)).into_iter().enumerate() {
            if nth % one_of == 0 {
                in_use_still.push(block);
            } else {
                free(&mut mine, [block]);
            }
            if nth % 9000 == 0 {
                mine.flush();
            }
        }
        mine.flush();
        assert!(stage.purged() > 0 || one_of < 100);
        let again = fill(&mut idle, mixed_sizes(60_000));
        free(&mut idle, in_use_still);
        free(&mut mine, again);
        mine.flush();
        idle.flush();
        assert_eq!(in_use(&idle), 0);
    }
}

#[test]
fn an_idle_owner_that_ends_frees_what_was_purged() {
    let stage = Stage::new(false);
    let (mut idle, mut mine) = (stage.open(), stage.open());
    let mut blocks = fill(&mut idle, mixed_sizes(20_000));
    let last = blocks.pop();
    free(&mut mine, blocks);
    mine.flush();
    let purged = stage.purged();
    assert!(purged > 1 << 20);
    let tag = idle.tag();
    drop(idle);
    // The heap is abandoned, so the free takes effect at once.
    free(&mut mine, last);
    mine.flush();
    let adopted = stage.open();
    assert_eq!(adopted.tag(), tag);
    assert_eq!(in_use(&adopted), 0);
    assert_eq!(stage.purged(), purged);
}

#[test]
fn what_waits_for_idle_owners_is_limited_although_nobody_flushes() {
    const OWNERS: usize = 40;
    const EACH: usize = 1 << 20;
    let stage = Stage::new(false);
    let mut mine = stage.open();
    let mut idle: Vec<_> = (0..OWNERS).map(|_| stage.open()).collect();
    let blocks: Vec<_> =
        idle.iter_mut().map(|heap| fill(heap, (0..EACH / 128).map(|_| 128))).collect();
    blocks.into_iter().for_each(|blocks| free(&mut mine, blocks));
    // All inboxes together may hold 16 MiB. Each owner may add 256 KiB and its header pages.
    let bound = (16 << 20) + OWNERS * ((256 << 10) + 2 * 4096);
    let waiting = OWNERS * EACH - stage.purged();
    assert!(waiting <= bound, "{waiting} bytes are more than {bound}");
    assert!(stage.purged() <= OWNERS * EACH);
}

#[test]
fn inboxes_of_owners_that_run_are_not_taken_over() {
    let stage = Stage::new(false);
    let (mut busy, mut mine) = (stage.open(), stage.open());
    for _ in 0..200 {
        let blocks = fill(&mut busy, (0..4000).map(|_| 128));
        free(&mut mine, blocks);
    }
    assert_eq!(stage.purged(), 0);
}

#[test]
fn without_memory_for_a_table_every_block_stays_where_it_is() {
    let stage = Stage::new(false);
    let (mut idle, mut mine) = (stage.open(), stage.open());
    let blocks = fill(&mut idle, mixed_sizes(30_000));
    free(&mut mine, blocks);
    stage.lower_faults.restart(Plan::From(1));
    mine.flush();
    assert_eq!(stage.purged(), 0);
    // The first table can be allocated, but a larger one cannot.
    stage.lower_faults.restart(Plan::From(2));
    mine.flush();
    let partly = stage.purged();
    assert!(partly > 0);
    stage.lower_faults.restart(Plan::Never);
    mine.flush();
    assert!(stage.purged() > 2 * partly);
    idle.flush();
    assert_eq!(in_use(&idle), 0);
}

#[test]
fn every_block_stays_usable_if_the_system_refuses_to_purge() {
    let stage = Stage::new(true);
    let (mut idle, mut mine) = (stage.open(), stage.open());
    free(&mut mine, fill(&mut idle, mixed_sizes(30_000)));
    mine.flush();
    assert!(stage.purged() > 0);
    let again = fill(&mut idle, mixed_sizes(30_000));
    free(&mut idle, again);
    idle.flush();
    assert_eq!(in_use(&idle), 0);
}

#[test]
fn inboxes_are_taken_over_while_owners_and_senders_are_busy() {
    let stage = Stage::new(false);
    let (blocks_to, blocks_from) = std::sync::mpsc::sync_channel(2);
    let heaps = stage.heaps;
    // The number of other heaps that have been closed, beginning with that of the sender.
    let closed = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut owner = heaps.open().expect("there is memory");
            for round in 0..300 {
                let blocks = fill(&mut owner, mixed_sizes(round % 7 * 1000));
                blocks_to.send(blocks).expect("the sender has not ended");
            }
            drop(blocks_to);
            // A thread that purges the inbox may still hold some of its blocks.
            while closed.load(Acquire) < 3 {
                thread::yield_now();
            }
            owner.flush();
            assert_eq!(in_use(&owner), 0);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut heap = heaps.open().expect("there is memory");
                while closed.load(Acquire) == 0 {
                    heap.flush();
                }
                drop(heap);
                closed.fetch_add(1, Release);
            });
        }
        let closed = &closed;
        scope.spawn(move || {
            let mut sender = heaps.open().expect("there is memory");
            blocks_from.into_iter().for_each(|blocks| free(&mut sender, blocks));
            drop(sender);
            closed.fetch_add(1, Release);
        });
    });
}

#[test]
fn a_thread_without_a_heap_frees_and_the_limit_holds() {
    let stage = Stage::new(false);
    let mut idle = stage.open();
    for block in fill(&mut idle, (0..400_000).map(|_| 64)) {
        // SAFETY: the block came from these heaps.
        unsafe { stage.heaps.free_remote(block.check()) };
    }
    assert!(stage.purged() > 8 << 20);
    assert_eq!(in_use(&idle), 400_000 * 64);
    idle.flush();
    assert_eq!(in_use(&idle), 0);
}
