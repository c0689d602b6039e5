use core::ptr::NonNull;

/// A free object that a list can link: raw storage, or a node that the model checker loom observes.
pub(crate) trait Link: Sized {
    /// # Safety
    ///
    /// - The caller must own `this` exclusively.
    /// - `this` must not hold a value.
    unsafe fn set_next(this: NonNull<Self>, next: Option<NonNull<Self>>);

    /// # Safety
    ///
    /// - The caller must own `this` exclusively.
    /// - [`set_next`](Self::set_next) must have been called since `this` last held a value.
    unsafe fn next(this: NonNull<Self>) -> Option<NonNull<Self>>;

    /// Sets the number of objects in the magazine (batch of free objects) that begins with `this`.
    ///
    /// # Safety
    ///
    /// - `this` must be unused storage that the caller owns exclusively.
    /// - The storage must fit a pointer and a `u32`.
    unsafe fn set_count(this: NonNull<Self>, count: u32);

    /// # Safety
    ///
    /// - The caller must own `this` exclusively.
    /// - [`set_count`](Self::set_count) must have been called since `this` last held a value.
    unsafe fn count(this: NonNull<Self>) -> u32;
}

/// The first words of a free object. Only the first object of a batch uses `count`.
///
/// Never create a reference to a whole `FreeObject`, because its storage may end before `count`.
#[repr(C)]
pub(crate) struct FreeObject {
    next: Option<NonNull<FreeObject>>,
    count: u32,
}

impl Link for FreeObject {
    #[inline]
    unsafe fn set_next(this: NonNull<Self>, next: Option<NonNull<Self>>) {
        // SAFETY: the caller owns the storage (contract), which has room for the first word.
        unsafe { (&raw mut (*this.as_ptr()).next).write(next) }
    }

    #[inline]
    unsafe fn next(this: NonNull<Self>) -> Option<NonNull<Self>> {
        // SAFETY: the caller owns the storage, and `set_next` initialised the word (contract).
        unsafe { (&raw const (*this.as_ptr()).next).read() }
    }

    unsafe fn set_count(this: NonNull<Self>, count: u32) {
        // SAFETY: the caller owns the storage, which has room for a count (contract).
        unsafe { (&raw mut (*this.as_ptr()).count).write(count) }
    }

    unsafe fn count(this: NonNull<Self>) -> u32 {
        // SAFETY: the caller owns the storage, and `set_count` initialised the word (contract).
        unsafe { (&raw const (*this.as_ptr()).count).read() }
    }
}
