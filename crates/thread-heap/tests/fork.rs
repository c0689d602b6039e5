//! The child of a process whose other threads were in the middle of everything.

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

use obmalloc::{Blocks, SizeClass};
use thread_heap::{PerThread, ThreadGeometry};

use crate::block::{Block, Slot};

/// How often the process forks.
const FORKS: usize = 200;

/// Seconds after which the system ends a child: it waits for something that nobody will do.
const PATIENCE: u32 = 60;

/// Blocks that a busy thread has at a time: some arenas' worth, which come and go.
const MANY: usize = 10_000;

fn alloc(size: usize) -> Block {
    let class = SizeClass::<ThreadGeometry>::of(size).expect("it is small");
    let block = PerThread.alloc_listed(class).or_else(|| PerThread.alloc(class));
    Block::fill(block.expect("there is memory"), class, size as u64)
}

fn free(block: Block) {
    // SAFETY: the process's heaps gave the block, and it is given up.
    unsafe { PerThread.free(block.check()) };
}

/// Allocates and frees so much that arenas are mapped and unmapped all the time.
fn work(blocks: usize) {
    let blocks: Vec<_> = (0..blocks).map(|nth| alloc(nth % 512 + 1)).collect();
    blocks.into_iter().for_each(free);
}

/// Blocks of other threads, of which some have ended.
struct Inherited {
    of_the_living: Vec<Slot>,
    of_the_dead: Vec<Slot>,
}

fn slots(blocks: usize) -> Vec<Slot> {
    (0..blocks).map(|_| Slot::default()).collect()
}

fn put_blocks(slots: &[Slot]) {
    slots.iter().for_each(|slot| assert!(slot.swap(Some(alloc(100))).is_none()));
}

/// Works in a thread that the C library starts; `false` if it could not.
///
/// The standard library takes a lock of its own where a thread starts, and does not expect to be
/// forked: the child would wait for a thread that held it and is not there.
fn work_in_a_thread() -> bool {
    extern "C" fn main(_: *mut c_void) -> *mut c_void {
        work(MANY);
        ptr::null_mut()
    }
    started_and_joined(main)
}

/// Runs `main` in a thread that the C library starts; `false` if it could not.
fn started_and_joined(main: extern "C" fn(*mut c_void) -> *mut c_void) -> bool {
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the place for the thread's name is ours, and the function expects no argument.
    let started =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), main, ptr::null_mut()) };
    // SAFETY: it was started, so it has a name, and it is joined once.
    started == 0 && unsafe { libc::pthread_join(thread.assume_init(), ptr::null_mut()) } == 0
}

/// The blocks that a thread of [`frees_every_second_page`] frees.
static TO_FREE: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// Frees all of [`TO_FREE`] that lies on every second page, in a thread that the C library starts, and
/// gives back what can go. Returns `false` if no thread could be started.
fn frees_every_second_page() -> bool {
    extern "C" fn main(_: *mut c_void) -> *mut c_void {
        let blocks = mem::take(&mut *TO_FREE.lock().expect("nobody else locks it"));
        for block in blocks.into_iter().map(Block::check) {
            if block.start().addr().get() / 4096 % 2 == 0 {
                // SAFETY: the process's heaps gave the block, and it is given up.
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

/// The system joins a mapping that is made in a child with no mapping that the child inherited, so
/// that a purge must not make one for each range of pages.
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

/// Tells the busy threads to end, also when the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What a child does; 0 if all of it could be done.
fn live_as_a_child(inherited: &Inherited) -> i32 {
    work(MANY);
    for slot in inherited.of_the_living.iter().chain(&inherited.of_the_dead) {
        slot.swap(None).into_iter().for_each(free);
    }
    let worked = work_in_a_thread();
    work(MANY);
    i32::from(!worked)
}

/// Forks, and returns how the child ended.
fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls nothing but the heap and the C library, which expects to be forked.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: the alarm ends a child that hangs; `_exit` runs nobody's handlers.
            unsafe {
                libc::alarm(PATIENCE);
                libc::_exit(child())
            }
        }
        pid => {
            assert!(pid > 0, "no process could be had");
            let mut status = 0;
            // SAFETY: it waits for the child of this thread.
            unsafe { libc::waitpid(pid, &mut status, 0) };
            status
        }
    }
}

#[test]
fn the_child_of_a_busy_process_allocates_frees_and_starts_threads() {
    let inherited = Inherited { of_the_living: slots(100), of_the_dead: slots(100) };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| put_blocks(&inherited.of_the_dead)).join().expect("there is memory");
        let busy = || {
            put_blocks(&inherited.of_the_living[..]);
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

/// Blocks of the forking thread that another thread frees.
const FREED_ELSEWHERE: usize = 40_000;

/// Blocks that may be in the outbox of the other thread, or on their way from there.
const ON_THEIR_WAY: usize = 2 * 32;

#[test]
fn a_child_loses_no_block_to_a_thread_that_was_taking_an_inbox_over() {
    // No other test may use the heap of this thread, and it has to be new.
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
