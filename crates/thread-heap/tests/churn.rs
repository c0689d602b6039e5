//! Many threads that do not live long, and what they leave: next to nothing.
//!
//! Each allocates 1 MiB in small blocks and frees half of it; the other half another thread frees.
//! `OBMALLOC_CHURN_THREADS` is how many threads there are, 1,000 if it is not set.

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::{
    ptr::NonNull,
    sync::{
        Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use obmalloc::{BlockPtr, Blocks, Geometry, SizeClass};
use thread_heap::{PerThread, ThreadGeometry};

/// Bytes that each thread allocates.
const EACH: usize = 1 << 20;

/// Threads that live at the same time, in the test of many.
const AT_ONCE: usize = 64;

/// Bytes of live blocks, and the most there were.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST_LIVE: AtomicUsize = AtomicUsize::new(0);

/// One test at a time: both look at the memory of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Blocks that are linked through themselves, so that a test has no memory but theirs.
struct Stack {
    /// # Invariant
    ///
    /// Null, or a block that is ours, whose first words are the next one's address and its size.
    first: Option<NonNull<Entry>>,
}

struct Entry {
    next: Option<NonNull<Entry>>,
    size: usize,
}

// SAFETY: the blocks are the stack's alone, whichever thread has it.
unsafe impl Send for Stack {}

impl Stack {
    const EMPTY: Self = Self { first: None };

    fn push(&mut self, size: usize) {
        let class = SizeClass::<ThreadGeometry>::of(size).expect("it is small");
        let block = PerThread.alloc_listed(class).or_else(|| PerThread.alloc(class));
        let entry = block.expect("there is memory").into_start().cast::<Entry>();
        let size = class.block_size();
        // SAFETY: the block is ours, aligned, and has two words. All of it is used, as memory that
        // nobody touched would not count.
        unsafe {
            entry.cast::<u8>().write_bytes(1, size);
            entry.write(Entry { next: self.first, size });
        }
        // INVARIANT: the entry was written just now.
        self.first = Some(entry);
        MOST_LIVE.fetch_max(LIVE.fetch_add(size, Relaxed) + size, Relaxed);
    }

    fn free_all(self) {
        let mut rest = self.first;
        while let Some(entry) = rest {
            // SAFETY: the invariant.
            let Entry { next, size } = unsafe { entry.read() };
            rest = next;
            // SAFETY: the invariant; the block is given up here.
            unsafe { PerThread.free(BlockPtr::from_start(entry.cast())) };
            LIVE.fetch_sub(size, Relaxed);
        }
    }
}

/// Allocates what one thread has: what it will free itself, and what it will not.
fn alloc() -> (Stack, Stack) {
    let (mut mine, mut left) = (Stack::EMPTY, Stack::EMPTY);
    let (mut bytes, mut nth) = (0, 0);
    while bytes < EACH {
        let size = 16 + 16 * (nth % 8);
        if nth % 2 == 0 {
            mine.push(size);
        } else {
            left.push(size);
        };
        (bytes, nth) = (bytes + size, nth + 1);
    }
    (mine, left)
}

fn threads() -> usize {
    let threads = std::env::var("OBMALLOC_CHURN_THREADS").ok();
    threads.and_then(|threads| threads.parse().ok()).unwrap_or(1000)
}

/// Bytes of the process's memory that the kernel tells under `name`, in `/proc/self/status`.
fn memory(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells it");
    let kib = line.trim_start_matches(':').trim_end_matches("kB").trim().parse::<usize>();
    kib.expect("a number of KiB") << 10
}

fn resident() -> usize {
    memory("VmRSS")
}

/// Has the kernel forget the peak of the past.
fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux has it");
}

/// Runs `body`, and compares its peak with what was live.
fn stays_within_twice_of_what_is_live(body: impl Fn()) {
    let start = resident();
    MOST_LIVE.store(0, Relaxed);
    reset_peak();
    body();
    PerThread.flush();
    let (peak, end, live) = (memory("VmHWM"), resident(), MOST_LIVE.load(Relaxed));
    let grown = peak.saturating_sub(start);
    println!(
        "{} threads: most live {} KiB, peak {} KiB above the start, end {} KiB above the start",
        threads(),
        live >> 10,
        grown >> 10,
        end.saturating_sub(start) >> 10
    );
    assert_eq!(LIVE.load(Relaxed), 0);
    assert!(grown <= 2 * live, "{grown} bytes for {live}");
    assert!(
        end <= start + 2 * ThreadGeometry::SIZES.arena_size,
        "{start} bytes, and {end} in the end"
    );
}

#[test]
fn threads_one_after_the_other_leave_their_memory() {
    let _alone = ALONE.lock();
    stays_within_twice_of_what_is_live(|| {
        for _ in 0..threads() {
            let thread = thread::spawn(|| {
                let (mine, left) = alloc();
                mine.free_all();
                left
            });
            let left = thread.join().expect("there is memory");
            left.free_all();
        }
    });
}

#[test]
fn threads_64_at_a_time_leave_their_memory() {
    let _alone = ALONE.lock();
    stays_within_twice_of_what_is_live(|| {
        let mut left: Vec<Stack> = (0..AT_ONCE).map(|_| Stack::EMPTY).collect();
        for _ in 0..threads() / AT_ONCE {
            // All are there, with all their blocks; and nobody has freed what the last ones left.
            let all_are_there = Barrier::new(AT_ONCE + 1);
            let live = |before: Stack| {
                let (mine, left) = alloc();
                all_are_there.wait();
                mine.free_all();
                before.free_all();
                left
            };
            left = thread::scope(|scope| {
                // What one left, its neighbour frees: it is not the one who adopts the heap.
                left.rotate_left(1);
                let start = |before| scope.spawn(move || live(before));
                let threads: Vec<_> = left.drain(..).map(start).collect();
                all_are_there.wait();
                threads.into_iter().map(|thread| thread.join().expect("there is memory")).collect()
            });
        }
        left.into_iter().for_each(Stack::free_all);
    });
}
