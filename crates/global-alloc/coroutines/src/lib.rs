//! Coroutines that allocate on one thread, and then continue on another (field F1).
//!
//! The allocator finds a thread's heap through a thread-local variable. The compiler may keep the
//! address of this variable in a register while a coroutine switches. If the coroutine then
//! continues on another thread, the allocator may use the heap of the old thread.
//!
//! The tests can fail only where the compiler optimises across the switch. `cargo xtask test-all`
//! therefore also runs release builds.
//!
//! `OBMALLOC_COROUTINE_RUNS` sets how often each test repeats its work. The default is 3.

#![cfg(all(test, unix, not(miri)))]

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, Once,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use corosensei::{Coroutine, CoroutineResult};
use generator::{Generator, Gn};

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

const WORKERS: usize = 4;
/// The number of tasks of `may`.
const TASKS: u64 = 400;
/// The number of tasks in the tests that move every task at every switch.
const MOVED_TASKS: u64 = 100;
const STEPS: u64 = 200;

/// A task that holds more than `HELD` blocks drops `DROPPED` of them.
const HELD: usize = 40;
const DROPPED: usize = 30;

/// Allocates two blocks in each step, switches after each block, and checks each block before it is
/// dropped.
///
/// This function is inlined into its caller, so that one function allocates both before and after a
/// switch.
#[inline(always)]
fn allocate_between_switches(task: u64, mut switch: impl FnMut()) {
    let mut held: Vec<Box<[u64; 6]>> = Vec::new();
    for step in 0..STEPS {
        held.push(Box::new([task << 32 | step; 6]));
        switch();
        held.push(Box::new([task << 32 | step; 6]));
        switch();
        if held.len() > HELD {
            held.drain(..DROPPED).for_each(|block| check(task, &block));
        }
    }
    held.drain(..).for_each(|block| check(task, &block));
}

fn check(task: u64, block: &[u64; 6]) {
    assert!(block.iter().all(|word| *word == block[0]), "two tasks share a block: {block:x?}");
    assert_eq!(block[0] >> 32, task, "the block of another task");
}

fn repeat(run: impl Fn()) {
    let runs = std::env::var("OBMALLOC_COROUTINE_RUNS").ok();
    let runs = runs.map_or(3, |runs| runs.parse().expect("a number of runs"));
    (0..runs).for_each(|_| run());
}

/// A coroutine that any thread may resume.
trait Task: Send {
    /// Runs the task to its next switch. Returns false if it has ended.
    fn resume(&mut self) -> bool;
}

/// Runs all `tasks` on `WORKERS` threads. At each switch a task moves to the next thread.
fn run_on_all_workers(tasks: impl Iterator<Item = Box<dyn Task>>) {
    let queues = [const { Mutex::new(VecDeque::new()) }; WORKERS];
    for (place, task) in tasks.enumerate() {
        lock(&queues[place % WORKERS]).push_back(task);
    }
    let running = AtomicUsize::new(MOVED_TASKS as usize);
    let work = |place: usize| {
        let _stop = StopOnPanic(&running);
        while running.load(Relaxed) > 0 {
            let next = lock(&queues[place]).pop_front();
            let Some(mut task) = next else {
                thread::yield_now();
                continue;
            };
            if task.resume() {
                lock(&queues[(place + 1) % WORKERS]).push_back(task);
            } else {
                running.fetch_sub(1, Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        let work = &work;
        (0..WORKERS).for_each(|place| drop(scope.spawn(move || work(place))));
    });
}

fn lock<T>(queue: &Mutex<T>) -> MutexGuard<'_, T> {
    queue.lock().expect("no thread panics while it holds a queue")
}

/// Makes the other threads stop when one of them panics.
struct StopOnPanic<'a>(&'a AtomicUsize);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(0, Relaxed);
        }
    }
}

#[test]
fn tasks_of_may_allocate_on_every_thread_that_they_move_to() {
    static CONFIGURED: Once = Once::new();
    CONFIGURED.call_once(|| {
        may::config().set_workers(WORKERS);
    });
    repeat(|| {
        let start = |task| {
            let body = move || allocate_between_switches(task, may::coroutine::yield_now);
            // SAFETY: the body uses no thread-locals of its own and little stack.
            unsafe { may::coroutine::spawn(body) }
        };
        let tasks: Vec<_> = (0..TASKS).map(start).collect();
        tasks.into_iter().for_each(|task| task.join().expect("every block was intact"));
    });
}

impl Task for Generator<'static, (), ()> {
    fn resume(&mut self) -> bool {
        Generator::resume(self).is_some() && !self.is_done()
    }
}

#[test]
fn generators_allocate_on_every_thread_that_resumes_them() {
    repeat(|| {
        run_on_all_workers((0..MOVED_TASKS).map(|task| -> Box<dyn Task> {
            Box::new(Gn::new_scoped(move |mut scope| {
                allocate_between_switches(task, || {
                    scope.yield_(());
                });
                generator::done!()
            }))
        }));
    });
}

/// A coroutine of `corosensei`, which is not `Send` because its stack can hold any value.
struct Movable(Coroutine<(), (), ()>);

// SAFETY: its stack holds numbers and blocks of the global allocator, which any thread may use.
unsafe impl Send for Movable {}

impl Task for Movable {
    fn resume(&mut self) -> bool {
        matches!(self.0.resume(()), CoroutineResult::Yield(()))
    }
}

#[test]
fn coroutines_of_corosensei_allocate_on_every_thread_that_resumes_them() {
    repeat(|| {
        run_on_all_workers((0..MOVED_TASKS).map(|task| -> Box<dyn Task> {
            Box::new(Movable(Coroutine::new(move |yielder, ()| {
                allocate_between_switches(task, || yielder.suspend(()));
            })))
        }));
    });
}
