//! Loom's versions of the types and functions of this crate.

#![forbid(unsafe_code)]

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc as StdArc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

pub use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex, MutexGuard, atomic},
};

/// Locks `mutex`.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Like [`lock`], but returns `None` instead of waiting.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().ok()
}

/// Loom's threads. A test may start at most four of them.
pub mod thread {
    pub use loom::thread::*;

    /// Starts a thread of the model, and counts it for the report of [`model`](super::model).
    pub fn spawn<F, T>(body: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        super::SPAWNED.set(super::SPAWNED.get() + 1);
        loom::thread::spawn(body)
    }
}

thread_local! {
    /// The number of threads that this execution has started. They share one real thread.
    static SPAWNED: Cell<usize> = const { Cell::new(0) };
}

/// Runs `body` once for every possible interleaving of its threads.
///
/// Loom finds further interleavings by reversing the order of two conflicting accesses to an atomic
/// by different threads. Loom 0.7 compares each access only with the access before it. If a thread
/// loads an atomic and then stores to it, loom compares the store with this thread's own load, and
/// does not reverse the order of the store and an earlier load by another thread. To avoid this
/// problem, let the main thread perform the store. Loom runs the main thread first, so no other
/// thread has accessed the atomic before the store.
///
/// # Panics
///
/// Panics if `body` panics, has a data race, leaks or deadlocks in any interleaving.
pub fn model(body: impl Fn() + Sync + Send + 'static) {
    let explored = StdArc::new(Explored::default());
    explore(&explored, body);
    explored.report("accepted");
}

/// Asserts that loom finds a bug in `body`.
///
/// # Panics
///
/// Panics unless loom finds a data race or a failed assertion. Deadlocks and leaks do not count.
pub fn rejected(body: impl Fn() + Sync + Send + 'static) {
    let explored = StdArc::new(Explored::default());
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| explore(&explored, body))) else {
        panic!("loom accepted a protocol that is wrong on purpose");
    };
    let reason = reason_of(&*panic);
    for other in OTHER_REASONS {
        assert!(!reason.contains(other), "loom rejected the protocol for another reason: {reason}");
    }
    explored.report("rejected");
}

/// Parts of the messages with which loom reports errors that [`rejected`] does not accept.
const OTHER_REASONS: [&str; 5] = [
    "Model exceeded maximum number of branches",
    "deadlock",
    "leaked",
    "loom internal",
    "outside a Loom model",
];

fn reason_of(panic: &dyn Any) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

fn explore(explored: &StdArc<Explored>, body: impl Fn() + Sync + Send + 'static) {
    let explored = StdArc::clone(explored);
    loom::model(move || {
        SPAWNED.set(0);
        explored.executions.fetch_add(1, Relaxed);
        body();
        explored.threads.fetch_max(1 + SPAWNED.get(), Relaxed);
    });
}

struct Explored {
    started: Instant,
    executions: AtomicUsize,
    threads: AtomicUsize,
}

impl Default for Explored {
    fn default() -> Self {
        Self { started: Instant::now(), executions: 0.into(), threads: 0.into() }
    }
}

impl Explored {
    /// Prints one line of results, from which `cargo xtask loom` makes a table.
    fn report(&self, verdict: &str) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let executions = self.executions.load(Relaxed);
        // A rejected execution panics before it updates `threads`, so we also look at `SPAWNED`.
        let threads = self.threads.load(Relaxed).max(1 + SPAWNED.get());
        let milliseconds = self.started.elapsed().as_millis();
        println!("model {name} {verdict} {executions} {threads} {milliseconds}");
    }
}
