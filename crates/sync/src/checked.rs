//! Loom, under the names of [`crate`].

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

/// Locks `mutex`, unless another thread has locked it.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().ok()
}

/// Threads under loom: at most four beside the main one.
pub mod thread {
    pub use loom::thread::*;

    /// Starts a thread of the model, and counts it for the model's report.
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
    /// Threads that the present execution has started. Loom runs all of them on one of std's.
    static SPAWNED: Cell<usize> = const { Cell::new(0) };
}

/// Explores every interleaving of `body`, within the bounds of loom's environment variables, and
/// prints how many there were.
///
/// Loom 0.7 remembers one access for each atomic, so a thread's own load can hide another's load
/// from the store that follows: put the thread that stores on the main thread, where it comes
/// first, and see that more than one execution was explored.
///
/// # Panics
///
/// When an interleaving of `body` panics, races, leaks or dead-locks.
pub fn model(body: impl Fn() + Sync + Send + 'static) {
    let explored = StdArc::new(Explored::default());
    explore(&explored, body);
    explored.report("accepted");
}

/// States that loom rejects `body`, a protocol that is wrong on purpose: that an interleaving of it
/// races, or fails an assertion of its own.
///
/// # Panics
///
/// When no interleaving of `body` fails, or one fails for another reason.
pub fn rejected(body: impl Fn() + Sync + Send + 'static) {
    let explored = StdArc::new(Explored::default());
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| explore(&explored, body))) else {
        panic!("loom accepts a protocol that is wrong on purpose");
    };
    let reason = reason_of(&*panic);
    for other in OTHER_REASONS {
        assert!(!reason.contains(other), "rejected for another reason: {reason}");
    }
    explored.report("rejected");
}

/// What loom says of a model that is wrong in other ways than the one it is about.
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

/// What an exploration came to.
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
    /// One line for each model, of which `cargo xtask loom` makes a table: its name, the verdict,
    /// executions, threads, milliseconds.
    fn report(&self, verdict: &str) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let executions = self.executions.load(Relaxed);
        // An execution that was rejected did not come to its end.
        let threads = self.threads.load(Relaxed).max(1 + SPAWNED.get());
        let milliseconds = self.started.elapsed().as_millis();
        println!("model {name} {verdict} {executions} {threads} {milliseconds}");
    }
}
