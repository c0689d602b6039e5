//! The first words of a free object, which contain the link to the next free object.
//!
//! ```text
//!   free object:   ┌──────┬───────┬─ ─ ─ ─ ─ ─
//!                  │ next │ count │ what the old value left behind
//!                  └──────┴───────┴─ ─ ─ ─ ─ ─
//!   count:         used only in the first object of a magazine
//! ```

use core::ptr::NonNull;

/// An object that a list can link.
///
/// The lists are generic over this trait, so that models test the same list code that a program
/// uses. In a program, the objects are raw storage. The model checker loom cannot observe accesses
/// to raw storage, so in a model the objects are nodes that loom can observe.
pub(crate) trait Link: Sized {
    /// Sets the object that follows `this`.
    ///
    /// # Safety
    ///
    /// - The caller must own `this` exclusively.
    /// - `this` must not hold a value.
    unsafe fn set_next(this: NonNull<Self>, next: Option<NonNull<Self>>);

    /// Returns the object that follows `this`.
    ///
    /// # Safety
    ///
    /// - The caller must own `this` exclusively.
    /// - [`set_next`](Self::set_next) must have been called since `this` last held a value.
    unsafe fn next(this: NonNull<Self>) -> Option<NonNull<Self>>;

    /// Sets the number of objects in the magazine that begins with `this`.
    ///
    /// # Safety
    ///
    /// - The caller must own `this` exclusively.
    /// - `this` must not hold a value.
    /// - The storage must be large enough for a link and a count.
    unsafe fn set_count(this: NonNull<Self>, count: u32);

    /// Returns the number of objects in the magazine that begins with `this`.
    ///
    /// # Safety
    ///
    /// - The caller must own `this` exclusively.
    /// - [`set_count`](Self::set_count) must have been called since `this` last held a value.
    unsafe fn count(this: NonNull<Self>) -> u32;
}

/// The first words of a free object. Only the first object of a magazine has a `count`. The storage
/// of any other object may be too small for a `count`, so a reference to the whole struct could
/// reach past the end of the storage. No function may therefore create such a reference.
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
