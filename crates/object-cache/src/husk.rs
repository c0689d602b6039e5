//! A husk: the storage of a value that keeps what it owns between two lives.
//!
//! ```text
//!   storage:   ┌──────┬──────────────────────────┐
//!              │ link │ value: live, or a husk   │
//!              └──────┴──────────────────────────┘
//! ```
//!
//! A husk is a live value, so the link stands beside it and not in its place.

use core::{mem::offset_of, ptr::NonNull};

use raw_mem::MemAlloc;

use crate::{link::Link, storage::Storage};

/// One object's storage.
pub(crate) struct Husk<T> {
    next: Option<NonNull<Husk<T>>>,
    value: T,
}

impl<T> Husk<T> {
    /// What is asked for below.
    pub(crate) const STORAGE: Storage = Storage::of::<Self>();

    /// Where the value of `husk` is, or will be.
    ///
    /// # Safety
    ///
    /// `husk` is storage for a `Husk<T>`.
    pub(crate) unsafe fn value(husk: NonNull<Self>) -> NonNull<T> {
        // SAFETY: the offset of a field is inside the storage.
        unsafe { husk.byte_add(offset_of!(Self, value)).cast() }
    }

    /// The storage of a value.
    ///
    /// # Safety
    ///
    /// `value` came from [`value`](Self::value).
    pub(crate) unsafe fn of(value: NonNull<T>) -> NonNull<Self> {
        // SAFETY: the caller's promise: the storage begins that much before the value.
        unsafe { value.byte_sub(offset_of!(Self, value)).cast() }
    }
}

impl<T> Link for Husk<T> {
    unsafe fn set_next(this: NonNull<Self>, next: Option<NonNull<Self>>) {
        // SAFETY: the caller owns the storage; the value beside the link is not touched.
        unsafe { (&raw mut (*this.as_ptr()).next).write(next) }
    }

    unsafe fn next(this: NonNull<Self>) -> Option<NonNull<Self>> {
        // SAFETY: as in `set_next`, which has initialised the link.
        unsafe { (&raw const (*this.as_ptr()).next).read() }
    }
}

/// Storage that is given down when dropped, by an unwinding as well.
pub(crate) struct Emptied<'l, T, A: MemAlloc> {
    lower: &'l A,
    storage: NonNull<Husk<T>>,
}

impl<'l, T, A: MemAlloc> Emptied<'l, T, A> {
    /// # Safety
    ///
    /// `storage` came from `lower`; when the guard is dropped its value is not live, and it is
    /// not used again.
    pub(crate) unsafe fn new(lower: &'l A, storage: NonNull<Husk<T>>) -> Self {
        Self { lower, storage }
    }
}

impl<T, A: MemAlloc> Drop for Emptied<'_, T, A> {
    fn drop(&mut self) {
        // SAFETY: the promise that `new` was given.
        unsafe { self.lower.free(Some(self.storage.cast())) }
    }
}
