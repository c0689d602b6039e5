//! Coroutines that allocate on one thread, switch, and continue on another (field F1).
//!
//! The compiler may keep the address of a thread-local in a register across a switch, because it
//! does not know that the code after the switch may run on another thread. An allocator that reads
//! its heap through such an address uses the heap of a thread that is running elsewhere.
//!
//! The tests can only fail where the compiler optimises across the switch, so `cargo xtask
//! test-all` also runs them in release builds. `OBMALLOC_COROUTINE_RUNS` is how often each test
//! repeats its work; the default is 3.

#![cfg(all(test, unix, not(miri)))]

use std::{
    collections::VecDeque,
    sync::{Mutex, Once},
    thread::{self, ThreadId},
};

use corosensei::{Coroutine, CoroutineResult};
use generator::{Generator, Gn};

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

const WORKERS: usize = 4;
const TASKS: u64 = 400;
const STEPS: u64 = 200;

/// Blocks that a task drops together, once it holds more than `MOST_HELD`.
const DROPPED: usize = 30;
const MOST_HELD: usize = 40;

/// Allocates two blocks in each step, with a switch after each block, and checks every block when
/// it is freed.
///
/// It is inlined so that a switch stands between two allocations of the same function.
#[inline(always)]
fn allocate_between_switches(task: u64, mut switch: impl FnMut()) {
    let mut held: Vec<Box<[u64; 6]>> = Vec::new();
    for step in 0..STEPS {
        held.push(Box::new([task << 32 | step; 6]));
        switch();
        held.push(Box::new([task << 32 | step; 6]));
        switch();
        if held.len() > MOST_HELD {
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

/// Runs all `tasks` on `WORKERS` threads. Every task goes to the end of a shared queue when it
/// switches, so the next thread that is free resumes it.
fn run_on_all_workers(tasks: impl Iterator<Item = Box<dyn Task>>) {
    let queue: Mutex<VecDeque<_>> =
        Mutex::new(tasks.map(|task| (task, None::<ThreadId>)).collect());
    let work = || {
        let mut migrations = 0;
        loop {
            let Some((mut task, before)) = queue.lock().unwrap().pop_front() else {
                return migrations;
            };
            let here = thread::current().id();
            migrations += usize::from(before.is_some_and(|before| before != here));
            if task.resume() {
                queue.lock().unwrap().push_back((task, Some(here)));
            }
        }
    };
    let migrations: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("no block was damaged")).sum()
    });
    assert!(migrations > 0, "no task ever moved to another thread");
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
            // SAFETY: the body uses no thread-local of its own, and needs little stack.
            unsafe { may::coroutine::spawn(body) }
        };
        let tasks: Vec<_> = (0..TASKS).map(start).collect();
        tasks.into_iter().for_each(|task| task.join().expect("no block was damaged"));
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
        run_on_all_workers((0..TASKS).map(|task| -> Box<dyn Task> {
            Box::new(Gn::new_scoped(move |mut scope| {
                allocate_between_switches(task, || {
                    scope.yield_(());
                });
                generator::done!()
            }))
        }));
    });
}

/// A coroutine of `corosensei`, which is not `Send` because of what its stack may hold.
struct Movable(Coroutine<(), (), ()>);

// SAFETY: what is on its stack are blocks of the global allocator and numbers, which may be used
// on any thread.
unsafe impl Send for Movable {}

impl Task for Movable {
    fn resume(&mut self) -> bool {
        matches!(self.0.resume(()), CoroutineResult::Yield(()))
    }
}

#[test]
fn coroutines_of_corosensei_allocate_on_every_thread_that_resumes_them() {
    repeat(|| {
        run_on_all_workers((0..TASKS).map(|task| -> Box<dyn Task> {
            Box::new(Movable(Coroutine::new(move |yielder, ()| {
                allocate_between_switches(task, || yielder.suspend(()));
            })))
        }));
    });
}
