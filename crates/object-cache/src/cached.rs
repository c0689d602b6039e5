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

#[cfg(test)]
mod tests {
    use raw_mem::Malloc;

    use super::*;
    use crate::{
        FreeList,
        testing::{Log, Plan, below, failing, panic_of},
    };

    #[test]
    fn the_value_is_dropped_once_and_its_storage_serves_again() {
        let log = Log::default();
        let (below, live) = below();
        let cache = FreeList::new(10, below);
        let first = Cached::new_in(log.value(1), &cache).unwrap();
        let place: *const _ = &*first;
        drop(first);
        assert_eq!(log.dropped(), [1]);
        let second = Cached::new_in(log.value(2), &cache).unwrap();
        assert_eq!((&raw const *second, live.count()), (place, 1));
        drop(second);
        assert_eq!(log.dropped(), [2]);
    }

    #[test]
    fn a_constructor_that_panics_gives_the_storage_back() {
        let (below, live) = below();
        let cache = FreeList::<u64, _>::new(10, below);
        let make = || drop(Cached::make_in(|| panic!("no value"), &cache));
        assert_eq!(panic_of(make), "no value");
        assert_eq!((cache.stats().free, live.count()), (1, 1));
    }

    #[test]
    fn a_value_that_panics_while_dropped_gives_the_storage_back() {
        let log = Log::default();
        let cache = FreeList::new(10, below().0);
        let value = Cached::new_in(log.value(1), &cache);
        log.arm([1]);
        assert_eq!(panic_of(|| drop(value)), "bomb 1");
        assert_eq!((log.dropped(), cache.stats().free), ([1].into(), 1));
    }

    #[test]
    fn a_value_dropped_by_an_unwinding_gives_the_storage_back() {
        let log = Log::default();
        let cache = FreeList::new(10, below().0);
        let message = panic_of(|| {
            let _value = Cached::new_in(log.value(1), &cache);
            panic!("elsewhere");
        });
        assert_eq!((&*message, log.dropped(), cache.stats().free), ("elsewhere", [1].into(), 1));
    }

    #[test]
    fn without_memory_nothing_is_made() {
        let log = Log::default();
        let cache = FreeList::new(10, failing(Plan::From(1)).0);
        assert!(Cached::make_in(|| log.value(1), &cache).is_none());
        assert_eq!(log.dropped(), []);
        assert!(Cached::new_in(log.value(2), &cache).is_none());
        assert_eq!(log.dropped(), [2]);
    }

    #[test]
    fn a_value_that_moves_out_is_not_dropped() {
        let log = Log::default();
        let cache = FreeList::new(10, below().0);
        let value = Cached::new_in(log.value(1), &cache).unwrap().into_inner();
        assert_eq!((log.dropped(), cache.stats().free), ([].into(), 1));
        drop(value);
        assert_eq!(log.dropped(), [1]);
    }

    #[test]
    fn a_value_can_be_changed_in_its_place() {
        let cache = FreeList::new(10, Malloc);
        let mut number = Cached::new_in(1, &cache).unwrap();
        *number += 1;
        assert_eq!(std::format!("{number} {number:?}"), "2 2");
    }
}
