use core::{cell::Cell, fmt, marker::PhantomData, ops::Deref, ptr::NonNull};

use crate::cache::{StorageSource, drop_and_put, take_and_fill};

/// A value with its reference count, to which [`CachedRc`] pointers point.
#[derive(Debug)]
pub struct RcBox<T> {
    count: Cell<usize>,
    value: T,
}

/// A reference-counted pointer, like `Rc`, to a `T` whose storage came from the source `S`.
///
/// ```
/// use object_cache::{CachedRc, FreeList, RcBox};
/// use raw_mem::Malloc;
///
/// let lists = FreeList::<RcBox<Vec<u8>>, _>::new(80, Malloc);
/// let list = CachedRc::new_in(vec![1, 2, 3], &lists).unwrap();
/// let same = CachedRc::clone(&list);
/// assert_eq!((same.len(), CachedRc::count(&list)), (3, 2));
/// ```
pub struct CachedRc<T, S: StorageSource<RcBox<T>>> {
    /// # Invariant
    ///
    /// The object came from `source` and is live. It counts the `CachedRc` pointers to it.
    object: NonNull<RcBox<T>>,
    source: S,
    shares: PhantomData<RcBox<T>>,
}

impl<T, S: StorageSource<RcBox<T>>> CachedRc<T, S> {
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
        let object = take_and_fill(&source, || RcBox { count: Cell::new(1), value: make() })?;
        // INVARIANT: `take_and_fill` took the storage from `source`, and wrote a count of 1.
        Some(Self { object, source, shares: PhantomData })
    }

    #[inline]
    fn inner(&self) -> &RcBox<T> {
        // SAFETY: the object is live, and this pointer may access it (invariant of `object`).
        unsafe { self.object.as_ref() }
    }

    /// Returns the number of pointers that share the value.
    #[inline]
    pub fn count(this: &Self) -> usize {
        this.inner().count.get()
    }

    /// Returns true if both pointers share one object.
    #[inline]
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.object == other.object
    }

    /// Returns a mutable reference to the value, or `None` if another pointer shares it.
    #[inline]
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        if Self::count(this) != 1 {
            return None;
        }
        // SAFETY: the live object has one pointer (invariant of `object`), borrowed mutably here.
        Some(unsafe { &mut this.object.as_mut().value })
    }
}

impl<T, S: StorageSource<RcBox<T>> + Clone> Clone for CachedRc<T, S> {
    /// Creates another pointer to the same object.
    ///
    /// # Panics
    ///
    /// Panics if the reference count overflows, which needs forgotten pointers (`mem::forget`).
    #[inline]
    fn clone(&self) -> Self {
        let source = self.source.clone();
        let count = &self.inner().count;
        // INVARIANT: there is one more pointer.
        count.set(count.get().checked_add(1).expect("the reference count must not overflow"));
        Self { object: self.object, source, shares: PhantomData }
    }
}

impl<T, S: StorageSource<RcBox<T>>> Drop for CachedRc<T, S> {
    #[inline]
    fn drop(&mut self) {
        let count = &self.inner().count;
        // INVARIANT: there is one pointer fewer.
        count.set(count.get() - 1);
        if count.get() == 0 {
            // SAFETY: this was the last pointer to the live object, which came from `source`
            // (invariant of `object`).
            unsafe { drop_and_put(&self.source, self.object) }
        }
    }
}

impl<T, S: StorageSource<RcBox<T>>> Deref for CachedRc<T, S> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T: fmt::Debug, S: StorageSource<RcBox<T>>> fmt::Debug for CachedRc<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display, S: StorageSource<RcBox<T>>> fmt::Display for CachedRc<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        FreeList,
        testing::{Below, Log, Logged, below, panic_of},
    };

    type Lists = FreeList<RcBox<Logged>, Below>;

    #[test]
    fn the_last_pointer_drops_the_value() {
        let log = Log::default();
        let cache = Lists::new(10, below().0);
        let one = CachedRc::new_in(log.value(1), &cache).unwrap();
        let other = one.clone();
        assert!(CachedRc::ptr_eq(&one, &other));
        drop(one);
        assert_eq!((log.dropped(), CachedRc::count(&other), cache.stats().free), ([].into(), 1, 0));
        drop(other);
        assert_eq!((log.dropped(), cache.stats().free), ([1].into(), 1));
    }

    #[test]
    fn only_an_unshared_value_can_be_changed() {
        let log = Log::default();
        let cache = Lists::new(10, below().0);
        let mut one = CachedRc::new_in(log.value(1), &cache).unwrap();
        let other = one.clone();
        assert!(CachedRc::get_mut(&mut one).is_none());
        drop(other);
        CachedRc::get_mut(&mut one).unwrap().id = 5;
        drop(one);
        assert_eq!((log.dropped(), cache.stats().free), ([5].into(), 1));
    }

    #[test]
    fn a_value_that_panics_in_its_destructor_puts_the_storage_back() {
        let log = Log::default();
        let cache = Lists::new(10, below().0);
        let value = CachedRc::new_in(log.value(1), &cache);
        log.arm([1]);
        assert_eq!(panic_of(|| drop(value)), "bomb 1");
        assert_eq!((log.dropped(), cache.stats().free), ([1].into(), 1));
    }
}
