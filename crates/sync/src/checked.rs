//! Loom, under the names of [`crate`].

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex, MutexGuard, atomic},
    thread,
};

/// Locks `mutex`.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
    let executions = std::sync::Arc::new(AtomicUsize::new(0));
    explore(&executions, body);
    report("accepted", &executions);
}

/// States that loom rejects `body`, a protocol that is wrong on purpose.
///
/// # Panics
///
/// When no interleaving of `body` fails.
pub fn rejected(body: impl Fn() + Sync + Send + 'static) {
    let executions = std::sync::Arc::new(AtomicUsize::new(0));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        explore(&executions, body);
    }));
    assert!(outcome.is_err(), "loom accepts a protocol that is wrong on purpose");
    report("rejected", &executions);
}

/// Explores `body`, counting executions.
fn explore(executions: &std::sync::Arc<AtomicUsize>, body: impl Fn() + Sync + Send + 'static) {
    let executions = std::sync::Arc::clone(executions);
    loom::model(move || {
        executions.fetch_add(1, Relaxed);
        body();
    });
}

/// One line for each model: `cargo xtask loom` makes a table of them.
fn report(verdict: &str, executions: &AtomicUsize) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed");
    println!("model {name} {verdict} {}", executions.load(Relaxed));
}
