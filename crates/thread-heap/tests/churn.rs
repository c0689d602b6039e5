//! The memory that short-lived threads leave behind when other threads free half of their blocks.
//!
//! `OBMALLOC_CHURN_THREADS` sets the number of threads, which is 1,000 by default.

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

const EACH: usize = 1 << 20;

const AT_ONCE: usize = 64;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST_LIVE: AtomicUsize = AtomicUsize::new(0);

/// Serialises the tests, because both measure the memory of the process.
static ALONE: Mutex<()> = Mutex::new(());

struct Stack {
    /// # Invariant
    ///
    /// None, or a block that the stack exclusively owns. It begins with an [`Entry`].
    first: Option<NonNull<Entry>>,
}

struct Entry {
    next: Option<NonNull<Entry>>,
    size: usize,
}

// SAFETY: the blocks belong to the holder of the stack, which may be any thread.
unsafe impl Send for Stack {}

impl Stack {
    const EMPTY: Self = Self { first: None };

    fn push(&mut self, size: usize) {
        let class = SizeClass::<ThreadGeometry>::of(size).expect("it is small");
        let block = PerThread.alloc_listed(class).or_else(|| PerThread.alloc(class));
        let entry = block.expect("there is memory").into_start().cast::<Entry>();
        let size = class.block_size();
        // SAFETY: we own the block, which is aligned and has two words. Writing makes it resident.
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
            // SAFETY: we own the block, which begins with an entry (invariant).
            let Entry { next, size } = unsafe { entry.read() };
            rest = next;
            // SAFETY: the block came from `PerThread`, and is not used again.
            unsafe { PerThread.free(BlockPtr::from_start(entry.cast())) };
            LIVE.fetch_sub(size, Relaxed);
        }
    }
}

/// Allocates two sets of blocks: those that the thread frees itself, and those that it leaves.
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

fn memory(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells it");
    let kib = line.trim_start_matches(':').trim_end_matches("kB").trim().parse::<usize>();
    kib.expect("a number of KiB") << 10
}

fn resident() -> usize {
    memory("VmRSS")
}

fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux has it");
}

fn uses_at_most_twice_what_is_live(body: impl Fn()) {
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
fn threads_one_after_the_other_leave_no_memory_behind() {
    let _alone = ALONE.lock();
    uses_at_most_twice_what_is_live(|| {
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
fn threads_64_at_a_time_leave_no_memory_behind() {
    let _alone = ALONE.lock();
    uses_at_most_twice_what_is_live(|| {
        let mut left: Vec<Stack> = (0..AT_ONCE).map(|_| Stack::EMPTY).collect();
        for _ in 0..threads() / AT_ONCE {
            // At this point, all blocks of all threads are in use.
            let all_are_there = Barrier::new(AT_ONCE + 1);
            let live = |before: Stack| {
                let (mine, left) = alloc();
                all_are_there.wait();
                mine.free_all();
                before.free_all();
                left
            };
            left = thread::scope(|scope| {
                // A neighbour frees the blocks, because it has not adopted the heap that owns them.
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
