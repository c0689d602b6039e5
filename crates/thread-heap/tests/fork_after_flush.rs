//! Pages that a process has returned to the system stay non-resident in its child (issue 14).

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::fs;

use obmalloc::{BlockPtr, Blocks, SizeClass};
use thread_heap::{PerThread, ThreadGeometry};

const BLOCKS: usize = 500_000;

fn alloc(class: SizeClass<ThreadGeometry>) -> BlockPtr {
    let block = PerThread.alloc(class).expect("there is memory");
    // SAFETY: the block is new and has 64 bytes.
    unsafe { block.start().write_bytes(7, 64) };
    block
}

fn free(block: BlockPtr) {
    // SAFETY: the block came from these heaps, and is not used again.
    unsafe { PerThread.free(block) };
}

/// Returns the resident memory in bytes. We read `smaps`, because the kernel's other counts are
/// inexact.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux has it");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of KiB") << 10
}

/// Runs `child` in a forked child. Returns true if `child` returns true there.
fn fork(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: the process has one thread that uses the heaps.
    let id = unsafe { libc::fork() };
    if id == 0 {
        let is_good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: the call has no requirements. It ends the child immediately.
        unsafe { libc::_exit(if is_good.is_ok_and(|is_good| is_good) { 0 } else { 1 }) };
    }
    let mut status = 1;
    // SAFETY: the pointer is valid.
    unsafe { libc::waitpid(id, &raw mut status, 0) };
    status == 0
}

#[test]
fn what_a_parent_gave_back_does_not_come_back_in_its_child() {
    let class = SizeClass::of(64).expect("it is small");
    let start = resident();
    let blocks: Vec<_> = (0..BLOCKS).map(|_| alloc(class)).collect();
    let full = resident() - start;
    assert!(full > BLOCKS * 60, "{full} bytes");
    let mut kept = Vec::new();
    for (nth, block) in blocks.into_iter().enumerate() {
        if nth % 1000 == 0 { kept.push(block) } else { free(block) }
    }
    PerThread.flush();
    let flushed = resident();
    assert!(flushed < start + full / 3, "{flushed} of {full} bytes after the flush");
    let is_good = fork(|| {
        let born = resident();
        // The child frees some blocks, allocates others, and flushes, like any other process.
        let others: Vec<_> = (0..1000).map(|_| alloc(class)).collect();
        others.into_iter().for_each(free);
        PerThread.flush();
        let later = resident();
        println!("{flushed} bytes in the parent; {born}, then {later} bytes in the child");
        let are_intact = kept.iter().all(|block| {
            // SAFETY: the block is in use and has 64 bytes.
            unsafe { block.start().as_ptr().add(63).read() == 7 }
        });
        are_intact && born.max(later) < flushed + (1 << 20)
    });
    assert!(is_good, "the child has more than {flushed} bytes, or a block has changed");
    kept.into_iter().for_each(free);
}
