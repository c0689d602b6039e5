//! The implementation of [`crate`]'s names by loom.

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

/// Locks `mutex`, or returns `None` if the mutex is already locked.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().ok()
}

/// Loom's threads. Loom supports at most four of them beside the main one.
pub mod thread {
    pub use loom::thread::*;

    /// Starts a thread of the model, and counts the thread for the report that
    /// [`model`](super::model) prints.
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
    /// How many threads the current execution of the model has started. Loom runs all threads of a
    /// model on one real thread, so all of them share this thread-local.
    static SPAWNED: Cell<usize> = const { Cell::new(0) };
}

/// Explores every interleaving of the threads that `body` starts, within the bounds that loom's
/// environment variables set. Prints how many executions were explored.
///
/// Loom 0.7 remembers only the last access to each atomic. To find out which accesses could also
/// happen in the opposite order, it compares each access with this last one. If thread A loads an
/// atomic, and thread B then loads and stores it, the load by B hides the load by A. Loom then does
/// not explore the order in which the store by B comes before the load by A. To avoid this, let the
/// main thread do the stores, because it runs first, and check that more than one execution was
/// explored.
///
/// # Panics
///
/// Panics if `body` panics, has a data race, leaks or deadlocks in any interleaving.
pub fn model(body: impl Fn() + Sync + Send + 'static) {
    let explored = StdArc::new(Explored::default());
    explore(&explored, body);
    explored.report("accepted");
}

/// Asserts that loom rejects `body`, which contains an error on purpose. In at least one
/// interleaving, `body` must have a data race or fail one of its assertions.
///
/// # Panics
///
/// Panics if no interleaving of `body` fails, or if an interleaving fails for a reason other than a
/// data race or an assertion, such as a deadlock.
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

/// Parts of the messages with which loom reports errors other than data races and failed
/// assertions. [`rejected`] does not accept such errors.
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

/// The figures about the exploration of one model.
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
    /// Prints the name of the model, the verdict, the number of executions, the number of threads,
    /// and the time in milliseconds. `cargo xtask loom` makes a table of these lines.
    fn report(&self, verdict: &str) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let executions = self.executions.load(Relaxed);
        // An execution that loom rejects ends in a panic before its number of threads is recorded
        // in `threads`. We therefore also consider `SPAWNED`, the number of threads that this
        // execution has started.
        let threads = self.threads.load(Relaxed).max(1 + SPAWNED.get());
        let milliseconds = self.started.elapsed().as_millis();
        println!("model {name} {verdict} {executions} {threads} {milliseconds}");
    }
}
