use core::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
};

use crate::cache::{StorageSource, drop_and_put, take_and_fill};

/// An owning pointer, like `Box`, to a `T` whose storage came from the source `S`.
///
/// The pointer has the size of one word plus the size of `S`.
///
/// ```
/// use object_cache::{Cached, FreeList};
/// use raw_mem::Malloc;
///
/// let points = FreeList::new(100, Malloc);
/// let mut point = Cached::new_in([1, 2], &points).unwrap();
/// point[0] += 1;
/// assert_eq!(Cached::into_inner(point), [2, 2]);
/// assert_eq!(points.stats().free, 1);
/// ```
pub struct Cached<T, S: StorageSource<T>> {
    /// # Invariant
    ///
    /// The object came from `source`, holds a live value, and is owned by this pointer alone.
    object: NonNull<T>,
    source: S,
    owns: PhantomData<T>,
}

// SAFETY: both the value and the source may move to another thread, because `T` and `S` are `Send`.
unsafe impl<T: Send, S: StorageSource<T> + Send> Send for Cached<T, S> {}
// SAFETY: threads that share a `Cached` get only a `&T` from it, and `T` is `Sync`.
unsafe impl<T: Sync, S: StorageSource<T> + Sync> Sync for Cached<T, S> {}

impl<T, S: StorageSource<T>> Cached<T, S> {
    /// Moves `value` into storage from `source`. Returns `None` if the allocation fails.
    #[inline]
    pub fn new_in(value: T, source: S) -> Option<Self> {
        Self::make_in(|| value, source)
    }

    /// Moves the result of `make` into storage from `source`.
    ///
    /// Returns `None` without calling `make` if the allocation fails.
    ///
    /// # Panics
    ///
    /// Panics if `make` does. The storage then returns to `source`.
    #[inline]
    pub fn make_in(make: impl FnOnce() -> T, source: S) -> Option<Self> {
        let object = take_and_fill(&source, make)?;
        // INVARIANT: `take_and_fill` took the storage from `source` and wrote the value.
        Some(Self { object, source, owns: PhantomData })
    }

    /// Moves the value out, and returns the storage to the source.
    #[inline]
    pub fn into_inner(this: Self) -> T {
        let this = ManuallyDrop::new(this);
        // SAFETY: the object holds a live value (invariant of `object`), which `this` never drops.
        let value = unsafe { this.object.read() };
        // SAFETY: `this` is neither dropped nor used for its source again.
        let source = unsafe { ptr::read(&this.source) };
        // SAFETY: the object came from `source`, and its value has moved out.
        unsafe { source.put(this.object) };
        value
    }
}

impl<T, S: StorageSource<T>> Drop for Cached<T, S> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `source` gave the live object (invariant of `object`), which is not used again.
        unsafe { drop_and_put(&self.source, self.object) }
    }
}

impl<T, S: StorageSource<T>> Deref for Cached<T, S> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the object is live, and this pointer may access it (invariant of `object`).
        unsafe { self.object.as_ref() }
    }
}

impl<T, S: StorageSource<T>> DerefMut for Cached<T, S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this pointer alone owns the live object (invariant of `object`), and `self` is
        // borrowed mutably.
        unsafe { self.object.as_mut() }
    }
}

impl<T: fmt::Debug, S: StorageSource<T>> fmt::Debug for Cached<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display, S: StorageSource<T>> fmt::Display for Cached<T, S> {
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
    fn a_value_is_dropped_once_and_its_storage_is_reused() {
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
    fn a_constructor_that_panics_puts_the_storage_back() {
        let (below, live) = below();
        let cache = FreeList::<u64, _>::new(10, below);
        let make = || drop(Cached::make_in(|| panic!("no value"), &cache));
        assert_eq!(panic_of(make), "no value");
        assert_eq!((cache.stats().free, live.count()), (1, 1));
    }

    #[test]
    fn a_value_that_panics_in_its_destructor_puts_the_storage_back() {
        let log = Log::default();
        let cache = FreeList::new(10, below().0);
        let value = Cached::new_in(log.value(1), &cache);
        log.arm([1]);
        assert_eq!(panic_of(|| drop(value)), "bomb 1");
        assert_eq!((log.dropped(), cache.stats().free), ([1].into(), 1));
    }

    #[test]
    fn a_value_dropped_while_unwinding_puts_the_storage_back() {
        let log = Log::default();
        let cache = FreeList::new(10, below().0);
        let message = panic_of(|| {
            let _value = Cached::new_in(log.value(1), &cache);
            panic!("elsewhere");
        });
        assert_eq!((&*message, log.dropped(), cache.stats().free), ("elsewhere", [1].into(), 1));
    }

    #[test]
    fn nothing_is_made_without_memory() {
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
        let value = Cached::into_inner(Cached::new_in(log.value(1), &cache).unwrap());
        assert_eq!((log.dropped(), cache.stats().free), ([].into(), 1));
        drop(value);
        assert_eq!(log.dropped(), [1]);
    }

    #[test]
    fn a_value_can_be_changed_in_place() {
        let cache = FreeList::new(10, Malloc);
        let mut number = Cached::new_in(1, &cache).unwrap();
        *number += 1;
        assert_eq!(std::format!("{number} {number:?}"), "2 2");
    }
}
