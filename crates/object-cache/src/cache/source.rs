//! Sources, which provide the storage for the objects of owning pointers.

use core::{mem, ptr::NonNull};

/// A source of storage for objects of type `T`.
///
/// [`Cached`](crate::Cached) and [`CachedRc`](crate::CachedRc) take the storage for a value from a
/// source, and return it to the source when they drop the value. A reference to a cache is a
/// source. A zero-sized type that finds the calling thread's cache can be a source too.
/// [`thread_cache!`](crate::thread_cache!) declares such a type.
///
/// # Safety
///
/// An implementer must guarantee the following:
///
/// - [`take`](Self::take) returns storage with the size and alignment of a `T`. The caller owns
///   that storage exclusively until it returns the storage with [`put`](Self::put).
/// - The storage stays valid while the source or a clone of the source exists, even if the source
///   is moved.
/// - A clone behaves as the same source as the original. Storage that was taken from one of them
///   may be returned to the other.
/// - If the source is `Send` or `Sync`, one thread may return storage that another thread has
///   taken.
pub unsafe trait StorageSource<T> {
    /// Takes uninitialised storage for a `T`.
    ///
    /// Returns `None` if the allocation fails, or if the allocated storage is insufficiently
    /// aligned for a `T`.
    fn take(&self) -> Option<NonNull<T>>;

    /// Returns storage to the source. The storage must hold no live value. The caller must have
    /// dropped the value or moved it out, unless it never wrote a value.
    ///
    /// # Safety
    ///
    /// - `storage` must have been taken from this source or a clone of it.
    /// - `storage` must not hold a live value, and must not be used again.
    unsafe fn put(&self, storage: NonNull<T>);
}

// SAFETY: every call goes to the source behind the reference, which gives the guarantees of this
// trait.
unsafe impl<T, S: StorageSource<T> + ?Sized> StorageSource<T> for &S {
    #[inline]
    fn take(&self) -> Option<NonNull<T>> {
        (**self).take()
    }

    #[inline]
    unsafe fn put(&self, storage: NonNull<T>) {
        // SAFETY: the storage came from the source behind the reference (contract of `put`).
        unsafe { (**self).put(storage) }
    }
}

/// Drops the value of `object`, then returns its storage to `source`. The storage is returned even
/// if the destructor of the value panics.
///
/// # Safety
///
/// - `object` must have been taken from `source` or a clone of it.
/// - `object` must hold a live value, and must not be used again.
#[inline]
pub(crate) unsafe fn drop_and_put<T>(source: &impl StorageSource<T>, object: NonNull<T>) {
    // SAFETY: `object` came from `source` (contract). The guard is dropped at the end of this
    // function, after `drop_in_place` has dropped the value.
    let _vacant = unsafe { Vacant::new(source, object) };
    // SAFETY: the value is live and is not used again (contract).
    unsafe { object.drop_in_place() };
}

/// Takes storage from `source`, and moves the result of `make` into it. If the allocation fails,
/// returns `None` without calling `make`. If `make` panics, the storage goes back to `source`.
#[inline]
pub(crate) fn take_and_fill<T>(
    source: &impl StorageSource<T>,
    make: impl FnOnce() -> T,
) -> Option<NonNull<T>> {
    let storage = source.take()?;
    // SAFETY: the storage has just come from `source`, and holds no value while the guard exists.
    let vacant = unsafe { Vacant::new(source, storage) };
    let value = make();
    mem::forget(vacant);
    // SAFETY: the storage is large enough for a `T` and aligned for it. Nothing else uses it.
    unsafe { storage.write(value) };
    Some(storage)
}

/// A guard for storage that holds no value. Dropping the guard returns the storage to its source.
struct Vacant<'s, T, S: StorageSource<T>> {
    source: &'s S,
    storage: NonNull<T>,
}

impl<'s, T, S: StorageSource<T>> Vacant<'s, T, S> {
    /// # Safety
    ///
    /// - `storage` must have been taken from `source` or a clone of it.
    /// - When the guard is dropped, `storage` must not hold a live value. `storage` must not be
    ///   used afterwards.
    #[inline]
    unsafe fn new(source: &'s S, storage: NonNull<T>) -> Self {
        Self { source, storage }
    }
}

impl<T, S: StorageSource<T>> Drop for Vacant<'_, T, S> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the storage came from `source` and holds no value (contract of `new`).
        unsafe { self.source.put(self.storage) }
    }
}
