//! A pointer that owns an object of a cache, as `Box` owns one of the heap.

use core::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use crate::{BareHome, Home, HuskHome, home::Vacant};

/// Owns a `T` whose storage belongs to the cache `H`.
///
/// When the pointer is dropped the value is dropped too, and its storage goes back to the cache;
/// where the cache keeps husks, the value is made ready for its next life instead.
///
/// `H` is a reference to a cache, or a handle that finds one. The pointer is a word, and whatever
/// `H` is: a handle of [`thread_cache!`](crate::thread_cache!) takes no room.
pub struct Cached<T, H: Home<T>> {
    /// # Invariant
    ///
    /// Came from `home`, and holds a live value that is ours.
    object: NonNull<T>,
    home: H,
    owns: PhantomData<T>,
}

// SAFETY: the value moves along, and so does the way back to its cache.
unsafe impl<T: Send, H: Home<T> + Send> Send for Cached<T, H> {}
// SAFETY: a shared `Cached` gives shared references to the value and to nothing else.
unsafe impl<T: Sync, H: Home<T> + Sync> Sync for Cached<T, H> {}

impl<T, H: Home<T>> Cached<T, H> {
    /// Moves `value` into storage of `home`. `None` when there is no memory; `value` is dropped
    /// then.
    #[inline]
    pub fn new_in(value: T, home: H) -> Option<Self>
    where
        H: BareHome<T>,
    {
        Self::make_in(|| value, home)
    }

    /// Makes a value in storage of `home`. `None` when there is no memory; `make` is not called
    /// then. If `make` panics the storage goes back.
    #[inline]
    pub fn make_in(make: impl FnOnce() -> T, home: H) -> Option<Self>
    where
        H: BareHome<T>,
    {
        let storage = home.take()?;
        // SAFETY: the storage came from `home` and is ours; `fill` ends the guard.
        let vacant = unsafe { Vacant::new(&home, storage) };
        // INVARIANT: `fill` moves the value in.
        let object = vacant.fill(make());
        Some(Self { object, home, owns: PhantomData })
    }

    /// A husk of `home`, or a fresh value where none is left. `None` when there is no memory.
    #[inline]
    pub fn revive_in(home: H) -> Option<Self>
    where
        H: HuskHome<T>,
    {
        // INVARIANT: a `HuskHome` gives live values.
        let object = home.revive()?;
        Some(Self { object, home, owns: PhantomData })
    }

    /// Moves the value out; its storage goes back to the cache.
    #[inline]
    pub fn into_inner(self) -> T
    where
        H: BareHome<T>,
    {
        let this = ManuallyDrop::new(self);
        // SAFETY: `object`'s invariant, and `this` is not dropped.
        let value = unsafe { this.object.read() };
        // SAFETY: `this` is not used again, so its handle is ours.
        let home = unsafe { core::ptr::read(&this.home) };
        // SAFETY: the value has moved out.
        unsafe { home.put(this.object) };
        value
    }

    /// The cache that the storage belongs to.
    pub fn home(&self) -> &H {
        &self.home
    }
}

impl<T, H: Home<T>> Drop for Cached<T, H> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `object`'s invariant, and this is its end.
        unsafe { self.home.retire(self.object) }
    }
}

impl<T, H: Home<T>> Deref for Cached<T, H> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `object`'s invariant.
        unsafe { self.object.as_ref() }
    }
}

impl<T, H: Home<T>> DerefMut for Cached<T, H> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: `object`'s invariant; `&mut self` is the only way to it.
        unsafe { self.object.as_mut() }
    }
}

impl<T: fmt::Debug, H: Home<T>> fmt::Debug for Cached<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display, H: Home<T>> fmt::Display for Cached<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
