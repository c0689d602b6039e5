//! The standard library, under the names of [`crate`].

pub use core::sync::atomic;

/// A cell whose contents are reached through closures only, so that a model sees each access.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    #[inline]
    pub const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Calls `f` with a pointer for reading. The caller of the pointer keeps Rust's rules: nobody
    /// writes meanwhile.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Calls `f` with a pointer for writing. The caller of the pointer keeps Rust's rules: nobody
    /// else reads or writes meanwhile.
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

    /// Locks `mutex`. A panic of another holder is no reason to refuse: what the lock guards is
    /// consistent between any two statements of ours.
    #[cfg(not(tsan))]
    #[inline]
    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Locks `mutex`, unless another thread has locked it. As for [`lock`], a panic of another
    /// holder is no reason to refuse.
    #[cfg(not(tsan))]
    #[inline]
    pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        match mutex.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Runs `body` many times on real threads: 2,000 times, 10 under Miri.
    ///
    /// Under loom it is explored instead, one run for each interleaving.
    ///
    /// # Panics
    ///
    /// When `body` panics.
    pub fn model(body: impl Fn() + Sync + Send + 'static) {
        let runs = if cfg!(miri) { 10 } else { 2_000 };
        for _ in 0..runs {
            body();
        }
    }

    /// States that loom rejects `body`, a protocol that is wrong on purpose.
    ///
    /// Only an exhaustive search can keep that promise, so on real threads nothing runs.
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
    fn a_cell_gives_its_contents_to_closures() {
        let cell = UnsafeCell::new(1);
        // SAFETY: the cell is this function's alone.
        cell.with_mut(|value| unsafe { *value = 2 });
        // SAFETY: the cell is this function's alone.
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
    fn a_lock_whose_holder_panicked_can_still_be_taken() {
        let mutex = Arc::new(Mutex::new(1));
        let held = Arc::clone(&mutex);
        let outcome = std::thread::spawn(move || {
            let _guard = lock(&held);
            panic!("a holder that panics");
        })
        .join();
        assert!(outcome.is_err());
        assert_eq!(*lock(&mutex), 1);
    }
}
