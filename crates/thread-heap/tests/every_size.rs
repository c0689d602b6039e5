//! Blocks of every class and large blocks that outlive their thread, and the memory use afterwards.

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

#[path = "common/block.rs"]
mod block;
#[allow(dead_code, reason = "only the threads of the process are needed")]
#[path = "common/team.rs"]
mod team;

use std::{
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use obmalloc::SizeClass;
use raw_mem::MemAlloc;
use thread_heap::{PerThread, ThreadGeometry, ThreadMalloc};

use crate::{
    block::Block,
    team::{Member, OfTheProcess, Team},
};

/// Serialises the tests, because each measures the memory of the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the resident memory of this process, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("it can be read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Returns the sizes of all classes, and of large blocks.
fn sizes() -> impl Iterator<Item = usize> {
    let classes = SizeClass::<ThreadGeometry>::all().map(SizeClass::block_size);
    classes.chain([500_000, 1 << 20, 3_000_000])
}

fn blocks_of_every_size(seed: u64) -> Vec<Block> {
    sizes().map(|size| OfTheProcess.join().block(size, seed + size as u64)).collect()
}

fn free(blocks: impl IntoIterator<Item = Block>) {
    for block in blocks {
        // SAFETY: the block came from the process's heaps, and is not used again.
        unsafe { OfTheProcess.join().free(block.check()) };
    }
}

fn assert_nothing_is_in_use() {
    PerThread.flush();
    let stats = PerThread.stats_of_all();
    assert_eq!((stats.total.bytes.in_use, stats.total.arenas.current), (0, 0));
    assert_eq!(PerThread.large_blocks(), (0, 0));
}

#[test]
fn blocks_of_every_size_outlive_their_threads() {
    let _alone = alone();
    let (mut blocks, mut freers) = (Vec::new(), Vec::new());
    for round in 0..10 {
        let makers = (0..8).map(|nth| thread::spawn(move || blocks_of_every_size(8 * round + nth)));
        let makers: Vec<_> = makers.collect();
        for maker in makers {
            blocks.extend(maker.join().expect("there is memory"));
        }
        // The next threads adopt heaps with blocks in use, while another thread frees some of them.
        let (freed, kept): (Vec<_>, Vec<_>) =
            blocks.into_iter().enumerate().partition(|(nth, _)| nth % 3 != round as usize % 3);
        freers.push(thread::spawn(move || free(freed.into_iter().map(|(_, block)| block))));
        blocks = kept.into_iter().map(|(_, block)| block).collect();
    }
    free(blocks);
    freers.into_iter().for_each(|freer| freer.join().expect("no block was overwritten"));
    assert_nothing_is_in_use();
}

#[test]
fn threads_that_have_ended_leave_no_memory_when_all_blocks_are_freed() {
    let _alone = alone();
    let before = resident();
    for freed_by_another in [false, true, true] {
        let makers: Vec<_> =
            (0..4).map(|nth| thread::spawn(move || blocks_of_every_size(nth))).collect();
        let blocks: Vec<_> =
            makers.into_iter().flat_map(|maker| maker.join().expect("there is memory")).collect();
        if freed_by_another {
            thread::spawn(|| free(blocks)).join().expect("no block was overwritten");
        } else {
            free(blocks);
        }
        assert_nothing_is_in_use();
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 4 << 10, "{grown} KiB stay");
}

#[test]
fn large_blocks_that_a_heap_retains_do_not_count_as_in_use() {
    let _alone = alone();
    PerThread.flush();
    let mut starts = Vec::new();
    for _ in 0..4 {
        let block = PerThread.alloc_large(2 << 20, 16).expect("there is memory").block;
        starts.push(block.start());
        assert_eq!(PerThread.large_blocks().0, 1);
        // SAFETY: the block came from the process's heaps, and is not used again.
        unsafe { PerThread.free_large(block) };
        assert_eq!(PerThread.large_blocks(), (0, 0));
    }
    assert!(starts[1..].iter().all(|start| *start == starts[1]), "{starts:?}");
    let before = resident();
    let block = PerThread.alloc_large(2 << 20, 16).expect("there is memory").block;
    // SAFETY: the block is new, and has this many bytes.
    unsafe { block.start().write_bytes(1, 2 << 20) };
    // SAFETY: the block came from the process's heaps, and is not used again.
    unsafe { PerThread.free_large(block) };
    assert_nothing_is_in_use();
    assert!(resident() < before + 512, "a flush gives the retained block back");
}

#[test]
fn a_flush_returns_the_memory_of_blocks_of_every_size() {
    const BYTES: usize = 64 << 20;
    let _alone = alone();
    for size in [100, 512, 600, 3000, 8192, 9000, 40_000, 200 << 10, 480 << 10, 2 << 20] {
        let before = resident();
        let mut member = OfTheProcess.join();
        let blocks: Vec<_> = (0..BYTES / size).map(|_| member.block(size, 5)).collect();
        assert!(resident() > before + BYTES / 1024 / 2);
        free(blocks);
        assert_nothing_is_in_use();
        let grown = resident().saturating_sub(before);
        assert!(grown < 4 << 10, "{grown} KiB of blocks of {size} bytes stay");
    }
}

#[test]
fn the_figures_count_the_usable_bytes_of_aligned_blocks() {
    let _alone = alone();
    PerThread.flush();
    let before = PerThread.figures().allocated();
    let counted = || PerThread.figures().allocated() - before;
    // SAFETY: we call this closure only with the starts of live blocks.
    let usable = |start| unsafe { ThreadMalloc.usable_size(start) };
    let mut blocks = Vec::with_capacity(1000);
    for align in (4..=23).map(|bits| 1 << bits) {
        for size in [1, 5000, 100_000, 480 << 10, 1 << 20, 3_000_000] {
            blocks.push(ThreadMalloc.alloc_aligned(size, align).expect("there is memory"));
        }
    }
    let sum: usize = blocks.iter().copied().map(usable).sum();
    assert_eq!(counted(), sum);
    for block in &mut blocks {
        // SAFETY: the block is live, and is replaced by the result.
        let resized = unsafe { ThreadMalloc.realloc(Some(*block), 2_000_000) };
        *block = resized.expect("there is memory");
    }
    let sum: usize = blocks.iter().copied().map(usable).sum();
    assert_eq!(counted(), sum);
    for block in blocks.drain(..) {
        // SAFETY: the block is live, and is not used again.
        unsafe { ThreadMalloc.free(Some(block)) };
    }
    assert_eq!(counted(), 0);
}
