use core::{mem, ptr::NonNull};

/// A source of storage for objects of type `T`, such as a cache or a reference to a cache.
///
/// # Safety
///
/// - [`take`](Self::take) must return storage with the size and alignment of a `T`. The caller owns
///   the storage exclusively until it calls [`put`](Self::put).
/// - Storage must stay valid while the source or a clone of it exists, even if the source moves.
/// - Storage that was taken from a source may be returned to a clone of it, and vice versa.
/// - If the source is `Send` or `Sync`, one thread may return storage that another has taken.
pub unsafe trait StorageSource<T> {
    /// Takes uninitialised storage for a `T`.
    ///
    /// Returns `None` if the allocation fails, or if the block is not aligned for a `T`.
    fn take(&self) -> Option<NonNull<T>>;

    /// Returns storage to the source.
    ///
    /// # Safety
    ///
    /// - This source, or a clone of it, must have returned `storage` from [`take`](Self::take).
    /// - Any value that was in `storage` must already have been dropped or moved out.
    /// - The caller must not use `storage` after this call.
    unsafe fn put(&self, storage: NonNull<T>);
}

// SAFETY: the source behind the reference gives the guarantees of this trait.
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

/// Drops the value of `object`, and returns its storage to `source` even if the destructor panics.
///
/// # Safety
///
/// - `object` must point to a live value.
/// - The memory of the value must have come from [`take`](StorageSource::take) of `source`, or of a
///   clone of `source`.
/// - The caller must not use the value or its memory after this call.
#[inline]
pub(crate) unsafe fn drop_and_put<T>(source: &impl StorageSource<T>, object: NonNull<T>) {
    // SAFETY: `object` came from `source` (contract). `drop_in_place` runs before the guard's drop.
    let _vacant = unsafe { Vacant::new(source, object) };
    // SAFETY: the value is live and is not used again (contract).
    unsafe { object.drop_in_place() };
}

/// Takes storage from `source`, and fills it with the result of `make`.
///
/// Returns `None` without calling `make` if the allocation fails. If `make` panics, the storage
/// returns to `source`.
#[inline]
pub(crate) fn take_and_fill<T>(
    source: &impl StorageSource<T>,
    make: impl FnOnce() -> T,
) -> Option<NonNull<T>> {
    let storage = source.take()?;
    // SAFETY: the storage came from `source`, and holds no value while the guard exists.
    let vacant = unsafe { Vacant::new(source, storage) };
    let value = make();
    mem::forget(vacant);
    // SAFETY: the storage has the layout of a `T`, and nothing else uses it.
    unsafe { storage.write(value) };
    Some(storage)
}

/// A guard that returns storage without a value to its source when the guard is dropped.
struct Vacant<'s, T, S: StorageSource<T>> {
    source: &'s S,
    storage: NonNull<T>,
}

impl<'s, T, S: StorageSource<T>> Vacant<'s, T, S> {
    /// # Safety
    ///
    /// - The requirements of [`put`](StorageSource::put) must be met for `storage` when the guard
    ///   is dropped.
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
