//! The standard library's versions of the types and functions of this crate.

#![cfg_attr(not(test), forbid(unsafe_code))]

pub use core::sync::atomic;

/// A cell that lends its contents only to closures.
///
/// Loom's cell of the same name observes when each closure begins and ends.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// Creates a cell that contains `value`.
    #[inline]
    pub const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Calls `f` with a pointer for reading. Nothing may write to the contents while `f` runs.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Calls `f` with a pointer for reading and writing. Nothing else may access the cell while `f`
    /// runs.
    #[inline]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

#[cfg(feature = "std")]
mod hosted {
    pub use std::{sync::Arc, thread};

    #[cfg(not(tsan))]
    pub use std::sync::{Mutex, MutexGuard};

    #[cfg(tsan)]
    pub use crate::visible::{Mutex, MutexGuard, lock, try_lock};

    const RUNS: usize = if cfg!(miri) { 10 } else { 2_000 };

    /// Locks `mutex`. Ignores poisoning, because our code keeps the data of each lock consistent.
    #[cfg(not(tsan))]
    #[inline]
    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Like [`lock`], but returns `None` instead of waiting.
    #[cfg(not(tsan))]
    #[inline]
    pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        match mutex.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Runs `body` 2,000 times on real threads, or 10 times under Miri.
    ///
    /// Under `--cfg loom`, runs `body` once for every possible interleaving of its threads instead.
    ///
    /// # Panics
    ///
    /// Panics if a run of `body` panics.
    pub fn model(body: impl Fn() + Sync + Send + 'static) {
        for _ in 0..RUNS {
            body();
        }
    }

    /// Does nothing, because only loom reliably finds the bug in `body`.
    pub fn rejected(body: impl Fn() + Sync + Send + 'static) {
        drop(body);
    }
}

#[cfg(feature = "std")]
pub use hosted::*;

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::sync::Arc;

    use super::{Mutex, UnsafeCell, atomic::AtomicU32, lock, model};

    #[test]
    fn a_cell_gives_closures_access_to_its_contents() {
        let cell = UnsafeCell::new(1);
        // SAFETY: only this function has the cell.
        cell.with_mut(|value| unsafe { *value = 2 });
        // SAFETY: only this function has the cell.
        assert_eq!(cell.with(|value| unsafe { *value }), 2);
    }

    #[test]
    fn a_model_runs_its_body_many_times() {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        model(move || {
            counted.fetch_add(1, super::atomic::Ordering::Relaxed);
        });
        assert!(runs.load(super::atomic::Ordering::Relaxed) >= 10);
    }

    #[test]
    fn a_lock_can_be_taken_after_a_holder_panicked() {
        let mutex = Arc::new(Mutex::new(1));
        let held = Arc::clone(&mutex);
        let outcome = std::thread::spawn(move || {
            let _guard = lock(&held);
            panic!("this holder panics on purpose");
        })
        .join();
        assert!(outcome.is_err());
        assert_eq!(*lock(&mutex), 1);
    }
}
