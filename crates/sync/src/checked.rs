//! Loom, under the names of [`crate`].

pub use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex, MutexGuard, atomic},
    thread,
};

/// A mark inside an object that one thread makes and others find.
#[derive(Debug, Default)]
pub struct Made(UnsafeCell<()>);

impl Made {
    /// The mark of an object that is being made.
    pub fn new() -> Self {
        let mark = Self(UnsafeCell::new(()));
        mark.0.with_mut(|_| ());
        mark
    }

    /// States that the making is seen here: loom fails a read that races with the write above.
    pub fn seen(&self) {
        self.0.with(|_| ());
    }
}

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
