//! A lock that ThreadSanitizer can observe.
//!
//! The standard library is compiled without ThreadSanitizer, so what its lock orders would look
//! like a race. Under `--cfg tsan` this lock replaces it. It waits by yielding, so it is meant for
//! tests only.

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

/// A lock with the functions of `std::sync::Mutex` that we use.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    taken: AtomicBool,
    /// # Invariant
    ///
    /// Accessed only through the guard. At most one guard exists.
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time accesses the value.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// Creates an unlocked lock.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }
}

/// Keeps a lock locked until it is dropped. It is not `Send`, like the standard library's.
#[derive(Debug)]
pub struct MutexGuard<'l, T>(&'l Mutex<T>, PhantomData<*const ()>);

// SAFETY: a shared guard lends `&T` only.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this is the only guard (invariant of `value`).
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only guard (invariant of `value`).
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
    // INVARIANT: the swap found the lock unlocked, so there is no other guard.
    MutexGuard(mutex, PhantomData)
}

/// Locks `mutex`, or returns `None` if it is locked.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    // INVARIANT: the swap found the lock unlocked, so there is no other guard.
    (!mutex.taken.swap(true, Acquire)).then(|| MutexGuard(mutex, PhantomData))
}
