//! Loom, under the names of [`crate`].

pub use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex, MutexGuard, atomic},
    thread,
};

/// Locks `mutex`.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Explores every interleaving of `body`, within the bounds of loom's environment variables.
///
/// # Panics
///
/// When an interleaving of `body` panics, races, leaks or dead-locks.
pub fn model(body: impl Fn() + Sync + Send + 'static) {
    loom::model(body);
}

/// States that loom rejects `body`, a protocol that is wrong on purpose.
///
/// # Panics
///
/// When no interleaving of `body` fails.
pub fn rejected(body: impl Fn() + Sync + Send + 'static) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| loom::model(body)));
    assert!(outcome.is_err(), "loom accepts a protocol that is wrong on purpose");
}
