//! A lock whose synchronisation ThreadSanitizer can observe.
//!
//! ThreadSanitizer observes only code that was compiled with it, and the standard library was not.
//! With `std::sync::Mutex`, it would therefore report races between accesses that the lock keeps
//! apart. Under `--cfg tsan` the lock of this module replaces the standard one. A waiting thread
//! yields in a loop, so the lock is meant for tests only.

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

/// A lock with those functions of `std::sync::Mutex` that the workspace uses.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    taken: AtomicBool,
    /// # Invariant
    ///
    /// The value is accessed only through a guard, and at most one guard exists at a time.
    value: UnsafeCell<T>,
}

// SAFETY: only the thread that has the guard accesses the value, and there is at most one guard.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// Creates an unlocked lock.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }
}

/// A guard that keeps its lock locked until the guard is dropped. Like the guard of the standard
/// library, it is not `Send`.
#[derive(Debug)]
pub struct MutexGuard<'l, T>(&'l Mutex<T>, PhantomData<*const ()>);

// SAFETY: a shared reference to a guard gives access to `&T` only.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one (invariant of `value`), and its own borrow rules out
        // conflicting references.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one (invariant of `value`), and its own borrow rules out
        // conflicting references.
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

/// Locks `mutex`, or returns `None` if it is already locked.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    // INVARIANT: the swap returned false, so the lock was unlocked and no other guard exists.
    (!mutex.taken.swap(true, Acquire)).then(|| MutexGuard(mutex, PhantomData))
}
