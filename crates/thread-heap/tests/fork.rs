//! A process that forks while its other threads are busy.

#![cfg(all(unix, not(miri), not(loom)))]

#[path = "common/block.rs"]
mod block;

use std::{
    ffi::c_void,
    fs, mem,
    mem::MaybeUninit,
    ptr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use obmalloc::{BlockPtr, Blocks, SizeClass};
use raw_mem::MemAlloc;
use thread_heap::{PerThread, ThreadGeometry, ThreadMalloc};

use crate::block::{Block, Slot};

const FORKS: usize = 200;

/// The time in seconds after which a hanging child is killed.
const TIME_LIMIT: u32 = 60;

const MANY: usize = 10_000;

fn alloc(size: usize) -> Block {
    let start = ThreadMalloc.malloc(size).expect("there is memory");
    // SAFETY: the block is in use.
    let usable = unsafe { ThreadMalloc.usable_size(start) };
    // SAFETY: the block is new, and has this many bytes.
    unsafe { Block::fill_bytes(BlockPtr::from_start(start), usable, size as u64) }
}

fn free(block: Block) {
    // SAFETY: the block came from the process's heaps, and is not used again.
    unsafe { ThreadMalloc.free(Some(block.check().into_start())) };
}

/// Sizes of small and medium blocks, spans and large blocks.
const SIZES: [usize; 8] = [100, 600, 3000, 8000, 20_000, 100_000, 400_000, 600_000];

/// Allocates and frees blocks of all sizes. Most of the blocks are small.
fn work(blocks: usize) {
    let size = |nth| if nth % 401 == 7 { SIZES[nth / 401 % SIZES.len()] } else { nth % 512 + 1 };
    let blocks: Vec<_> = (0..blocks).map(|nth| alloc(size(nth))).collect();
    blocks.into_iter().for_each(free);
}

/// Replaces the contents of a block.
fn rewrite(block: Block) -> Block {
    let start = block.check().into_start();
    // SAFETY: the block is in use.
    let size = unsafe { ThreadMalloc.usable_size(start) };
    // SAFETY: the block has this many bytes.
    unsafe { Block::fill_bytes(BlockPtr::from_start(start), size, 3) }
}

/// Resizes a block to one and a half of its size.
fn grow(block: Block) -> Block {
    let start = block.check().into_start();
    // SAFETY: the block is in use.
    let size = unsafe { ThreadMalloc.usable_size(start) } * 3 / 2;
    // SAFETY: the block is in use, and replaced by the result.
    let grown = unsafe { ThreadMalloc.realloc(Some(start), size) }.expect("there is memory");
    // SAFETY: the block has this many bytes.
    unsafe { Block::fill_bytes(BlockPtr::from_start(grown), size, 4) }
}

/// Blocks of threads that no longer exist in the child.
struct Inherited {
    of_running_threads: Vec<Slot>,
    of_ended_threads: Vec<Slot>,
}

fn slots(blocks: usize) -> Vec<Slot> {
    (0..blocks).map(|_| Slot::default()).collect()
}

fn put_blocks(slots: &[Slot]) {
    for (nth, slot) in slots.iter().enumerate() {
        assert!(slot.swap(Some(alloc(SIZES[nth % SIZES.len()]))).is_none());
    }
}

/// Works in a thread that the C library starts. Returns false if the thread could not be started.
///
/// We cannot start the thread with the standard library, because it holds a lock while it starts a
/// thread. If a thread of the parent held that lock during the fork, it stays locked in the child.
fn work_in_a_thread() -> bool {
    extern "C" fn main(_: *mut c_void) -> *mut c_void {
        work(MANY);
        ptr::null_mut()
    }
    started_and_joined(main)
}

fn started_and_joined(main: extern "C" fn(*mut c_void) -> *mut c_void) -> bool {
    let mut thread = MaybeUninit::uninit();
    // SAFETY: `thread` is writable, and the function expects no argument.
    let started =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), main, ptr::null_mut()) };
    // SAFETY: the thread was started, so `thread` is initialised. It is joined once.
    started == 0 && unsafe { libc::pthread_join(thread.assume_init(), ptr::null_mut()) } == 0
}

static TO_FREE: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// Runs a thread of the C library that frees the blocks of [`TO_FREE`] on every second page, and
/// then flushes.
fn frees_every_second_page() -> bool {
    extern "C" fn main(_: *mut c_void) -> *mut c_void {
        let blocks = mem::take(&mut *TO_FREE.lock().expect("nobody else locks it"));
        for block in blocks.into_iter().map(Block::check) {
            if block.start().addr().get() / 4096 % 2 == 0 {
                // SAFETY: the block came from the process's heaps, and is not used again.
                unsafe { PerThread.free(block) };
            }
        }
        PerThread.flush();
        ptr::null_mut()
    }
    started_and_joined(main)
}

fn mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("it can be read");
    maps.lines().count()
}

/// A purge in a forked child must create only a few mappings, because Linux never merges a new
/// mapping with an inherited one.
#[test]
#[cfg(target_os = "linux")]
fn a_child_that_purges_pages_needs_no_mapping_for_each() {
    let class = SizeClass::<ThreadGeometry>::of(512).expect("it is small");
    TO_FREE
        .lock()
        .expect("nobody else locks it")
        .extend((0..40_000).map(|_| alloc(class.block_size())));
    let status = fork(|| {
        let blocks = TO_FREE.lock().expect("nobody else locks it").len();
        let before = mappings();
        let done = blocks > 0 && frees_every_second_page();
        i32::from(!done || mappings() > before + 100)
    });
    assert_eq!(status, 0);
}

/// Stops the busy threads, even if the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn live_as_a_child(inherited: &Inherited) -> i32 {
    work(MANY);
    let slots = inherited.of_running_threads.iter().chain(&inherited.of_ended_threads);
    for (nth, slot) in slots.enumerate() {
        // A slot is empty if its thread has not filled it yet.
        if let Some(block) = slot.swap(None) {
            free(match nth / SIZES.len() % 3 {
                0 => block,
                1 => rewrite(block),
                _ => grow(block),
            });
        }
    }
    let worked = work_in_a_thread();
    PerThread.flush();
    work(MANY);
    i32::from(!worked)
}

fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child uses only the heap and the C library, which supports forks.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: the alarm ends a child that hangs, and `_exit` runs no handlers.
            unsafe {
                libc::alarm(TIME_LIMIT);
                libc::_exit(child())
            }
        }
        pid => {
            assert!(pid > 0, "the process cannot fork");
            let mut status = 0;
            // SAFETY: it waits for the child of this thread.
            unsafe { libc::waitpid(pid, &mut status, 0) };
            status
        }
    }
}

#[test]
fn the_child_of_a_busy_process_allocates_frees_and_starts_threads() {
    let inherited = Inherited { of_running_threads: slots(48), of_ended_threads: slots(48) };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| put_blocks(&inherited.of_ended_threads)).join().expect("there is memory");
        let busy = || {
            put_blocks(&inherited.of_running_threads[..]);
            while !done.load(Relaxed) {
                work(MANY);
            }
        };
        scope.spawn(busy);
        scope.spawn(|| {
            while !done.load(Relaxed) {
                thread::scope(|short| drop(short.spawn(|| work(MANY))));
            }
        });
        let _done = Done(&done);
        for nth in 0..FORKS {
            work(nth);
            let status = fork(|| live_as_a_child(&inherited));
            assert_eq!(status, 0, "child {nth} ended with status {status:#x}");
        }
    });
}

const FREED_ELSEWHERE: usize = 40_000;

/// The largest number of freed blocks that have not yet reached an inbox.
const ON_THEIR_WAY: usize = 2 * 32;

#[test]
fn a_child_loses_no_block_to_a_thread_that_was_taking_an_inbox_over() {
    // A new thread has a heap that no other test uses.
    let forking = || {
        for nth in 0..FORKS / 4 {
            let blocks = slots(FREED_ELSEWHERE);
            blocks.iter().for_each(|slot| assert!(slot.swap(Some(alloc(64))).is_none()));
            let freed = AtomicUsize::new(0);
            thread::scope(|scope| {
                scope.spawn(|| {
                    for (nth, slot) in blocks.iter().enumerate() {
                        slot.swap(None).into_iter().for_each(free);
                        freed.store(nth + 1, Relaxed);
                        if nth % 500 == 0 {
                            PerThread.flush();
                        }
                    }
                });
                while freed.load(Relaxed) < 1000 + nth * 700 {
                    thread::yield_now();
                }
                let status = fork(|| {
                    let freed = freed.load(Relaxed);
                    PerThread.flush();
                    let stats = PerThread.stats().expect("this thread has a heap");
                    let class = SizeClass::<ThreadGeometry>::of(64).expect("it is small");
                    let in_use = stats.classes()[class.index()].in_use;
                    i32::from(in_use > FREED_ELSEWHERE - freed + ON_THEIR_WAY)
                });
                assert_eq!(status, 0, "blocks were lost to child {nth}");
            });
        }
    };
    thread::spawn(forking).join().expect("no child lost a block");
}

#[test]
fn a_child_of_a_child_allocates() {
    let status = fork(|| {
        work(MANY);
        fork(|| {
            work(MANY);
            0
        })
    });
    assert_eq!(status, 0, "status {status:#x}");
}
