//! A lock that ThreadSanitizer sees.
//!
//! The standard library's is compiled without it, so that what a contended lock orders would look
//! like a race. Under `--cfg tsan` this one takes its place; it waits by yielding, and is not for
//! programs.

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

/// A lock, with the names of `std::sync::Mutex` that are used.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    taken: AtomicBool,
    /// # Invariant
    ///
    /// Reached by the guard alone, of which there is at most one.
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by one thread at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// A lock that nobody has taken.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }
}

/// Who has taken a lock. As the standard library's, it stays in its thread.
#[derive(Debug)]
pub struct MutexGuard<'l, T>(&'l Mutex<T>, PhantomData<*const ()>);

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the invariant of `value`.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the invariant of `value`.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.0.taken.store(false, Release);
    }
}

/// Takes `mutex`.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    while mutex.taken.swap(true, Acquire) {
        yield_now();
    }
    // INVARIANT: nobody else has taken it.
    MutexGuard(mutex, PhantomData)
}

/// Locks `mutex`, unless another thread has locked it.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    // INVARIANT: nobody else has taken it.
    (!mutex.taken.swap(true, Acquire)).then(|| MutexGuard(mutex, PhantomData))
}
