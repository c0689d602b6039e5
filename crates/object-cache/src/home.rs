//! The one seam in this crate: what an owning pointer must know about its cache.
//!
//! ```text
//!   Cached · CachedRc ──► Home      end this object's life
//!                           ├─ BareHome   bare storage: taken, then filled; emptied, then put
//!                           └─ HuskHome   a husk: a value that was made ready for its next life
//! ```
//!
//! A reference to a cache is a home; so is a handle of no size that finds the cache of the
//! running thread, as [`thread_cache!`](crate::thread_cache!) makes one.

use core::ptr::NonNull;

/// A cache, as the pointers that own its objects see it.
///
/// # Safety
///
/// An implementer promises that
///
/// - [`retire`](Self::retire) ends the object's life once, also when the value panics while it is
///   dropped;
/// - a clone is the same home, so an object taken from one may be retired and put to the other;
/// - storage stays valid as long as the home or a clone of it exists, and moving the home does not
///   affect it;
/// - if the home is `Send` or `Sync`, an object may be retired by another thread than took it.
pub unsafe trait Home<T> {
    /// Ends the life of the object: its value is dropped, or kept for reuse, and its storage is
    /// the cache's again.
    ///
    /// # Panics
    ///
    /// Panics when the value's own code does; the storage is not lost then.
    ///
    /// # Safety
    ///
    /// `object` came from this home or a copy of it, holds a live value, and is not used again.
    unsafe fn retire(&self, object: NonNull<T>);
}

/// A cache of bare storage.
///
/// # Safety
///
/// An implementer promises that what [`take`](Self::take) returns has the size and alignment of
/// a `T` and is the caller's alone until it is put or retired.
pub unsafe trait BareHome<T>: Home<T> {
    /// Takes storage, uninitialised: a dead object's, or new from the layer below. `None` when
    /// there is no memory.
    fn take(&self) -> Option<NonNull<T>>;

    /// Puts storage in which no value lives (any more).
    ///
    /// # Safety
    ///
    /// `storage` came from this home or a copy of it, holds no live value, and is not used again.
    unsafe fn put(&self, storage: NonNull<T>);
}

/// A cache of husks: values that are ready for their next life.
///
/// # Safety
///
/// As for [`BareHome`], and the returned storage holds a live value.
pub unsafe trait HuskHome<T>: Home<T> {
    /// Takes a husk, or makes a fresh value. `None` when there is no memory.
    fn revive(&self) -> Option<NonNull<T>>;
}

/// Drops the value of `object`, then puts its storage: what [`Home::retire`] is for a cache of
/// bare storage.
///
/// # Panics
///
/// Panics when dropping the value does; the storage is put all the same.
///
/// # Safety
///
/// As for [`Home::retire`].
#[inline]
pub unsafe fn drop_and_put<T, H: BareHome<T> + ?Sized>(home: &H, object: NonNull<T>) {
    // SAFETY: the storage is not used after the guard puts it, and by then its value is dropped.
    let _storage = unsafe { Vacant::new(home, object) };
    // SAFETY: the caller says that the value is live and not used again.
    unsafe { object.drop_in_place() };
}

/// Storage that no value lives in, on its way back: puts it when dropped, by an unwinding as well.
pub(crate) struct Vacant<'h, T, H: BareHome<T> + ?Sized> {
    home: &'h H,
    storage: NonNull<T>,
}

impl<'h, T, H: BareHome<T> + ?Sized> Vacant<'h, T, H> {
    /// # Safety
    ///
    /// `storage` came from `home`; when the guard is dropped no value lives in it, and it is not
    /// used again.
    #[inline]
    pub(crate) unsafe fn new(home: &'h H, storage: NonNull<T>) -> Self {
        Self { home, storage }
    }

    /// Moves `value` in: the storage is no longer vacant.
    #[inline]
    pub(crate) fn fill(self, value: T) -> NonNull<T> {
        let storage = self.storage;
        core::mem::forget(self);
        // SAFETY: the storage is as large and aligned as a `T`, and nobody else has it.
        unsafe { storage.write(value) };
        storage
    }
}

impl<T, H: BareHome<T> + ?Sized> Drop for Vacant<'_, T, H> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the promise that `new` was given.
        unsafe { self.home.put(self.storage) }
    }
}

// SAFETY: the referent's promise.
unsafe impl<T, H: Home<T> + ?Sized> Home<T> for &H {
    #[inline]
    unsafe fn retire(&self, object: NonNull<T>) {
        // SAFETY: the caller's promise; a reference is a copy of its referent's home.
        unsafe { (**self).retire(object) }
    }
}

// SAFETY: the referent's promise.
unsafe impl<T, H: BareHome<T> + ?Sized> BareHome<T> for &H {
    #[inline]
    fn take(&self) -> Option<NonNull<T>> {
        (**self).take()
    }

    #[inline]
    unsafe fn put(&self, storage: NonNull<T>) {
        // SAFETY: the caller's promise.
        unsafe { (**self).put(storage) }
    }
}

// SAFETY: the referent's promise.
unsafe impl<T, H: HuskHome<T> + ?Sized> HuskHome<T> for &H {
    #[inline]
    fn revive(&self) -> Option<NonNull<T>> {
        (**self).revive()
    }
}
