//! Blocks of every size while the system refuses memory.

#![cfg(all(unix, not(miri), not(loom)))]

#[path = "common/block.rs"]
mod block;

use std::{fs, ptr::NonNull};

use obmalloc::{BlockPtr, Geometry, Heap, HeapTag, LargeBlock, SizeClass};
use raw_mem::{Malloc, MemAlloc, MmapArenas};
use testkit::{
    failing::{FailingAlloc, FailingArenas, Faults, Plan},
    place::ArenaLog,
    random::Random,
};
use thread_heap::{Heaps, Owner, PerThread, ThreadGeometry, ThreadMalloc};

use crate::block::Block;

type Parts = (FailingArenas<MmapArenas>, FailingAlloc<Malloc>, ThreadGeometry);

/// The size of the largest class.
const LARGEST: usize = ThreadGeometry::SIZES.arena_threshold;

/// Returns a size of up to 2 MiB. All powers of two are equally likely.
fn size(random: &mut Random) -> usize {
    let bits = 4 + random.below(17);
    (1 << bits) + random.below(1 << bits)
}

/// Two heaps over a source and an allocator that can fail.
struct Stage {
    heaps: &'static Heaps<Parts>,
    owners: [Owner<Parts>; 2],
    maps: Faults,
    metadata: Faults,
    log: ArenaLog,
}

impl Stage {
    fn new() -> Self {
        let (maps, metadata, log) = (Faults::default(), Faults::default(), ArenaLog::default());
        let source = FailingArenas::new(MmapArenas::new(), maps.clone(), log.clone());
        let lower = FailingAlloc::new(Malloc, metadata.clone());
        let heaps: &_ = Box::leak(Box::new(Heaps::new(source, lower)));
        let owners = [(); 2].map(|()| heaps.open().expect("there is memory"));
        Self { heaps, owners, maps, metadata, log }
    }

    fn alloc(&mut self, owner: usize, size: usize, seed: u64) -> Option<Block> {
        let Some(class) = SizeClass::of(size) else {
            let start = self.heaps.alloc_large(size, 1)?.block.start();
            // SAFETY: the block is new, and has this many bytes.
            return Some(unsafe { Block::fill_bytes(BlockPtr::from_start(start), size, seed) });
        };
        Some(Block::fill(self.owners[owner].alloc(class)?, class, seed))
    }

    fn free(&mut self, owner: usize, block: Block) {
        let block = block.check();
        // SAFETY: the byte lies in the arena or the mapping of the block.
        let tag =
            unsafe { Heap::<MmapArenas, Malloc, ThreadGeometry>::tag_of(block.start().sub(1)) };
        if tag == HeapTag::LARGE {
            // SAFETY: the block is large, came from this family, and is not used again.
            unsafe { self.heaps.free_large(LargeBlock::from_start(block.into_start())) };
        } else {
            // SAFETY: the block came from this family, and is not used again.
            unsafe { self.owners[owner].free(block) };
        }
    }

    fn flush(&mut self) {
        for _ in 0..2 {
            self.owners.iter_mut().for_each(|owner| _ = owner.flush());
        }
    }

    /// Allocates and frees blocks of all sizes. Returns the blocks in use and the number of failed
    /// requests.
    fn work(&mut self, random: &mut Random) -> (Vec<Block>, usize) {
        let (mut blocks, mut failed) = (Vec::new(), 0);
        for nth in 0..6000 {
            let owner = random.below(2);
            if random.below(10) < 6 {
                match self.alloc(owner, size(random), nth) {
                    Some(block) => blocks.push(block),
                    None => failed += 1,
                }
            } else if !blocks.is_empty() {
                let block = blocks.swap_remove(random.below(blocks.len()));
                self.free(owner, block);
            }
            while blocks.len() > 300 {
                let block = blocks.swap_remove(random.below(blocks.len()));
                self.free(owner, block);
            }
            if nth % 500 == 0 {
                self.owners.iter().for_each(Owner::check_invariants);
            }
        }
        (blocks, failed)
    }

    /// Checks that blocks of every class can be allocated again, and that no memory is in use after
    /// all blocks are freed.
    fn recover(mut self, mut blocks: Vec<Block>) {
        for class in SizeClass::<ThreadGeometry>::all() {
            blocks.push(self.alloc(0, class.block_size(), 1).expect("there is memory"));
        }
        blocks.push(self.alloc(0, LARGEST + 1, 2).expect("there is memory"));
        for (nth, block) in blocks.into_iter().enumerate() {
            self.free(nth % 2, block);
        }
        self.flush();
        for owner in &self.owners {
            owner.check_invariants();
            assert_eq!(owner.stats().bytes.in_use, 0);
        }
        assert_eq!((self.log.mapped(), self.log.large()), (0, 0));
        assert_eq!(self.heaps.large_blocks(), (0, 0));
    }
}

#[test]
fn no_block_of_any_size_is_lost_if_every_kth_map_fails() {
    for step in 1..8 {
        let (mut stage, mut random) = (Stage::new(), Random(step as u64));
        stage.maps.restart(Plan::Every(step));
        let (blocks, failed) = stage.work(&mut random);
        assert!(failed > 0 && (step == 1 || blocks.len() > 100), "step {step}: {failed} failed");
        stage.maps.restart(Plan::Never);
        stage.recover(blocks);
    }
}

#[test]
fn no_block_of_any_size_is_lost_if_memory_ends() {
    for first in [1, 2, 3, 10, 30, 100] {
        let (mut stage, mut random) = (Stage::new(), Random(first as u64));
        stage.maps.restart(Plan::From(first));
        let (blocks, failed) = stage.work(&mut random);
        assert!(failed > 0, "from {first}");
        stage.maps.restart(Plan::Never);
        stage.recover(blocks);
    }
}

#[test]
fn no_block_of_any_size_is_lost_if_every_kth_request_for_metadata_fails() {
    for step in 1..5 {
        let (mut stage, mut random) = (Stage::new(), Random(step as u64));
        stage.metadata.restart(Plan::Every(step));
        let (blocks, _) = stage.work(&mut random);
        stage.metadata.restart(Plan::Never);
        stage.recover(blocks);
    }
}

fn address_space() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("it can be read");
    let pages: usize = statm.split(' ').next().and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

fn limit_address_space(bytes: Option<usize>) {
    let infinity = libc::RLIM_INFINITY;
    let limit = libc::rlimit {
        rlim_cur: bytes.map_or(infinity, |bytes| bytes as libc::rlim_t),
        rlim_max: infinity,
    };
    // SAFETY: the limit is initialised.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

/// Uses up the address space with blocks of random sizes, and frees them again.
fn exhaust(random: &mut Random) {
    // The vector must not grow after memory is exhausted.
    let mut blocks: Vec<(NonNull<u8>, usize)> = Vec::with_capacity(100_000);
    let (mut failed_in_arena, mut failed_large) = (0, 0);
    while (failed_in_arena < 20 || failed_large < 20) && blocks.len() < 100_000 {
        // Later requests are smaller, so that they use up the remaining memory.
        let size = if failed_large < 20 { size(random) } else { size(random) % LARGEST + 1 };
        match ThreadMalloc.malloc(size) {
            // SAFETY: the block is new, and has at least this many bytes.
            Some(start) => unsafe {
                start.write_bytes(blocks.len() as u8, size.min(64));
                blocks.push((start, size));
            },
            None if size > LARGEST => failed_large += 1,
            None => failed_in_arena += 1,
        }
    }
    assert!(failed_in_arena > 0 && failed_large > 0, "{} blocks", blocks.len());
    for (nth, (start, size)) in blocks.into_iter().enumerate() {
        for at in 0..size.min(64) {
            // SAFETY: the block is in use, and these bytes are initialised.
            assert_eq!(unsafe { start.add(at).read() }, nth as u8, "{size} bytes");
        }
        // SAFETY: the block came from this allocator, and is not used again.
        unsafe { ThreadMalloc.free(Some(start)) };
    }
    PerThread.flush();
}

#[test]
fn blocks_of_every_size_survive_the_end_of_the_address_space() {
    // We fork, because the requests of other threads would fail too, and a child has no other
    // threads.
    // SAFETY: the child uses the heap and the C library, which supports forks.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: the alarm ends a child that hangs.
            unsafe { libc::alarm(60) };
            let outcome = std::panic::catch_unwind(|| {
                let mut random = Random(7);
                for room in [64, 256] {
                    limit_address_space(Some(address_space() + (room << 20)));
                    exhaust(&mut random);
                    exhaust(&mut random);
                    limit_address_space(None);
                    // SAFETY: the block came from this allocator, and is not used again.
                    unsafe { ThreadMalloc.free(Some(ThreadMalloc.malloc(300 << 20).unwrap())) };
                }
                let stats = PerThread.stats_of_all();
                assert_eq!((stats.total.bytes.in_use, PerThread.large_blocks()), (0, (0, 0)));
            });
            // SAFETY: `_exit` runs no handlers.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        pid => {
            assert!(pid > 0, "the process cannot fork");
            let mut status = 0;
            // SAFETY: it waits for the child of this thread.
            unsafe { libc::waitpid(pid, &mut status, 0) };
            assert_eq!(status, 0);
        }
    }
}
