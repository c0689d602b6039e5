//! The memory of a process in which threads are blocked while other threads free their blocks
//! (issue 14, point 4).
//!
//! Regression tests (defects, "Doubtful").

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::{
    ptr::NonNull,
    sync::{Barrier, Mutex},
    thread,
};

use obmalloc::{BlockPtr, Blocks, SizeClass};
use thread_heap::{PerThread, ThreadGeometry};

const THREADS: usize = 32;

const BLOCKS: usize = 100_000;

/// Serialises the tests, because each measures the memory of the process.
static ALONE: Mutex<()> = Mutex::new(());

struct Stack(
    /// # Invariant
    ///
    /// None, or a block that the stack exclusively owns. Its first word links to the next one.
    Option<NonNull<Link>>,
);

struct Link(Option<NonNull<Link>>);

// SAFETY: the blocks belong to the holder of the stack, which may be any thread.
unsafe impl Send for Stack {}

impl Stack {
    fn of_new_blocks() -> Self {
        let class = SizeClass::<ThreadGeometry>::of(64).expect("it is small");
        (0..BLOCKS).fold(Self(None), |Self(next), _| {
            let block = PerThread.alloc_listed(class).or_else(|| PerThread.alloc(class));
            let start = block.expect("there is memory").into_start();
            // SAFETY: we own the block, which has 64 bytes.
            unsafe { start.write_bytes(1, 64) };
            // SAFETY: as above, and it is aligned to words.
            unsafe { start.cast::<Link>().write(Link(next)) };
            // INVARIANT: the link was written just now.
            Self(Some(start.cast()))
        })
    }

    fn free_all(self) {
        let mut rest = self.0;
        while let Some(link) = rest {
            // SAFETY: we own the block, and its first word is a link (invariant).
            rest = unsafe { link.read() }.0;
            // SAFETY: the block came from `PerThread`, and is not used again.
            unsafe { PerThread.free(BlockPtr::from_start(link.cast())) };
        }
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of KiB") << 10
}

/// Returns how much the process grows if `free_all` frees the blocks of blocked threads.
fn grown_after(free_all: impl FnOnce(Vec<Stack>)) -> usize {
    let _alone = ALONE.lock();
    PerThread.flush();
    let start = resident();
    let (made, freed) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let stacks = Mutex::new(Vec::new());
    // A panic before `freed.wait()` would make the scope wait forever.
    let (full, grown) = thread::scope(|scope| {
        let body = || {
            let stack = Stack::of_new_blocks();
            stacks.lock().expect("nobody panicked").push(stack);
            made.wait();
            freed.wait();
            Stack::of_new_blocks().free_all();
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(body)).collect();
        made.wait();
        let full = resident().saturating_sub(start);
        free_all(std::mem::take(&mut stacks.lock().expect("nobody panicked")));
        let grown = resident().saturating_sub(start);
        freed.wait();
        // A scope does not wait until its threads have closed their heaps. We call `join`, which
        // does.
        threads.into_iter().for_each(|thread| thread.join().expect("the thread does not panic"));
        (full, grown)
    });
    PerThread.flush();
    let end = resident().saturating_sub(start);
    println!("{} KiB, then {} KiB, in the end {} KiB", full >> 10, grown >> 10, end >> 10);
    assert!(full > THREADS * BLOCKS * 60, "{full} bytes for all blocks");
    assert!(end < 4 << 20, "{end} bytes are left when the threads have ended");
    grown
}

#[test]
fn a_flush_by_any_thread_purges_the_memory_of_blocked_threads() {
    let grown = grown_after(|stacks| {
        stacks.into_iter().for_each(Stack::free_all);
        PerThread.flush();
    });
    assert!(grown <= 4 << 20, "{grown} bytes");
}

#[test]
fn a_flush_by_a_thread_without_a_heap_purges_it_as_well() {
    let grown = grown_after(|stacks| {
        let free = || stacks.into_iter().for_each(Stack::free_all);
        thread::scope(|scope| {
            scope.spawn(free).join().expect("it frees");
            scope.spawn(|| PerThread.flush()).join().expect("it flushes");
        });
    });
    assert!(grown <= 4 << 20, "{grown} bytes");
}

#[test]
fn what_waits_for_blocked_threads_is_limited_although_nobody_flushes() {
    let grown = grown_after(|stacks| stacks.into_iter().for_each(Stack::free_all));
    let bound = (16 << 20) + THREADS * (256 << 10) + (4 << 20);
    assert!(grown <= bound, "{grown} bytes are more than {bound}");
}
