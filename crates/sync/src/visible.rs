//! A spin lock for tests under ThreadSanitizer.
//!
//! With `std::sync::Mutex`, ThreadSanitizer would report races that do not exist, because the
//! standard library is compiled without it.

use std::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
    thread::yield_now,
};

/// A spin lock that replaces `std::sync::Mutex` under `--cfg tsan`.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    taken: AtomicBool,
    /// # Invariant
    ///
    /// The value is accessed only through a guard, and at most one guard exists at a time.
    value: UnsafeCell<T>,
}

// SAFETY: only guards access the value, and at most one exists at a time (invariant of `value`).
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// Creates an unlocked mutex.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }
}

/// A guard that unlocks its mutex when it is dropped. It is not `Send`, as in `std`.
#[derive(Debug)]
pub struct MutexGuard<'l, T>(&'l Mutex<T>, PhantomData<*const ()>);

// SAFETY: a shared reference to a guard gives access only to a `&T`.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one (invariant of `value`), and the reference borrows it.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one (invariant of `value`), and the reference borrows it.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.0.taken.store(false, Release);
    }
}

/// Locks `mutex`.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    while mutex.taken.swap(true, Acquire) {
        yield_now();
    }
    // INVARIANT: the swap returned false, so no other guard exists.
    MutexGuard(mutex, PhantomData)
}

/// Like [`lock`], but returns `None` instead of waiting.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    // INVARIANT: the swap returned false, so no other guard exists.
    (!mutex.taken.swap(true, Acquire)).then(|| MutexGuard(mutex, PhantomData))
}
