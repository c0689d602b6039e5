//! A lock whose synchronisation ThreadSanitizer can observe.
//!
//! ThreadSanitizer observes only code that was compiled with it. The standard library was not, so
//! ThreadSanitizer does not see that `std::sync::Mutex` synchronises threads. It would report data
//! races between accesses that the mutex orders. Under `--cfg tsan` the lock of this module
//! therefore replaces the mutex of the standard library. A thread that waits for this lock yields
//! in a loop, so the lock is meant only for tests.

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

/// A lock that offers the functions of `std::sync::Mutex` that the workspace uses.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    taken: AtomicBool,
    /// # Invariant
    ///
    /// The value is accessed only through a guard, and at most one guard exists at a time.
    value: UnsafeCell<T>,
}

// SAFETY: the value is accessed only through a guard, and at most one guard exists at a time, so no
// two threads access the value at the same time.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// Creates an unlocked lock.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }
}

/// A guard that keeps its lock locked until the guard is dropped. Like the guard of the standard
/// library's mutex, it is not `Send`.
#[derive(Debug)]
pub struct MutexGuard<'l, T>(&'l Mutex<T>, PhantomData<*const ()>);

// SAFETY: a shared reference to a guard gives access to `&T` only.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: no other guard of the lock exists (invariant of `value`). The returned reference
        // borrows this guard, so no conflicting reference exists.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: no other guard of the lock exists (invariant of `value`). The returned reference
        // borrows this guard, so no conflicting reference exists.
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
    // INVARIANT: the swap returned false, so the lock was unlocked and no other guard exists.
    MutexGuard(mutex, PhantomData)
}

/// Locks `mutex`, or returns `None` if the mutex is already locked.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    // INVARIANT: the swap returned false, so the lock was unlocked and no other guard exists.
    (!mutex.taken.swap(true, Acquire)).then(|| MutexGuard(mutex, PhantomData))
}
